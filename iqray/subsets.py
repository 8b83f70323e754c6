"""Pick the categories of the four subsets: pure functions from category rows to subset rows.

`avg_high` and `avg_low` are the top and bottom categories by average quality, `range_high` and
`range_low` those by score range. Quality is the score oriented so that higher is better, and this
module is the one place that makes it: quality = -score where lower scores are better. A range has
no orientation.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from iqray import schemas
from iqray.errors import StudyError
from iqray.study import SubsetRules


def choose_subsets(
    category_stats: pa.Table,
    rules: SubsetRules,
    lower_better: Mapping[str, bool],
    num_images: Mapping[tuple[str, str, str], int],
) -> pa.Table:
    """Choose the categories of every subset of every dataset and metric.

    Ties at the cut are broken by category name, ascending in every subset.

    Args:
        category_stats: rows of `schemas.CATEGORY_STATS`.
        rules: the study's.
        lower_better: by metric, whether lower scores mean better images.
        num_images: images by (dataset, split, category); splits are train and test.

    Returns:
        Rows of `schemas.SUBSETS`, sorted by dataset, metric, subset name in the study's order,
        and position.

    Raises:
        StudyError: fewer categories have enough scored images than a subset needs.
    """
    records: list[dict[str, Any]] = []
    frame = category_stats.to_pandas()
    for (dataset, metric), rows in frame.groupby(["dataset", "metric"], sort=True):
        k = rules.compute_k(len(rows))
        eligible = _select_eligible(rows, rules, k, f"dataset '{dataset}', metric '{metric}'")
        sign = -1.0 if lower_better[metric] and rules.orientation == "quality" else 1.0
        for name in rules.names:
            statistic = rules.average if name.startswith("avg") else rules.range
            oriented = eligible[statistic] * (sign if name.startswith("avg") else 1.0)
            chosen = _take_extremes(eligible["category"], oriented, k, name.endswith("high"))
            for position, (category, value) in enumerate(chosen, start=1):
                records.append(
                    {
                        "dataset": dataset,
                        "metric": metric,
                        "subset": name,
                        "position": position,
                        "category": category,
                        "statistic": statistic,
                        "value": value,
                        "num_train_images": num_images[dataset, "train", category],
                        "num_test_images": num_images[dataset, "test", category],
                        "weights": rows["weights"].iloc[0],
                    }
                )
    return pa.Table.from_pylist(records, schema=schemas.SUBSETS)


def _take_extremes(
    categories: pd.Series, values: pd.Series, k: int, highest: bool
) -> list[tuple[str, float]]:
    order = pd.DataFrame({"category": categories, "value": values}).sort_values(
        ["value", "category"], ascending=[not highest, True]
    )
    return list(order.head(k).itertuples(index=False, name=None))


def _select_eligible(rows: pd.DataFrame, rules: SubsetRules, k: int, where: str) -> pd.DataFrame:
    share = rows["num_scored"] / rows["num_images"]
    columns = [rules.average, rules.range]
    eligible = rows[(share >= rules.min_scored_share) & rows[columns].notna().all(axis=1)]
    if len(eligible) < k:
        raise StudyError(
            f"{where}: {len(eligible)} of {len(rows)} categories have at least "
            f"{rules.min_scored_share:.0%} of their images scored, but a subset needs {k}; "
            "repair the images, or lower subsets.min_scored_share, subsets.fraction or subsets.k"
        )
    return eligible
