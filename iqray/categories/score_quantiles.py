"""How a metric's scores are spread over a dataset, each quantile with an image that has it.

Reads rows of `schemas.SCORES`, returns `schemas.SCORE_QUANTILES`. Pure.
"""

import numpy as np
import pandas as pd
import pyarrow as pa

from iqray.metrics.registry import MetricInfo
from iqray.schemas import SCORE_QUANTILES

NUM_QUANTILES = 101

_COLUMNS = ["dataset", "metric", "score", "status", "image_id", "category", "path", "weights"]


def find_quantiles(scores: pa.Table, metric: MetricInfo) -> pd.DataFrame:
    """Find the images at equal steps of the ordered scores of a dataset.

    Args:
        scores: all rows of one dataset and metric, `schemas.SCORES`; failures are left out.
        metric: what gave the scores.

    Returns:
        `NUM_QUANTILES` rows of `schemas.SCORE_QUANTILES`, from the lowest score to the highest;
        none where no image has a score. Equal scores are ordered by path. With fewer images than
        quantiles an image stands in several rows.
    """
    frame = scores.select(_COLUMNS).to_pandas()
    ordered = frame[frame["status"] == "ok"].sort_values(["score", "path"])
    if ordered.empty:
        return pd.DataFrame(columns=SCORE_QUANTILES.names)
    shares = np.linspace(0, 1, NUM_QUANTILES)
    places = np.round(shares * (len(ordered) - 1)).astype(int)
    chosen = ordered.iloc[places].assign(quantile=shares, lower_better=metric.lower_better)
    return chosen[SCORE_QUANTILES.names]
