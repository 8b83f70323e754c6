"""Pick the categories of the subsets: pure functions from category rows to subset rows.

`avg_high` and `avg_low` are the top and bottom categories by average quality, `range_high` and
`range_low` those by score range; `iqr_high`, `bytes_per_pixel_low` and so on those by any other
statistic. Quality is the score oriented so that higher is better, and this module is the one place
that makes it: quality = -score where lower scores are better. Only averages have an orientation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from iqray import schemas
from iqray.errors import StudyError
from iqray.settings.subset import AVERAGES, SubsetRules


def choose_subsets(
    category_stats: pa.Table,
    rules: SubsetRules,
    lower_better: Mapping[str, bool],
    num_images: Mapping[tuple[str, str, str], int],
) -> pa.Table:
    """Choose the categories of every subset of every dataset and metric.

    Ties are broken by category name, ascending in every subset. Where subsets have to be disjoint,
    a category that several of them want goes to the one that has it at the best place, at equal
    places to the one whose statistic is named first, and the others take their next ones.

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
        is_flipped = lower_better[metric] and rules.orientation == "quality"
        oriented = {name: _orient(eligible, rules, name, is_flipped) for name in rules.names}
        orders = {
            name: _sort_categories(values, highest_first=name.endswith("_high"))
            for name, values in oriented.items()
        }
        chosen = _take_disjoint(orders, k) if rules.disjoint else _take_first(orders, k)
        for name, categories in chosen.items():
            for position, category in enumerate(categories, start=1):
                records.append(
                    {
                        "dataset": dataset,
                        "metric": metric,
                        "subset": name,
                        "position": position,
                        "category": category,
                        "statistic": rules.get_statistic(name),
                        "value": oriented[name][category],
                        "num_train_images": num_images[dataset, "train", category],
                        "num_test_images": num_images[dataset, "test", category],
                        "weights": rows["weights"].iloc[0],
                    }
                )
    return pa.Table.from_pylist(records, schema=schemas.SUBSETS)


def swap_orientation(names: Sequence[str]) -> dict[str, str]:
    """Subset that takes each subset's place in the other orientation, for lower-is-better metrics.

    Only averages have an orientation: their high and low swap, all else stays. The categories are
    the same ones, also at ties, so that nothing has to be trained again.

    Args:
        names: of the study's subsets.

    Returns:
        The new name by the old one; without those whose partner is not among `names`.
    """
    swapped = {}
    for name in names:
        stem, _, end = name.rpartition("_")
        other = f"{stem}_{'low' if end == 'high' else 'high'}"
        partner = other if stem in ("avg", *AVERAGES) else name
        if partner in names:
            swapped[name] = partner
    return swapped


def _orient(rows: pd.DataFrame, rules: SubsetRules, name: str, is_flipped: bool) -> pd.Series:
    """A subset's statistic by category; averages as the orientation has them."""
    statistic = rules.get_statistic(name)
    values = rows.set_index("category")[statistic]
    return -values if is_flipped and statistic in AVERAGES else values


def _sort_categories(values: pd.Series, *, highest_first: bool) -> list[str]:
    order = values.rename("value").reset_index()
    order = order.sort_values(["value", "category"], ascending=[not highest_first, True])
    return list(order["category"])


def _take_first(orders: Mapping[str, Sequence[str]], k: int) -> dict[str, list[str]]:
    return {name: list(order[:k]) for name, order in orders.items()}


def _take_disjoint(orders: Mapping[str, Sequence[str]], k: int) -> dict[str, list[str]]:
    """First k of each order, where a category goes to the subset that has it at the best place.

    At equal places it goes to the statistic that is named first, so that high and low may swap.
    """
    chosen: dict[str, list[str]] = {name: [] for name in orders}
    taken: set[str] = set()
    stems = [name.rpartition("_")[0] for name in orders]
    first_named = sorted(orders, key=lambda name: stems.index(name.rpartition("_")[0]))
    for contenders in zip(*(orders[name] for name in first_named), strict=True):  # place by place
        for name, category in zip(first_named, contenders, strict=True):
            if category not in taken and len(chosen[name]) < k:
                chosen[name].append(category)
                taken.add(category)
    return chosen


def _select_eligible(rows: pd.DataFrame, rules: SubsetRules, k: int, where: str) -> pd.DataFrame:
    share = rows["num_scored"] / rows["num_images"]
    has_statistics = rows[list(rules.statistics)].notna().all(axis=1)
    eligible = rows[(share >= rules.min_scored_share) & has_statistics]
    needed = k * len(rules.names) if rules.disjoint else k
    if len(eligible) < needed:
        what = f"{len(rules.names)} disjoint subsets need" if rules.disjoint else "a subset needs"
        raise StudyError(
            f"{where}: {len(eligible)} of {len(rows)} categories have at least "
            f"{rules.min_scored_share:.0%} of their images scored, but {what} {needed}; "
            "repair the images, or lower subsets.min_scored_share, subsets.fraction or subsets.k"
        )
    return eligible
