"""The report's table of the 4 x 4 matrices.

Reads `schemas.CROSS_DISTANCES`. Pure.
"""

from collections.abc import Sequence

import pandas as pd

from iqray.report.tables import PageTable, has_demo, make_table
from iqray.results.cross_distances import average_cross_distances, list_others


def tabulate_cross_distances(cross_distances: pd.DataFrame, subsets: Sequence[str]) -> PageTable:
    """Mean distance of each subset's test images in networks of each subset, and in others.

    Args:
        cross_distances: rows of `schemas.CROSS_DISTANCES`, of the page's cells.
        subsets: of the study, in order.
    """
    frame = average_cross_distances(cross_distances, subsets)
    frame = frame.rename(columns={"trained_on": "trained on"})
    title = "Mean distance by subset of the network and, in columns, of the test images"
    if list_others(cross_distances):
        title += "; networks that no subset has trained come last"
    demo = has_demo(cross_distances)
    return make_table("cross_distances", title, frame, has_demo_weights=demo, is_folded=True)
