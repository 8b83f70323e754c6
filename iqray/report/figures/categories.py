"""Figures of the choice of categories: average against range, and how subsets overlap.

Reads `schemas.CATEGORY_STATS`, `schemas.SUBSETS` and `schemas.DIAGNOSTICS`.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from iqray.report.figures.style import (
    add_legend,
    clear_frame,
    colour_of,
    draw_matrix,
    make_panels,
    mark_of,
)

_RASTERISE_ABOVE = 500  # points; keeps the SVG of a large dataset small


def plot_category_ranges(
    category_stats: pd.DataFrame, subsets: pd.DataFrame, dataset: str
) -> Figure:
    """Plot each category's average against its range, one panel per metric of a dataset.

    Args:
        category_stats: a table of `schemas.CATEGORY_STATS`, raw scores.
        subsets: a table of `schemas.SUBSETS`; its `statistic` names the columns that are drawn.
        dataset: which dataset.
    """
    stats = category_stats[category_stats["dataset"] == dataset]
    chosen = subsets[subsets["dataset"] == dataset]
    metrics = list(stats["metric"].unique())
    figure, panels = make_panels(metrics, 3, 9, 2.7)
    for metric, axes in zip(metrics, panels, strict=True):
        own_stats = stats[stats["metric"] == metric].set_index("category")
        _scatter_categories(axes, own_stats, chosen[chosen["metric"] == metric])
    add_legend(figure, list(chosen["subset"].unique()), marks=True)
    return figure


def _scatter_categories(axes: Axes, stats: pd.DataFrame, chosen: pd.DataFrame) -> None:
    average = _find_statistic(chosen, "avg_", default="mean")
    spread = _find_statistic(chosen, "range_", default="max_min")
    axes.scatter(
        stats[average],
        stats[spread],
        s=10,
        color="#B8B8B8",
        linewidths=0,
        rasterized=len(stats) > _RASTERISE_ABOVE,
    )
    for subset in chosen["subset"].unique():
        own = stats.loc[chosen.loc[chosen["subset"] == subset, "category"]]
        mark = mark_of(subset)
        colour = colour_of(subset)
        axes.scatter(
            own[average],
            own[spread],
            s=mark.area,
            marker=mark.marker,
            edgecolors=colour,
            facecolors="none" if mark.is_hollow else colour,
            linewidths=1.5 if mark.is_hollow else 0,
        )
    axes.set_xlabel(f"{average} of raw scores", fontsize=8)
    axes.set_ylabel(f"{spread} of raw scores", fontsize=8)
    clear_frame(axes)


def _find_statistic(chosen: pd.DataFrame, prefix: str, *, default: str) -> str:
    statistics = chosen.loc[chosen["subset"].str.startswith(prefix), "statistic"]
    return str(statistics.iloc[0]) if len(statistics) else default


def plot_overlaps(diagnostics: pd.DataFrame, dataset: str) -> Figure:
    """Draw heat maps of Jaccard overlaps: between subsets, and of each subset between metrics.

    Args:
        diagnostics: a table of `schemas.DIAGNOSTICS` with jaccard_subsets and, where there are
            several metrics, jaccard_metrics.
        dataset: which dataset.

    Returns:
        A panel of the four subsets, averaged over the metrics, and one panel per subset with its
        overlap between each two metrics. 1 is the same categories, 0 none in common.
    """
    own = diagnostics[diagnostics["dataset"] == dataset]
    panels = {"subsets (mean over metrics)": own[own["measure"] == "jaccard_subsets"]}
    for subset, rows in own[own["measure"] == "jaccard_metrics"].groupby("quantity", sort=False):
        panels[f"{subset}, by metric"] = rows
    figure, grid = make_panels(list(panels), 3, 9, 3.0)
    for axes, rows in zip(grid, panels.values(), strict=True):
        names, matrix = build_overlap_matrix(rows)
        image = draw_matrix(axes, names, matrix, (0, 1), ".2f")
    figure.colorbar(image, ax=grid, shrink=0.6, label="Jaccard overlap")
    return figure


def build_overlap_matrix(rows: pd.DataFrame) -> tuple[list[str], NDArray[np.float64]]:
    """Symmetric matrix of the mean overlap of each pair; ones on its diagonal.

    Args:
        rows: of `schemas.DIAGNOSTICS`: first, second, value.

    Returns:
        C names in the order of the rows, and the matrix `(C, C)`; NaN where a pair has no value.
    """
    names = list(dict.fromkeys([*rows["first"], *rows["second"]]))
    matrix = np.full((len(names), len(names)), np.nan)
    np.fill_diagonal(matrix, 1.0)
    for (first, second), own in rows.groupby(["first", "second"]):
        i, j = names.index(first), names.index(second)
        matrix[i, j] = matrix[j, i] = own["value"].astype("float64").mean()
    return names, matrix
