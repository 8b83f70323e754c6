"""Diagnostics without training: how far the selection of categories itself can be trusted.

Reads scores, category statistics and subsets; returns `schemas.DIAGNOSTICS`. Pure.

The measures, by their names in the table:

- jaccard_subsets: categories that two subsets of one dataset and metric share.
- jaccard_metrics: categories that two metrics choose for one subset.
- jaccard_datasets: categories, by name, that one subset has in two datasets.
- spearman_images: order of images by two metrics, of raw scores.
- spearman_categories: order of categories by two metrics, of the statistics that the study sorts.
- spearman_statistics: a category's mean with each of its ranges, and each statistic with its number
  of images, their pixels and their bytes per pixel; far from 0 is a confound.
- split_half: order of categories by an average in one half of the images and in the other,
  corrected to the whole number of images by Spearman and Brown.
- split_half_uncorrected: the same by a range or standard deviation, of half as many images as
  subsets are chosen by: no formula corrects these. Categories of fewer than four images, of which a
  half has one, are left out.

Scores are raw: between a metric whose lower scores are better and one whose higher scores are, a
negative correlation of means is agreement.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from iqray.categories.category_stats import STATISTICS
from iqray.results.ranks import describe_weights
from iqray.schemas import DIAGNOSTICS
from iqray.settings.subset import AVERAGES, RANGES, SubsetRules
from iqray.statistics.reliability import correlate_ranks, measure_reliability

# What should not decide which categories are chosen.
CONFOUNDS = ("num_images", "median_pixels", "bytes_per_pixel")

NUM_SPLITS = 100

SPLIT_HALF, SPLIT_HALF_UNCORRECTED = "split_half", "split_half_uncorrected"

_SEED = 0
_MIN_COMPARED = 3

Row = dict[str, Any]


def diagnose_subsets(subsets: pd.DataFrame) -> Iterator[Row]:
    """Overlap of the categories of subsets: the three Jaccard measures.

    Args:
        subsets: a table of `schemas.SUBSETS`.

    Yields:
        Rows of `schemas.DIAGNOSTICS`; `quantity` is the subset where it is one.
    """
    keys = ["dataset", "metric", "subset"]
    chosen = subsets.groupby(keys, sort=False)["category"].agg(frozenset)
    weights = subsets.groupby(keys, sort=False)["weights"].first()
    for first, second in itertools.combinations(chosen.index, 2):
        differing = [name for name, a, b in zip(keys, first, second, strict=True) if a != b]
        if len(differing) != 1:
            continue
        [name] = differing
        position = keys.index(name)
        shared = {key: value for key, value in zip(keys, first, strict=True) if key != name}
        union = chosen[first] | chosen[second]
        yield {
            "measure": f"jaccard_{name}s",
            "quantity": shared.pop("subset", "categories"),
            **shared,
            "first": first[position],
            "second": second[position],
            "value": len(chosen[first] & chosen[second]) / len(union),
            "n": len(union),
            "reason": "",
            "weights": describe_weights(weights[[first, second]]),
        }


def diagnose_category_stats(category_stats: pd.DataFrame, rules: SubsetRules) -> Iterator[Row]:
    """Correlations over categories: between statistics, with confounds, and between metrics.

    Args:
        category_stats: a table of `schemas.CATEGORY_STATS`.
        rules: the study's.
    """
    for (dataset, metric), rows in category_stats.groupby(["dataset", "metric"], sort=False):
        pairs = [("mean", name) for name in RANGES]
        pairs += itertools.product(STATISTICS, CONFOUNDS)
        for first, second in pairs:
            yield {
                "measure": "spearman_statistics",
                "dataset": dataset,
                "metric": metric,
                "quantity": first,
                "first": first,
                "second": second,
                **_correlate(rows[first], rows[second], "categories"),
                "weights": rows["weights"].iloc[0],
            }
    for dataset, rows in category_stats.groupby("dataset", sort=False):
        weights = rows.groupby("metric")["weights"].first()
        for statistic in _list_sorted(rules):
            wide = rows.pivot(index="category", columns="metric", values=statistic)
            wide = wide[list(rows["metric"].unique())]
            for row in _compare_metrics(wide, weights, "categories"):
                yield {
                    "measure": "spearman_categories",
                    "dataset": dataset,
                    "quantity": statistic,
                    **row,
                }


def diagnose_scores(dataset: str, scores: Iterable[pa.Table], rules: SubsetRules) -> Iterator[Row]:
    """Agreement of metrics about images, and reliability of the order of categories.

    Args:
        dataset: its name.
        scores: of each metric, rows of `schemas.SCORES`.
        rules: the study's.
    """
    columns = ["image_id", "category", "metric", "score", "status", "weights"]
    by_metric: dict[str, pd.Series] = {}
    weights: dict[str, str] = {}
    for table in scores:
        frame = table.select(columns).to_pandas()
        metric = frame["metric"].iloc[0]
        scored = frame[frame["status"] == "ok"]
        by_metric[metric] = scored.set_index("image_id")["score"]
        weights[metric] = frame["weights"].iloc[0]
        for row in _split_halves(scored, rules):
            yield {"dataset": dataset, "metric": metric, **row, "weights": weights[metric]}
    for row in _compare_metrics(pd.DataFrame(by_metric), weights, "images"):
        yield {"measure": "spearman_images", "dataset": dataset, "quantity": "score", **row}


def build_diagnostics(rows: Iterable[Row]) -> pd.DataFrame:
    """Table of `schemas.DIAGNOSTICS` from the rows of the functions above."""
    return pd.DataFrame(list(rows), columns=DIAGNOSTICS.names)


def _compare_metrics(
    wide: pd.DataFrame, weights: Mapping[str, str] | pd.Series, unit: str
) -> Iterator[Row]:
    """Correlate each pair of columns; a column is a metric."""
    for first, second in itertools.combinations(wide.columns, 2):
        yield {
            "first": first,
            "second": second,
            **_correlate(wide[first], wide[second], unit),
            "weights": describe_weights(pd.Series([weights[first], weights[second]])),
        }


def _correlate(first: pd.Series, second: pd.Series, unit: str) -> Row:
    """Spearman correlation over the rows where both have a value."""
    pair = np.stack([first.to_numpy(np.float64), second.to_numpy(np.float64)])
    complete = pair[:, np.isfinite(pair).all(axis=0)]
    num = complete.shape[1]
    if num < _MIN_COMPARED:
        return {"n": num, "reason": _explain_few(num, unit)}
    if (np.ptp(complete, axis=1) == 0).any():
        return {"n": num, "reason": f"one value for all {unit}"}
    value = correlate_ranks(complete[:1], complete[1:])[0]
    return {"value": value, "n": num, "reason": ""}


def _split_halves(scored: pd.DataFrame, rules: SubsetRules) -> Iterator[Row]:
    names = _list_sorted(rules)
    averages = [name for name in names if name in AVERAGES]
    others = [name for name in names if name not in AVERAGES]
    yield from _measure_halves(scored, averages, min_images=2, is_corrected=True)
    yield from _measure_halves(scored, others, min_images=4, is_corrected=False)


def _measure_halves(
    scored: pd.DataFrame, names: Sequence[str], min_images: int, *, is_corrected: bool
) -> Iterator[Row]:
    """Rows of some statistics, over the categories of `min_images` or more."""
    values = [own.to_numpy(np.float64) for _, own in scored.groupby("category")["score"]]
    categories = [own for own in values if len(own) >= min_images]
    row = {
        "measure": SPLIT_HALF if is_corrected else SPLIT_HALF_UNCORRECTED,
        "first": "half",
        "second": "half",
        "n": len(categories),
    }
    if len(categories) < _MIN_COMPARED:
        reason = _explain_few(len(categories), f"categories of {min_images} or more images")
        yield from ({**row, "quantity": name, "reason": reason} for name in names)
        return
    num_left_out = len(values) - len(categories)
    left_out = f"left out: {num_left_out} categories of fewer than {min_images} scored images"
    chosen = {name: STATISTICS[name] for name in names}
    results = measure_reliability(categories, chosen, NUM_SPLITS, _SEED, is_corrected=is_corrected)
    for name, result in results.items():
        reason = "one value for all categories of a half" if np.isnan(result.value) else ""
        yield {
            **row,
            "quantity": name,
            "value": result.value,
            "low": result.low,
            "high": result.high,
            "reason": "; ".join(filter(None, [reason, left_out if num_left_out else ""])),
        }


def _list_sorted(rules: SubsetRules) -> list[str]:
    """Statistics of scores that subsets sort by; sizes of images are the same for all metrics."""
    return [name for name in rules.statistics if name in STATISTICS]


def _explain_few(num: int, unit: str) -> str:
    return f"{num} {unit}; {_MIN_COMPARED} or more are needed"
