"""Figure of where real subsets stand among control subsets.

Reads `schemas.CONTROLS`.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iqray.report.figures.style import add_legend, clear_frame, colour_of
from iqray.results.cells import MEASURE_LABELS
from iqray.results.controls import compute_null_limit
from iqray.results.ranks import MEASURES


def plot_controls(controls: pd.DataFrame) -> Figure:
    """Show every real subset's z among the draws of one kind of control.

    Args:
        controls: a table of `schemas.CONTROLS`, of one kind. Rows without a z are left out.

    Returns:
        One row of axes per dataset, one column per measure; a dot per cell, metrics side by side,
        above the cell's architecture. The grey band behind a dot is that of its own draws,
        `controls.compute_null_limit`.
    """
    datasets = list(controls["dataset"].unique())
    figure = Figure(figsize=(9.5, 0.7 + 2.3 * len(datasets)), layout="constrained")
    grid = figure.subplots(len(datasets), len(MEASURES), squeeze=False, sharey=True)
    for dataset, line in zip(datasets, grid, strict=True):
        for measure, axes in zip(MEASURES, line, strict=True):
            is_here = (controls["dataset"] == dataset) & (controls["measure"] == measure)
            _draw_places(axes, controls[is_here])
            axes.set_title(f"{dataset}: {MEASURE_LABELS[measure]}", fontsize=10)
        line[0].set_ylabel("z among controls", fontsize=8)
    add_legend(figure, list(controls["subset"].unique()))
    return figure


def _draw_places(axes: Axes, controls: pd.DataFrame) -> None:
    architectures = list(controls["architecture"].unique())
    subsets = list(controls["subset"].unique())
    axes.axhline(0, color="#8A8A8A", lw=0.8)
    width = 0.8 / len(subsets)
    for (architecture, subset), own in controls.groupby(["architecture", "subset"], sort=False):
        start = architectures.index(architecture) - 0.4 + width * subsets.index(subset)
        # Side by side in table order, so that the picture has no random part.
        places = start + width * (np.arange(len(own)) + 0.5) / len(own)
        limits = compute_null_limit(own["num_draws"]).where(own["z"].notna())
        axes.bar(places, 2 * limits, width / len(own), -limits, color="#E4E4E4", lw=0, zorder=0)
        axes.scatter(places, own["z"].astype("float64"), s=11, color=colour_of(str(subset)), lw=0)
    axes.set_xticks(range(len(architectures)), architectures)
    clear_frame(axes)
    axes.tick_params(axis="x", labelsize=7)
