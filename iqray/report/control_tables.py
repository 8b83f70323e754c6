"""What the report says of a study's controls: a table, and reasons for distrust.

Reads `schemas.CONTROLS` and `schemas.RANK_COUNTS`. Pure.
"""

from collections.abc import Iterator

import pandas as pd

from iqray.report.caveats import Caveat
from iqray.report.tables import PageTable, has_demo, make_table
from iqray.results.cells import MEASURE_LABELS, list_leaders, tabulate_firsts
from iqray.results.controls import compute_null_limit
from iqray.settings.control import DRAWN, IMAGE_HALVES, UNTRAINED

NO_CONTROLS = (
    "No subset that no metric has chosen was trained, so that nothing tells what any other "
    "categories of the same number would have given. Set controls.random in the study file, 20 or "
    "more, and run the study again: it trains only the control subsets."
)


# What stands in the column of differences for controls that are not drawn.
_DIFFERENCES = {
    IMAGE_HALVES: f"{IMAGE_HALVES}: the best half of each category's images minus the worst",
    UNTRAINED: f"{UNTRAINED}: the subset minus its networks before training",
}


def tabulate_controls(controls: pd.DataFrame) -> PageTable:
    """Where the cells of every subset stand among its controls, by control, measure and dataset.

    Medians are over the cells' architectures and metrics. Only what was drawn gives a place; of
    image halves and untrained networks there is the difference. The band is that of the cell with
    the fewest draws; every cell is counted by its own.
    """
    placed = controls.astype(dict.fromkeys(("difference", "z", "percentile"), "float64"))
    keys = ["control", "measure", "dataset", "subset"]
    limits = compute_null_limit(placed["num_draws"])
    groups = placed.assign(
        above=placed["z"] > limits,
        below=placed["z"] < -limits,
        has_z=placed["z"].notna(),
        limit=limits.where(placed["z"].notna()),
    ).groupby(keys, sort=False)
    frame = groups.agg(
        num_draws=("num_draws", "min"),
        difference=("difference", "median"),
        median_percentile=("percentile", "median"),
        median_z=("z", "median"),
        limit=("limit", "max"),
        above=("above", "sum"),
        below=("below", "sum"),
        cells=("has_z", "sum"),
    ).reset_index()
    frame = frame.replace({"measure": MEASURE_LABELS}).rename(
        columns={
            "difference": "median difference",
            "median_percentile": "median percentile",
            "median_z": "median z",
            "limit": "95 % of controls: |z| below",
            "above": "cells above",
            "below": "cells below",
            "cells": "cells with a z",
        }
    )
    title = "Real subsets among control subsets of the same number of categories"
    kinds = [text for kind, text in _DIFFERENCES.items() if (controls["control"] == kind).any()]
    if kinds:
        title += f"; difference of {'; '.join(kinds)}"
    return make_table("controls", title, frame, has_demo_weights=has_demo(controls))


def list_control_caveats(
    controls: pd.DataFrame, rank_counts: pd.DataFrame, control_cells: pd.DataFrame
) -> list[Caveat]:
    """Say that there was no control, which were lost, or which leaders do not stand out from them.

    Args:
        controls: a table of `schemas.CONTROLS`.
        rank_counts: a table of `schemas.RANK_COUNTS`.
        control_cells: a table of `schemas.CONTROL_CELLS`.
    """
    lost = list(_list_lost(control_cells))
    drawn = controls[controls["control"].isin(DRAWN)]
    if drawn.empty:
        return [Caveat("No controls", NO_CONTROLS), *lost]
    inside = list(_find_inside(drawn, rank_counts))
    if not inside:
        return lost
    return [
        *lost,
        Caveat(
            "Like other categories",
            f"{'; '.join(inside)} do not lie above the band in which 95 % of further control "
            "subsets would, or there are too few of these to tell: the fewer, the wider is the "
            "band. Categories that no metric has chosen may do as well.",
        ),
    ]


def _list_lost(control_cells: pd.DataFrame) -> Iterator[Caveat]:
    lost = control_cells[control_cells["status"] != "ok"]
    if not lost.empty:
        counts = lost["control"].value_counts(sort=False)
        kinds = ", ".join(f"{count} of {kind}" for kind, count in counts.items())
        yield Caveat(
            "Lost controls",
            f"{len(lost)} of {len(control_cells)} cells of controls did not end well ({kinds}), so "
            "that subsets stand among fewer. Which is lost may depend on its categories. The next "
            "run tries those again that failed.",
        )


def _find_inside(controls: pd.DataFrame, rank_counts: pd.DataFrame) -> Iterator[str]:
    """Leaders of which at least half of the cells are not told apart from a kind of control."""
    for measure, firsts in tabulate_firsts(rank_counts).T.items():
        for leader in list_leaders(firsts.drop(["shared", "combinations"])):
            is_own = (controls["measure"] == measure) & (controls["subset"] == leader)
            for control, own in controls[is_own].groupby("control", sort=False):
                # Only above the controls is a leader ahead of them.
                is_above = own["z"].astype("float64") > compute_null_limit(own["num_draws"])
                num_inside = int((~is_above).sum())
                if 2 * num_inside >= len(own):
                    label = MEASURE_LABELS[str(measure)]
                    yield f"on {label} {num_inside} of {len(own)} cells of {leader} ({control})"
