"""From drawn measures to intervals of every cell's value and rank, and of mean ranks.

Reads the cells and the draws of `iqray.statistics.image_bootstrap`; returns `schemas.INTERVALS`.
Pure.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from iqray.results.ranks import COMBINATION, MEASURES, average_over_seeds, rank_cells
from iqray.schemas import INTERVALS
from iqray.statistics.bootstrap import INTERVAL, FloatArray, bound_ranks, rank_draws

Draws = Mapping[tuple[str, str, str, str], Mapping[str, FloatArray]]
Row = dict[str, Any]


def build_intervals(cells: pd.DataFrame, draws: Draws) -> pd.DataFrame:
    """Intervals of values and ranks, those of ranks recentred (`bootstrap.bound_ranks`).

    Args:
        cells: a table of `schemas.CELLS`.
        draws: by (dataset, architecture, metric, subset), of complete cells, and measure:
            `(num_draws,)`. The same position in two arrays is the same draw.

    Returns:
        A table of `schemas.INTERVALS`: a row per cell and measure, then mean ranks of the subsets
        over all combinations and over those of each dataset.
    """
    averages = rank_cells(average_over_seeds(cells))
    rows: list[Row] = []
    for measure in MEASURES:
        ranks: dict[tuple[str, str, str], FloatArray] = {}
        for key, part in averages.groupby(list(COMBINATION), sort=False):
            dataset, architecture, metric = map(str, key)
            names = (dataset, architecture, metric)
            own = part.set_index("subset")
            drawn = {
                subset: draws[(*names, subset)][measure]
                for subset in own.index
                if (*names, subset) in draws
            }
            if own[f"rank_{measure}"].notna().all() and len(drawn) == len(own):
                ranks[names] = rank_draws(np.stack(list(drawn.values()), axis=-1))
            rows += _describe_cells(names, own, measure, drawn, ranks.get(names))
        rows += _average_ranks(averages, measure, ranks)
    return pd.DataFrame(rows, columns=INTERVALS.names)


def _describe_cells(
    names: tuple[str, str, str],
    own: pd.DataFrame,
    measure: str,
    drawn: Mapping[str, FloatArray],
    ranks: FloatArray | None,
) -> list[Row]:
    rows = []
    limits = None if ranks is None else _bound(ranks, own[f"rank_{measure}"])
    for position, (subset, cell) in enumerate(own.iterrows()):
        row: Row = {
            "scope": "cell",
            "measure": measure,
            **dict(zip(COMBINATION, names, strict=True)),
            "subset": subset,
            "value": cell[measure],
            "rank": cell[f"rank_{measure}"],
            "n": 1,
            "weights": cell["weights"],
        }
        if subset in drawn:
            row["low"], row["high"] = np.nanpercentile(drawn[str(subset)], INTERVAL)
        if limits is not None and ranks is not None:
            row |= limits[position] | {"first_share": float((ranks[:, position] == 1).mean())}
        rows.append(row)
    return rows


def _average_ranks(
    averages: pd.DataFrame, measure: str, ranks: Mapping[tuple[str, str, str], FloatArray]
) -> list[Row]:
    subsets = list(averages["subset"].unique())
    datasets = list(averages["dataset"].unique())
    rows: list[Row] = []
    for scope in ["all", *(datasets if len(datasets) > 1 else [])]:
        kept = [names for names in ranks if scope in ("all", names[0])]
        if not kept:
            continue
        means = np.mean([ranks[names] for names in kept], axis=0)
        part = averages.set_index(list(COMBINATION)).loc[kept]
        measured = part.groupby("subset")[f"rank_{measure}"].mean().loc[subsets]
        limits = _bound(means, measured)
        for position, subset in enumerate(subsets):
            rows.append(
                {
                    "scope": scope if scope == "all" else f"dataset:{scope}",
                    "measure": measure,
                    "subset": subset,
                    "rank": measured[subset],
                    "n": len(kept),
                    **limits[position],
                    "first_share": None,
                    "weights": ", ".join(sorted(part["weights"].unique())),
                }
            )
    return rows


def _bound(draws: FloatArray, ranks: pd.Series) -> list[Row]:
    """The ends of every subset's interval; columns of draws are in the order of the ranks."""
    ends = bound_ranks(draws, ranks.to_numpy(dtype=np.float64))
    return [{"rank_low": low, "rank_high": high} for low, high in zip(*ends, strict=True)]
