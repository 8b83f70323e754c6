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


def _compute_percentile_range(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    lower, upper = np.percentile(scores, [low, high], axis=-1)
    return upper - lower


# By name, a function of `(..., num_images)` float64 that returns `(...)`: statistics along the
# last axis.
STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda scores: np.mean(scores, axis=-1),
    "median": lambda scores: np.median(scores, axis=-1),
    "trimmed_mean": lambda scores: stats.trim_mean(scores, _TRIMMED_SHARE, axis=-1),
    "max_min": lambda scores: np.ptp(scores, axis=-1),
    "p95_p5": lambda scores: _compute_percentile_range(scores, 5, 95),
    "p99_p1": lambda scores: _compute_percentile_range(scores, 1, 99),
    "iqr": lambda scores: _compute_percentile_range(scores, 25, 75),
    "sd": lambda scores: (
        np.std(scores, axis=-1, ddof=1)
        if scores.shape[-1] > 1
        else np.full(scores.shape[:-1], np.nan)
    ),
}


def compute_category_stats(scores: pa.Table) -> pa.Table:
    """Statistics per (dataset, metric, category).

    Args:
        scores: rows of `schemas.SCORES`.

    Returns:
        Rows of `schemas.CATEGORY_STATS` sorted by dataset, metric and category. A category
        without a scored image has null statistics. What scores do not tell (`median_pixels`,
        `bytes_per_pixel`) is null until `add_image_sizes`.
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
        value = float(compute(values)) if len(values) else float("nan")
        described[name] = None if np.isnan(value) else value
    return described


def add_image_sizes(category_stats: pa.Table, manifest: pa.Table) -> pa.Table:
    """Fill the columns `median_pixels` and `bytes_per_pixel` of a dataset.

    Both are medians over the readable training images of a category, whether a metric scored them
    or not; null for a category without one.

    Args:
        category_stats: rows of `schemas.CATEGORY_STATS`, all of the manifest's dataset.
        manifest: rows of `schemas.MANIFEST`.

    Returns:
        The same rows in the same order.
    """
    images = manifest.select(
        ["split", "category", "num_bytes", "width", "height", "status"]
    ).to_pandas()
    images = images[(images["split"] == "train") & (images["status"] == "ok")]
    pixels = images["width"].astype("float64") * images["height"]
    sizes = pd.DataFrame({"median_pixels": pixels, "bytes_per_pixel": images["num_bytes"] / pixels})
    medians = sizes.groupby(images["category"]).median()
    frame = category_stats.to_pandas()
    for name in sizes.columns:
        frame[name] = frame["category"].map(medians[name])
    filled = pa.Table.from_pandas(frame, schema=schemas.CATEGORY_STATS, preserve_index=False)
    return filled.replace_schema_metadata()
