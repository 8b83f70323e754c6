"""Figure of the 4 x 4 matrices: networks of each subset, shown the images of each subset.

Reads averages of `iqray.results.cross_distances`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iqray.report.figures.style import draw_matrix

# Inches of a figure per row of a matrix, and around the matrix.
_ROW_INCHES, _FRAME_INCHES = 0.4, 0.6


def plot_cross_distances(averages: pd.DataFrame, subsets: Sequence[str]) -> Figure:
    """Draw a heat map for each dataset and architecture.

    Args:
        averages: from `average_cross_distances`, of one layer.
        subsets: of rows and columns.

    Returns:
        One row of axes per dataset, one column per architecture. Rows are the subsets of the
        networks and, below a line, networks that no subset has trained; columns those of the
        images. Since embedding scales differ, colours go from the least to the largest number of
        a panel's subsets, and of each row below the line.
    """
    datasets = list(averages["dataset"].unique())
    architectures = list(averages["architecture"].unique())
    trained_on = list(averages["trained_on"].unique())
    others = [name for name in trained_on if name not in subsets]
    trained = list(subsets) if len(others) < len(trained_on) else []
    row_height = _FRAME_INCHES + _ROW_INCHES * len([*trained, *others])
    figure = Figure(figsize=(9.5, 1.2 + row_height * len(datasets)), layout="constrained")
    grid = figure.subplots(
        len(datasets), len(architectures), squeeze=False, sharex=True, sharey=True
    )
    for dataset, line in zip(datasets, grid, strict=True):
        for architecture, axes in zip(architectures, line, strict=True):
            is_here = (averages["dataset"] == dataset) & (averages["architecture"] == architecture)
            _draw(axes, averages[is_here], subsets, trained, others)
            axes.set_title(f"{dataset}: {architecture}", fontsize=9)
        line[0].set_ylabel("trained on", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("test images of", fontsize=8)
    return figure


def _draw(
    axes: Axes,
    averages: pd.DataFrame,
    subsets: Sequence[str],
    trained: Sequence[str],
    others: Sequence[str],
) -> None:
    names = [*trained, *others]
    rows = averages.set_index("trained_on")[list(subsets)].reindex(names)
    # Networks of other scales leave the subsets the colours that they have without them.
    for shown in [*([trained] if trained else []), *([name] for name in others)]:
        is_shown = rows.index.isin(shown)[:, np.newaxis]
        matrix = np.where(is_shown, rows.to_numpy(dtype=float), np.nan)
        known = matrix[np.isfinite(matrix)]
        limits = (known.min(), known.max()) if known.size else (0.0, 1.0)
        draw_matrix(axes, subsets, matrix, limits, ".3g", names)
    if trained and others:
        axes.axhline(len(trained) - 0.5, color="black", linewidth=1)
