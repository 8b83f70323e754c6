"""Figures that show images: metrics' scores from best to worst, and maps of categories.

Reads `schemas.SCORE_QUANTILES` and what `iqray.rdms.rdm` makes of embeddings. Images are small and
optional: a figure without them shows its numbers all the same.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray

from iqray.report.figures.style import OTHER_COLOUR, clear_axes, clear_frame, make_panels

Pixels = NDArray[np.uint8]

# Where on the way from the best to the worst image of a metric examples are shown.
EXAMPLE_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_EXAMPLE_LABELS = ("best", "10 %", "25 %", "median", "75 %", "90 %", "worst")

_NUM_BINS = 40
_NUM_POINTS = 4000  # at which the quantile function is read for the histogram


@dataclass(frozen=True)
class CentroidMap:
    """The category centroids of one trial, placed in the plane by `rdm.embed_mds`.

    Attributes:
        title: the cell the trial belongs to, such as `demo_a, alexnet, niqe, avg_high`.
        categories: C names.
        coordinates: `(C, 2)`, in units of embedding distance.
        stress: Kruskal's stress-1.
        weights: where the weights of the cell's metric come from.
        pictures: by category: a test image `(height, width, 3)`, where one can be read.
    """

    title: str
    categories: tuple[str, ...]
    coordinates: NDArray[np.float64]
    stress: float
    weights: str
    pictures: Mapping[str, Pixels] = field(default_factory=dict)


def plot_centroid_maps(maps: Sequence[CentroidMap]) -> Figure:
    """Draw maps of category centroids side by side, each with its stress in the title."""
    titles = [f"{each.title}\nstress-1 = {each.stress:.3f}" for each in maps]
    figure, panels = make_panels(titles, 2, 9, 4.2)
    for each, axes in zip(maps, panels, strict=True):
        axes.scatter(each.coordinates[:, 0], each.coordinates[:, 1], s=20, color=OTHER_COLOUR)
        for name, point in zip(each.categories, each.coordinates, strict=True):
            _place_category(axes, name, point, each.pictures.get(name))
        axes.set_title(axes.get_title(), fontsize=9)
        _frame_square(axes, each.coordinates)
        clear_axes(axes)
    return figure


def _frame_square(axes: Axes, coordinates: NDArray[np.float64]) -> None:
    """One scale for both axes, with room for pictures and names at the edges."""
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    half = 0.62 * max(float((high - low).max()), np.finfo(float).tiny)
    x, y = (low + high) / 2
    axes.set_xlim(x - half, x + half)
    axes.set_ylim(y - half, y + half)
    axes.set_aspect("equal", adjustable="box")


def _place_category(
    axes: Axes, name: str, point: NDArray[np.float64], picture: Pixels | None
) -> None:
    height = 0
    if picture is not None:
        zoom = 30 / max(picture.shape[:2])  # points
        box = OffsetImage(picture, zoom=zoom, interpolation="none")
        axes.add_artist(AnnotationBbox(box, tuple(point), frameon=False, pad=0))
        height = round(picture.shape[0] * zoom / 2)
    axes.annotate(
        name,
        tuple(point),
        xytext=(0, -height - 3),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=7,
    )


def plot_score_distributions(
    quantiles: pd.DataFrame, pictures: Mapping[tuple[str, int], Pixels]
) -> Figure:
    """Show how each metric's scores are spread and, where images are given, examples.

    Args:
        quantiles: rows of `schemas.SCORE_QUANTILES` of one dataset.
        pictures: by dataset and image_id, small images `(height, width, 3)`.

    Returns:
        A row per metric: its distribution, then images from best to worst. Without images, a grid
        of distributions.
    """
    metrics = list(quantiles["metric"].unique())
    if not pictures:
        figure, panels = make_panels(metrics, 3, 9, 1.9)
        for metric, axes in zip(metrics, panels, strict=True):
            own = quantiles[quantiles["metric"] == metric]
            _draw_distribution(axes, own)
            axes.set_title(f"{metric}: {_describe_direction(own)}", fontsize=8, loc="left")
        return figure
    height = 0.3 + 1.3 * len(metrics)
    figure = Figure(figsize=(9.5, height))
    num_examples = len(EXAMPLE_SHARES)
    grid = GridSpec(
        *(len(metrics), 1 + num_examples),
        figure=figure,
        width_ratios=[2.6, *[1] * num_examples],
        left=0.02,
        right=0.99,
        top=1 - 0.3 / height,
        bottom=0.4 / height,
        wspace=0.1,
        hspace=0.6,
    )
    for row, metric in enumerate(metrics):
        own = quantiles[quantiles["metric"] == metric]
        axes = figure.add_subplot(grid[row, 0])
        _draw_distribution(axes, own)
        axes.set_title(f"{metric}: {_describe_direction(own)}", fontsize=8, loc="left")
        examples = pick_examples(own)
        for column, (label, example) in enumerate(zip(_EXAMPLE_LABELS, examples, strict=True)):
            axes = figure.add_subplot(grid[row, 1 + column])
            _draw_example(axes, example, pictures)
            if row == 0:
                axes.set_title(label, fontsize=8)
    return figure


def pick_examples(quantiles: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Rows of one dataset and metric at `EXAMPLE_SHARES` of the way from best to worst image."""
    ordered = quantiles.sort_values("quantile", ascending=bool(quantiles["lower_better"].iloc[0]))
    places = [round(share * (len(ordered) - 1)) for share in EXAMPLE_SHARES]
    return ordered.iloc[places].to_dict("records")


def _describe_direction(quantiles: pd.DataFrame) -> str:
    return "lower is better" if quantiles["lower_better"].iloc[0] else "higher is better"


def _draw_distribution(axes: Axes, quantiles: pd.DataFrame) -> None:
    scores = quantiles.sort_values("quantile")
    spread = np.interp(
        (np.arange(_NUM_POINTS) + 0.5) / _NUM_POINTS, scores["quantile"], scores["score"]
    )
    axes.hist(spread, bins=_NUM_BINS, color="#7A8FA6")
    axes.axvline(float(np.median(spread)), color="#1c2126", lw=1)
    axes.set_yticks([])
    clear_frame(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=7)


def _draw_example(
    axes: Axes, example: Mapping[Hashable, Any], pictures: Mapping[tuple[str, int], Pixels]
) -> None:
    picture = pictures.get((example["dataset"], example["image_id"]))
    if picture is not None:
        axes.imshow(picture, interpolation="none")
    clear_axes(axes)
    axes.set_xlabel(_format_score(example["score"]), fontsize=7)


def _format_score(score: float) -> str:
    digits = max(0, 3 - math.floor(math.log10(abs(score))) - 1) if score else 0
    return f"{score:.{min(digits, 4)}f}"
