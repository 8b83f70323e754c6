"""The report's table of which leader stays one by other definitions of a measure.

Reads `schemas.RANK_COUNTS` and `schemas.DEFINITION_COUNTS`. Pure.
"""

from collections.abc import Iterator

import pandas as pd

from iqray.report.tables import ABSENT, PageTable, has_demo, make_table
from iqray.results.cells import MEASURE_LABELS, list_leaders, tabulate_firsts

_COLUMNS = ("measure", "leader", "orientation", "agree", "definitions", "led by others")


def tabulate_survival(rank_counts: pd.DataFrame, definition_counts: pd.DataFrame) -> PageTable:
    """How many definitions of a measure give the leader the most first places, by orientation.

    Args:
        rank_counts: a table of `schemas.RANK_COUNTS`, which tells the leaders.
        definition_counts: a table of `schemas.DEFINITION_COUNTS`. Definitions without a complete
            combination do not count. A leader that shares the most first places does not agree.
    """
    firsts = definition_counts[
        (definition_counts["scope"] == "all")
        & (definition_counts["rank"] == 1)
        & (definition_counts["num_combinations"] > 0)
    ]
    rows = [
        (MEASURE_LABELS[str(measure)], leader, *counted)
        for measure, places in tabulate_firsts(rank_counts).T.items()
        for leader in list_leaders(places.drop(["shared", "combinations"]))
        for counted in _count_agreeing(firsts[firsts["measure"] == measure], leader)
    ]
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    title = "Does the leader stay one by other definitions?"
    return make_table("survival", title, frame, has_demo_weights=has_demo(definition_counts))


def _count_agreeing(firsts: pd.DataFrame, leader: str) -> Iterator[tuple[str, int, int, str]]:
    """By orientation: definitions led by the leader alone, all, and who leads by the others."""
    for orientation, own in firsts.groupby("orientation", sort=False):
        leaders = {
            str(definition): list_leaders(part.set_index("subset")["count"])
            for definition, part in own.groupby("definition", sort=False)
        }
        others = {name: each for name, each in leaders.items() if each != [leader]}
        described = [f"{name} ({' and '.join(each) or 'none'})" for name, each in others.items()]
        yield (
            str(orientation),
            len(leaders) - len(others),
            len(leaders),
            ", ".join(described) or ABSENT,
        )
