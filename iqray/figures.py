"""Figures of the report, each a function from finished tables to a matplotlib Figure.

Figures are built with matplotlib's objects and the Agg canvas; there is no global state. Every
subset keeps one colour in all figures: the Okabe-Ito palette, which stays apart under the common
forms of colour blindness. `render_png` and `render_svg` give the same bytes for the same figure.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from iqray.ranks import MEASURES, mask_unconverged
from iqray.results import MEASURE_LABELS

SUBSET_COLOURS = {
    "avg_high": "#0072B2",
    "avg_low": "#E69F00",
    "range_high": "#009E73",
    "range_low": "#CC79A7",
}
_OTHER_COLOUR = "#6B6B6B"


@dataclass(frozen=True)
class _Mark:
    """How a category of a subset is drawn; `area` in square points."""

    marker: str
    area: float
    is_hollow: bool = False


# A category may belong to an average subset and to a range subset: filled and hollow marks of two
# sizes stay visible on top of each other.
_SUBSET_MARKS = {
    "avg_high": _Mark("^", 26),
    "avg_low": _Mark("v", 26),
    "range_high": _Mark("o", 80, is_hollow=True),
    "range_low": _Mark("s", 70, is_hollow=True),
}
_OTHER_MARK = _Mark("D", 20)

_RASTERISE_ABOVE = 500  # points; keeps the SVG of a large dataset small
_PNG_DPI = 160

# Without dates and version strings, and with fixed ids, equal figures are equal files.
_PNG_METADATA = {"Software": None}
_SVG_METADATA = {"Date": None, "Creator": None}


@dataclass(frozen=True)
class MdsExample:
    """The category centroids of one trial, placed in the plane by `rdm.embed_mds`.

    Attributes:
        title: the cell the trial belongs to, such as `demo_a, alexnet, niqe, avg_high`.
        categories: C names.
        coordinates: `(C, 2)`, in units of embedding distance.
        stress: Kruskal's stress-1.
        weights: where the weights of the cell's metric come from.
    """

    title: str
    categories: tuple[str, ...]
    coordinates: NDArray[np.float64]
    stress: float
    weights: str


def colour_of(subset: str) -> str:
    """Colour of a subset in all figures; grey for one outside the paper's four."""
    return SUBSET_COLOURS.get(subset, _OTHER_COLOUR)


def plot_rank_distributions(rank_counts: pd.DataFrame) -> Figure:
    """Stack, for each rank, how many combinations gave it to each subset.

    Args:
        rank_counts: a table of `schemas.RANK_COUNTS` with `dataset:` scopes.

    Returns:
        One row of axes per dataset, one column per measure; shared ranks (1.5, ...) stand between
        the whole ones.
    """
    scopes = [scope for scope in rank_counts["scope"].unique() if scope.startswith("dataset:")]
    figure = Figure(figsize=(9, 0.9 + 2.3 * len(scopes)), layout="constrained")
    grid = figure.subplots(len(scopes), len(MEASURES), squeeze=False, sharey=True)
    for scope, row in zip(scopes, grid, strict=True):
        for measure, axes in zip(MEASURES, row, strict=True):
            is_here = (rank_counts["scope"] == scope) & (rank_counts["measure"] == measure)
            _stack_ranks(axes, rank_counts[is_here])
            axes.set_title(f"{scope.removeprefix('dataset:')}: {MEASURE_LABELS[measure]}")
        row[0].set_ylabel("combinations")
    for axes in grid[-1]:
        axes.set_xlabel("rank (1 = highest)")
    _add_legend(figure, list(rank_counts["subset"].unique()))
    return figure


def _stack_ranks(axes: Axes, counts: pd.DataFrame) -> None:
    table = counts.pivot(index="rank", columns="subset", values="count")
    ranks = table.index.to_numpy(dtype=float)
    width = 0.8 * np.diff(ranks).min(initial=1.0)
    bottom = np.zeros(len(ranks))
    for subset in counts["subset"].unique():
        heights = table[subset].to_numpy(dtype=float)
        axes.bar(
            ranks, heights, width, bottom=bottom, color=colour_of(subset), edgecolor="white", lw=0.6
        )
        bottom += heights
    axes.set_xticks(np.arange(1, math.ceil(ranks.max()) + 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _clear_frame(axes)


def plot_mean_distances(cells: pd.DataFrame) -> Figure:
    """Show the mean distance between test images by subset: a dot per cell, a bar for the mean.

    Args:
        cells: a table of `schemas.CELLS`; cells without a distance, or that did not
            converge, are left out.

    Returns:
        One panel per architecture with its own axis, since embedding scales differ between them.
    """
    cells = mask_unconverged(cells)
    architectures = list(cells["architecture"].unique())
    subsets = list(cells["subset"].unique())
    num_columns = min(2, len(architectures))
    num_rows = math.ceil(len(architectures) / num_columns)
    figure = Figure(figsize=(8, 0.4 + 2.6 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for architecture, axes in zip(architectures, panels, strict=False):
        own = cells[cells["architecture"] == architecture]
        _scatter_by_subset(axes, own, subsets)
        axes.set_title(architecture)
        axes.set_ylabel("mean distance")
    for axes in panels[len(architectures) :]:
        axes.set_visible(False)
    return figure


def _scatter_by_subset(axes: Axes, cells: pd.DataFrame, subsets: list[str]) -> None:
    for position, subset in enumerate(subsets):
        own = cells.loc[cells["subset"] == subset, "mean_distance"].dropna()
        # Dots side by side in table order, so that the picture has no random part.
        offsets = np.linspace(-0.28, 0.28, len(own)) if len(own) > 1 else np.zeros(len(own))
        colour = colour_of(subset)
        axes.scatter(position + offsets, own, s=16, color=colour, alpha=0.65, linewidths=0)
        if len(own):
            axes.hlines(own.mean(), position - 0.38, position + 0.38, color=colour, lw=3)
    axes.set_xticks(range(len(subsets)), subsets)
    axes.set_ylim(bottom=0)
    _clear_frame(axes)


def plot_centroid_map(example: MdsExample) -> Figure:
    """Draw the MDS map of one trial's category centroids, with the stress in the title."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(example.coordinates[:, 0], example.coordinates[:, 1], s=28, color=_OTHER_COLOUR)
    for name, point in zip(example.categories, example.coordinates, strict=True):
        axes.annotate(name, point, xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set_title(f"{example.title}\nstress-1 = {example.stress:.3f}", fontsize=10)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#D0D0D0")
    return figure


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
    num_columns = min(3, len(metrics))
    num_rows = math.ceil(len(metrics) / num_columns)
    figure = Figure(figsize=(9, 0.6 + 2.7 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for metric, axes in zip(metrics, panels, strict=False):
        own_stats = stats[stats["metric"] == metric].set_index("category")
        _scatter_categories(axes, own_stats, chosen[chosen["metric"] == metric])
        axes.set_title(metric)
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    _add_legend(figure, list(chosen["subset"].unique()), marks=True)
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
        mark = _SUBSET_MARKS.get(subset, _OTHER_MARK)
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
    _clear_frame(axes)


def _find_statistic(chosen: pd.DataFrame, prefix: str, *, default: str) -> str:
    statistics = chosen.loc[chosen["subset"].str.startswith(prefix), "statistic"]
    return str(statistics.iloc[0]) if len(statistics) else default


def _add_legend(figure: Figure, subsets: list[str], *, marks: bool = False) -> None:
    figure.legend(
        handles=list(_build_handles(subsets, marks)),
        loc="outside upper center",
        ncols=4,
        frameon=False,
    )


def _build_handles(subsets: list[str], marks: bool) -> Iterator[Line2D]:
    for subset in subsets:
        mark = _SUBSET_MARKS.get(subset, _OTHER_MARK) if marks else _Mark("s", 0)
        colour = colour_of(subset)
        face = "none" if mark.is_hollow else colour
        yield Line2D(
            [], [], ls="none", marker=mark.marker, color=colour, mfc=face, mew=1.5, label=subset
        )


def _clear_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def render_svg(figure: Figure) -> bytes:
    """Render a figure as SVG, the same bytes for the same figure; letters are drawn as paths."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "iqray"}):
        figure.savefig(buffer, format="svg", metadata=_SVG_METADATA)
    return buffer.getvalue()


def render_png(figure: Figure) -> bytes:
    """Render a figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PNG_DPI, metadata=_PNG_METADATA)
    return buffer.getvalue()
