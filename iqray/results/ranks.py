"""Rank tables: how the subsets of a combination order by accuracy and by distance.

Reads the table of cells (`schemas.CELLS`) and returns tables. A combination is one (dataset,
architecture, metric); its subsets compete for rank 1, the highest value. Pure.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from iqray.schemas import RANK_COUNTS

MEASURES = ("distance", "top1", "top5")
COMBINATION = ("dataset", "architecture", "metric")

# Values that agree to nine significant digits are one value: equal accuracies summed in another
# order differ in the sixteenth. One test image more or less moves an accuracy far above this.
_TIE_DIGITS = 9

_AVERAGED = ("top1", "top5", "distance", "mean_distance", "chance_top1", "chance_top5")


def mask_unconverged(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with null measures where the trial did not converge: those are no data of a subset.

    Args:
        cells: a table of `schemas.CELLS`, or averages over seeds, which have no status.
    """
    if "status" not in cells.columns:
        return cells
    masked = cells.copy()
    measured = [name for name in (*MEASURES, "mean_distance") if name in cells.columns]
    masked[measured] = cells[measured].where(cells["status"] == "ok")
    return masked


def rank_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Fill `rank_top1`, `rank_top5`, `rank_distance` within each combination and seed.

    Args:
        cells: columns dataset, architecture, metric, subset and one per measure; `seed` where
            ranks are per seed, absent after `average_over_seeds`.

    Returns:
        A copy of `cells` with the three rank columns, 1 for the highest value; ties share the
        average rank. Where a subset lacks a value of a measure or did not converge, all subsets of
        that combination get a null rank for it: a rank among three is not comparable with a rank
        among four.
    """
    ranked = cells.copy()
    keys = [key for key in (*COMBINATION, "seed") if key in cells.columns]
    num_subsets = cells["subset"].nunique()
    measured = mask_unconverged(cells)
    for measure in MEASURES:
        ranked[f"rank_{measure}"] = rank_values(
            measured[measure], [ranked[key] for key in keys], num_subsets
        )
    return ranked


def rank_values(values: pd.Series, keys: Sequence[pd.Series], num_subsets: int) -> pd.Series:
    """Rank values within each group of equal keys, 1 for the highest.

    Args:
        values: of a measure; null where there is none.
        keys: columns that name a value's group, which has one value per subset.
        num_subsets: that a group must have values of; the ranks of others are null.
    """
    groups = round_for_ties(values).groupby(list(keys))
    return groups.rank(ascending=False).where(groups.transform("count") == num_subsets)


def round_for_ties(values: pd.Series) -> pd.Series:
    """Round to 9 significant digits, within which values are ties; NaN stays NaN."""
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    magnitudes = np.floor(np.log10(np.abs(numbers), where=numbers != 0, out=np.zeros_like(numbers)))
    scales = 10.0 ** (_TIE_DIGITS - 1 - magnitudes)
    return pd.Series(np.round(numbers * scales) / scales, index=values.index)


def average_over_seeds(cells: pd.DataFrame) -> pd.DataFrame:
    """Average every measure over seeds: one row per cell.

    Args:
        cells: a table of `schemas.CELLS`.

    Returns:
        Columns dataset, architecture, metric, subset, num_seeds, the averages of top1, top5,
        distance, mean_distance and both chance levels, and weights; no ranks yet. A cell that
        lacks a value at any seed gets a null, so that all averages cover the same seeds.
    """
    keys = [*COMBINATION, "subset"]
    num_seeds = cells["seed"].nunique()
    numbers = mask_unconverged(cells)[list(_AVERAGED)].astype("float64")
    groups = numbers.groupby([cells[key] for key in keys], sort=False)
    averages = groups.mean().where(groups.count() == num_seeds)
    averages.insert(0, "num_seeds", num_seeds)
    averages["weights"] = cells.groupby(keys, sort=False)["weights"].first()
    return averages.reset_index()


def count_ranks(cells: pd.DataFrame) -> pd.DataFrame:
    """Count how many combinations give each subset each rank, after averaging over seeds.

    Args:
        cells: a table of `schemas.CELLS`, all seeds of the study.

    Returns:
        A table of `schemas.RANK_COUNTS` for the scopes `all`, `dataset:<name>` and
        `metric:<name>`. Whole ranks always have a row, half ranks where they occur. A tie of two
        at the top counts at 1.5; a tie of three at the top is rank 2 for each of them.
    """
    ranked = rank_cells(average_over_seeds(cells))
    rows = [
        {"scope": scope, "measure": measure, **row}
        for scope, part in split_scopes(ranked)
        for measure in MEASURES
        for row in count_combinations(part.assign(rank=part[f"rank_{measure}"]))
    ]
    return pd.DataFrame(rows, columns=RANK_COUNTS.names)


def split_scopes(ranked: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """All rows, then those of each dataset and of each metric, with the scope's name."""
    yield "all", ranked
    for column in ("dataset", "metric"):
        for name, part in ranked.groupby(column, sort=False):
            yield f"{column}:{name}", part


def count_combinations(ranked: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Count ranks: one row per subset and rank, as `schemas.RANK_COUNTS` has them.

    Args:
        ranked: one row per combination and subset, with its `rank` and `weights`.
    """
    subsets = ranked["subset"].unique()
    complete = ranked.dropna(subset=["rank"])
    ranks = complete["rank"]
    counts = complete.groupby(["subset", ranks]).size().to_dict()
    distinct = ranks.groupby([complete[key] for key in COMBINATION]).nunique()
    shared = {
        "num_combinations": len(distinct),
        "num_tied": int((distinct < len(subsets)).sum()),
        "weights": describe_weights(ranked["weights"]),
    }
    all_ranks = sorted({*map(float, range(1, len(subsets) + 1)), *ranks})
    for subset in subsets:
        for rank in all_ranks:
            count = counts.get((subset, rank), 0)
            yield {"subset": subset, "rank": rank, "count": count, **shared}


def describe_weights(weights: pd.Series) -> str:
    """Name every provenance in a column of weights once, in alphabetical order."""
    return ", ".join(sorted(weights.dropna().unique()))
