"""Ranks by every definition of every measure, in both orientations, per seed and over seeds.

Reads the cells and the distances of their trials; returns `schemas.RANKS` and
`schemas.DEFINITION_COUNTS`. Nothing is trained for the other orientation: it gives the same subsets
other names (`subsets.swap_orientation`). Pure.
"""

from collections.abc import Mapping

import pandas as pd

from iqray.categories.subsets import swap_orientation
from iqray.results.distances import DEFINITIONS
from iqray.results.ranks import (
    COMBINATION,
    count_combinations,
    mask_unconverged,
    rank_values,
    split_scopes,
)
from iqray.schemas import DEFINITION_COUNTS, DISTANCES, RANKS

# By measure and definition the column of `schemas.CELLS`; the paper's reading comes first.
_ACCURACIES = {
    ("top1", "category_mean"): "top1",
    ("top1", "image_mean"): "top1_images",
    ("top5", "category_mean"): "top5",
    ("top5", "image_mean"): "top5_images",
}

_KINDS = ("orientation", "measure", "definition")


def build_distances(
    distances: Mapping[str, Mapping[str, Mapping[str, float | None]]],
) -> pd.DataFrame:
    """Table of `schemas.DISTANCES`.

    Args:
        distances: by trial and definition `value` and `mean`.
    """
    rows = [
        (trial_id, name, numbers["value"], numbers["mean"])
        for trial_id, definitions in distances.items()
        for name, numbers in definitions.items()
    ]
    frame = pd.DataFrame(rows, columns=DISTANCES.names)
    return frame.astype({"value": "float64", "mean": "float64"})


def build_ranks(
    cells: pd.DataFrame,
    distances: pd.DataFrame,
    lower_better: Mapping[str, bool],
    orientation: str,
) -> pd.DataFrame:
    """Rank the subsets of every combination by everything that can be ranked.

    Args:
        cells: a table of `schemas.CELLS`.
        distances: a table of `schemas.DISTANCES`, of the cells' trials.
        lower_better: by metric, whether lower scores mean better images.
        orientation: the study's, quality or raw; the other one is derived.

    Returns:
        A table of `schemas.RANKS`. A metric whose lower scores are better has no rows in the other
        orientation unless every average's subset has its opposite.
    """
    values = _list_values(cells, distances)
    values = pd.concat([values, _average(values)], ignore_index=True)
    values = _add_orientations(values, lower_better, orientation)
    # One number per group, as pandas would drop groups whose seed is null.
    group = values.groupby([*_KINDS, *COMBINATION, "seed"], sort=False, dropna=False).ngroup()
    values["rank"] = rank_values(values["value"], [group], cells["subset"].nunique())
    shared = values.groupby([group, values["rank"]])["rank"].transform("size")
    values["is_tied"] = shared > 1
    return values[RANKS.names]


def count_definitions(ranks: pd.DataFrame) -> pd.DataFrame:
    """Count how many combinations give each subset each rank, by orientation and definition.

    Args:
        ranks: a table of `schemas.RANKS`; rows over seeds are counted.

    Returns:
        A table of `schemas.DEFINITION_COUNTS`.
    """
    over_seeds = ranks[ranks["seed"].isna()]
    rows = [
        {**dict(zip(_KINDS, names, strict=True)), "scope": scope, **row}
        for names, part in over_seeds.groupby(list(_KINDS), sort=False)
        for scope, own in split_scopes(part)
        for row in count_combinations(own)
    ]
    return pd.DataFrame(rows, columns=DEFINITION_COUNTS.names)


def _list_values(cells: pd.DataFrame, distances: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, seed, measure and definition."""
    masked = mask_unconverged(cells)
    is_ok = cells["status"] == "ok"
    wide = distances.pivot(index="trial_id", columns="definition", values="value")
    wide = wide.reindex(index=cells["trial_id"], columns=list(DEFINITIONS)).set_index(cells.index)
    columns = {("distance", name): wide[name].where(is_ok) for name in DEFINITIONS}
    columns |= {key: masked[name].where(is_ok) for key, name in _ACCURACIES.items()}
    named = cells[[*COMBINATION, "seed", "subset", "weights"]].astype({"seed": "Int64"})
    return pd.concat(
        [
            named.assign(measure=measure, definition=definition, value=column.astype("float64"))
            for (measure, definition), column in columns.items()
        ],
        ignore_index=True,
    )


def _average(values: pd.DataFrame) -> pd.DataFrame:
    """Averages over seeds, null where a seed lacks a value, so that all are over the same seeds."""
    keys = ["measure", "definition", *COMBINATION, "subset", "weights"]
    groups = values.groupby(keys, sort=False)["value"]
    means = groups.mean().where(groups.count() == values["seed"].nunique()).reset_index()
    return means.assign(seed=pd.array([pd.NA] * len(means), dtype="Int64"))


def _add_orientations(
    values: pd.DataFrame, lower_better: Mapping[str, bool], orientation: str
) -> pd.DataFrame:
    other = "raw" if orientation == "quality" else "quality"
    names = list(values["subset"].unique())
    swapped = swap_orientation(names)
    is_swapped = values["metric"].map(lower_better).astype(bool)
    kept = values if len(swapped) == len(names) else values[~is_swapped]
    renamed = kept["subset"].where(~is_swapped.loc[kept.index], kept["subset"].map(swapped))
    derived = kept.assign(subset=renamed, orientation=other)
    return pd.concat([values.assign(orientation=orientation), derived], ignore_index=True)
