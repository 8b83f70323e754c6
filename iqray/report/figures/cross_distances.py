"""Figure of the 4 x 4 matrices: networks of each subset, shown the images of each subset.

Reads averages of `iqray.results.cross_distances`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iqray.report.figures.style import draw_matrix


def plot_cross_distances(averages: pd.DataFrame, subsets: Sequence[str]) -> Figure:
    """Draw a heat map for each dataset and architecture.

    Args:
        averages: from `average_cross_distances`, of one layer.
        subsets: of rows and columns.

    Returns:
        One row of axes per dataset, one column per architecture, each with colours from its own
        least to its own largest number, since embedding scales differ between architectures. Rows
        are the subsets of the networks, columns those of the images.
    """
    datasets = list(averages["dataset"].unique())
    architectures = list(averages["architecture"].unique())
    figure = Figure(figsize=(9.5, 1.2 + 2.2 * len(datasets)), layout="constrained")
    grid = figure.subplots(
        len(datasets), len(architectures), squeeze=False, sharex=True, sharey=True
    )
    for dataset, line in zip(datasets, grid, strict=True):
        for architecture, axes in zip(architectures, line, strict=True):
            is_here = (averages["dataset"] == dataset) & (averages["architecture"] == architecture)
            _draw(axes, averages[is_here], subsets)
            axes.set_title(f"{dataset}: {architecture}", fontsize=9)
        line[0].set_ylabel("trained on", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("test images of", fontsize=8)
    return figure


def _draw(axes: Axes, averages: pd.DataFrame, subsets: Sequence[str]) -> None:
    rows = averages.set_index("trained_on")[list(subsets)].reindex(list(subsets))
    matrix = rows.to_numpy(dtype=float)
    known = matrix[np.isfinite(matrix)]
    limits = (known.min(), known.max()) if known.size else (0.0, 1.0)
    draw_matrix(axes, subsets, matrix, limits, ".3g")
