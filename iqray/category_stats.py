"""Statistics of a category's scores: pure functions from score rows to category rows.

All statistics are of raw scores with status ok. Percentiles interpolate linearly between order
statistics (numpy's default, Hyndman and Fan's type 7).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from iqray import schemas

_TRIMMED_SHARE = 0.1  # cut from each end


def _compute_percentile_range(scores: np.ndarray, low: float, high: float) -> float:
    lower, upper = np.percentile(scores, [low, high])
    return float(upper - lower)


STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda scores: float(np.mean(scores)),
    "median": lambda scores: float(np.median(scores)),
    "trimmed_mean": lambda scores: float(stats.trim_mean(scores, _TRIMMED_SHARE)),
    "max_min": lambda scores: float(np.ptp(scores)),
    "p95_p5": lambda scores: _compute_percentile_range(scores, 5, 95),
    "p99_p1": lambda scores: _compute_percentile_range(scores, 1, 99),
    "iqr": lambda scores: _compute_percentile_range(scores, 25, 75),
    "sd": lambda scores: float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan"),
}


def compute_category_stats(scores: pa.Table) -> pa.Table:
    """Statistics per (dataset, metric, category).

    Args:
        scores: rows of `schemas.SCORES`.

    Returns:
        Rows of `schemas.CATEGORY_STATS` sorted by dataset, metric and category. A category
        without a scored image has null statistics.
    """
    frame = scores.select(
        ["dataset", "metric", "category", "score", "status", "weights"]
    ).to_pandas()
    records = []
    for (dataset, metric, category), rows in frame.groupby(
        ["dataset", "metric", "category"], sort=True
    ):
        records.append(
            {
                "dataset": dataset,
                "metric": metric,
                "category": category,
                "num_images": len(rows),
                "weights": rows["weights"].iloc[0],
                **_describe_scores(rows),
            }
        )
    return pa.Table.from_pylist(records, schema=schemas.CATEGORY_STATS)


def _describe_scores(rows: pd.DataFrame) -> dict[str, float | int | None]:
    values = rows.loc[rows["status"] == "ok", "score"].to_numpy(dtype=np.float64)
    described: dict[str, float | int | None] = {"num_scored": len(values)}
    for name, compute in STATISTICS.items():
        value = compute(values) if len(values) else float("nan")
        described[name] = None if np.isnan(value) else value
    return described
