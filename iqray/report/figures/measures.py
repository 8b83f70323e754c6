"""Figures of what trials measured: ranks, distances, accuracies, and how training went.

Reads `schemas.RANK_COUNTS`, `schemas.CELLS`, `schemas.INTERVALS` and epochs of training logs.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from iqray.report.figures.style import add_legend, clear_frame, colour_of, make_panels
from iqray.results.cells import MEASURE_LABELS
from iqray.results.ranks import MEASURES, mask_unconverged

_RASTERISE_ABOVE = 100  # lines of one panel; keeps the SVG of a large grid small
_ACCURACIES = ("top1", "top5")


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
    add_legend(figure, list(rank_counts["subset"].unique()))
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
    clear_frame(axes)


def plot_mean_distances(cells: pd.DataFrame, intervals: pd.DataFrame) -> Figure:
    """Show the mean distance between test images by subset: a bar of the mean, a dot per cell.

    Args:
        cells: a table of `schemas.CELLS`; cells without a distance, or that did not
            converge, are left out.
        intervals: a table of `schemas.INTERVALS`: a line per metric, over its seeds.

    Returns:
        One panel per dataset and architecture with its own axis, since embedding scales differ
        between architectures.
    """
    cells = mask_unconverged(cells)
    subsets = list(cells["subset"].unique())
    panels = list(cells.groupby(["dataset", "architecture"], sort=False))
    names = [f"{dataset}: {architecture}" for (dataset, architecture), _ in panels]
    num_columns = min(4, cells["architecture"].nunique())
    figure, grid = make_panels(names, num_columns, 9.5, 2.2)
    limits = _scale_to_pairs(intervals, cells)
    for axes, (names_of, own) in zip(grid, panels, strict=True):
        here = dict(zip(("dataset", "architecture"), map(str, names_of), strict=True))
        _draw_bars(axes, own, subsets, _select(limits, here))
        axes.set_title(axes.get_title(), fontsize=9)
    for axes in grid[::num_columns]:
        axes.set_ylabel("mean distance", fontsize=8)
    add_legend(figure, subsets)
    return figure


def _scale_to_pairs(intervals: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Intervals of the cells' mean distance: that of the sum over pairs by the number of pairs."""
    num_pairs = (cells["distance"] / cells["mean_distance"]).rename("num_pairs")
    keys = ["dataset", "architecture", "metric", "subset"]
    pairs = pd.concat([cells[keys], num_pairs], axis="columns").groupby(keys).mean().reset_index()
    own = intervals[(intervals["scope"] == "cell") & (intervals["measure"] == "distance")]
    scaled = own[[*keys, "low", "high"]].merge(pairs, on=keys)
    limits = scaled[["low", "high"]].astype("float64").div(scaled["num_pairs"], axis="index")
    return pd.concat([scaled[keys], limits], axis="columns").dropna()


def _draw_bars(
    axes: Axes, cells: pd.DataFrame, subsets: Sequence[str], limits: pd.DataFrame
) -> None:
    for position, subset in enumerate(subsets):
        own = cells[cells["subset"] == subset].dropna(subset="mean_distance")
        if own.empty:
            continue
        colour = colour_of(subset)
        values = own["mean_distance"]
        axes.bar(position, values.mean(), 0.8, color=colour, alpha=0.45)
        # Dots side by side in table order, so that the picture has no random part.
        offsets = np.linspace(-0.28, 0.28, len(own)) if len(own) > 1 else np.zeros(1)
        axes.scatter(position + offsets, values, s=9, color=colour, linewidths=0)
        places = pd.Series(position + offsets, index=own["metric"]).groupby(level=0).mean()
        drawn = limits[limits["subset"] == subset]
        axes.vlines(
            places.reindex(drawn["metric"]), drawn["low"], drawn["high"], color=colour, lw=1.0
        )
    axes.set_xticks([])
    axes.set_ylim(bottom=0)
    clear_frame(axes)


def plot_accuracies(intervals: pd.DataFrame, cells: pd.DataFrame) -> Figure:
    """Show the accuracy of every cell with its 95 % interval, and each subset's mean.

    Args:
        intervals: a table of `schemas.INTERVALS`. A cell without an interval is a dot alone.
        cells: a table of `schemas.CELLS`, for the chance levels.

    Returns:
        Two rows of axes per dataset, for top-1 and top-5, one column per architecture. Within a
        subset the metrics stand side by side in table order; a thin line is their mean, a dashed
        one chance.
    """
    own = intervals[intervals["scope"] == "cell"]
    datasets, architectures = list(own["dataset"].unique()), list(own["architecture"].unique())
    figure = Figure(figsize=(9.5, 0.7 + 3.6 * len(datasets)), layout="constrained")
    grid = figure.subplots(
        len(datasets) * len(_ACCURACIES), len(architectures), squeeze=False, sharey="row"
    )
    rows = [(dataset, measure) for dataset in datasets for measure in _ACCURACIES]
    for (dataset, measure), line in zip(rows, grid, strict=True):
        for architecture, axes in zip(architectures, line, strict=True):
            here = {"dataset": dataset, "architecture": architecture}
            _draw_intervals(axes, _select(own, {**here, "measure": measure}))
            chance = _select(cells, here)[f"chance_{measure}"].astype("float64").mean()
            axes.axhline(chance, color="#8A8A8A", lw=0.8, ls="--")
            axes.set_title(f"{dataset}: {architecture}", fontsize=9)
        line[0].set_ylim(bottom=0)  # shared; it ends autoscaling, so after the row's last panel
        line[0].set_ylabel(MEASURE_LABELS[measure], fontsize=8)
    add_legend(figure, list(own["subset"].unique()))
    return figure


def _select(table: pd.DataFrame, values: Mapping[str, str]) -> pd.DataFrame:
    return table[(table[list(values)] == pd.Series(values)).all(axis="columns")]


def _draw_intervals(axes: Axes, intervals: pd.DataFrame) -> None:
    for position, (subset, own) in enumerate(intervals.groupby("subset", sort=False)):
        numbers = own[["value", "low", "high"]].astype("float64")
        places = position + np.linspace(-0.32, 0.32, len(own)) if len(own) > 1 else [position]
        colour = colour_of(str(subset))
        axes.vlines(places, numbers["low"], numbers["high"], color=colour, lw=1.2)
        axes.scatter(places, numbers["value"], s=11, color=colour, linewidths=0)
        mean = numbers["value"].mean()
        axes.hlines(mean, position - 0.4, position + 0.4, color=colour, lw=0.8)
    axes.set_xticks([])
    clear_frame(axes)


def plot_learning_curves(epochs: pd.DataFrame, cells: pd.DataFrame) -> Figure:
    """Draw the training loss of every trial by epoch, and each subset's mean.

    Args:
        epochs: columns trial_id, epoch, loss; one row per epoch of a trial's last attempt.
        cells: a table of `schemas.CELLS`. A trial that several subsets share is drawn in each.

    Returns:
        One row of axes per dataset, one column per architecture.
    """
    keys = ["dataset", "architecture", "subset", "trial_id"]
    rows = cells[keys].drop_duplicates().merge(epochs, on="trial_id")
    datasets, architectures = rows["dataset"].unique(), rows["architecture"].unique()
    figure = Figure(figsize=(9.5, 0.7 + 2.2 * len(datasets)), layout="constrained")
    grid = figure.subplots(len(datasets), len(architectures), squeeze=False, sharex="col")
    for dataset, line in zip(datasets, grid, strict=True):
        for architecture, axes in zip(architectures, line, strict=True):
            is_here = (rows["dataset"] == dataset) & (rows["architecture"] == architecture)
            _draw_curves(axes, rows[is_here])
            axes.set_title(f"{dataset}: {architecture}", fontsize=9)
        line[0].set_ylabel("training loss (nats)", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("epoch", fontsize=8)
    add_legend(figure, list(cells["subset"].unique()))
    return figure


def _draw_curves(axes: Axes, rows: pd.DataFrame) -> None:
    rasterised = rows["trial_id"].nunique() > _RASTERISE_ABOVE
    for subset, own in rows.groupby("subset", sort=False):
        colour = colour_of(str(subset))
        curves = own.pivot(index="epoch", columns="trial_id", values="loss").astype("float64")
        axes.plot(curves, color=colour, lw=0.5, alpha=0.3, rasterized=rasterised)
        axes.plot(curves.mean(axis="columns"), color=colour, lw=1.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    clear_frame(axes)
