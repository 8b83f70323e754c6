"""The report's tables of 95 % intervals: of mean ranks, and of every cell.

Reads `schemas.INTERVALS`; every function returns one `PageTable`. Pure.
"""

import pandas as pd

from iqray.report.tables import PageTable, has_demo, make_table
from iqray.results.cells import MEASURE_LABELS
from iqray.results.ranks import COMBINATION

_CELL = "cell"


def name_draws(num_seeds: int, *kinds: str) -> str:
    """Name in words what intervals draw; seeds only of several, since one leaves no choice."""
    *others, last = [*kinds, "seeds"] if num_seeds > 1 else kinds
    return f"{', '.join(others)} and {last}"


def tabulate_rank_intervals(intervals: pd.DataFrame, num_seeds: int) -> PageTable:
    """Mean rank of every subset over combinations, of the study and of each dataset."""
    chosen = intervals[intervals["scope"] != _CELL]
    ends = zip(chosen["rank_low"], chosen["rank_high"], strict=True)
    frame = pd.DataFrame(
        {
            "measure": chosen["measure"].map(MEASURE_LABELS),
            "over": chosen["scope"].str.removeprefix("dataset:"),
            "subset": chosen["subset"],
            "mean rank": [f"{rank:.2f}" for rank in chosen["rank"]],
            "95 % interval": [f"{low:.2f} to {high:.2f}" for low, high in ends],
            "combinations": chosen["n"],
        }
    )
    drawn = name_draws(num_seeds, "categories", "images")
    title = f"Mean ranks with 95 % intervals over drawn {drawn}"
    return make_table("rank_intervals", title, frame, has_demo_weights=has_demo(chosen))


def tabulate_cell_intervals(intervals: pd.DataFrame, num_seeds: int) -> PageTable:
    """Every cell's value, averaged over seeds, and rank with their 95 % intervals."""
    chosen = intervals[intervals["scope"] == _CELL]
    numbers = ["value", "low", "high", "rank", "rank_low", "rank_high", "first_share"]
    frame = chosen[["measure", *COMBINATION, "subset", *numbers]]
    frame = frame.astype(dict.fromkeys(numbers, "float64")).replace({"measure": MEASURE_LABELS})
    drawn = name_draws(num_seeds, "categories", "images")
    title = f"Cells with 95 % intervals over drawn {drawn}"
    demo = has_demo(chosen)
    return make_table("cell_intervals", title, frame, has_demo_weights=demo, is_folded=True)
