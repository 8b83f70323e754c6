"""What all figures share: colours, marks, panels, legend, and their files.

Figures are built with matplotlib's objects and the Agg canvas; there is no global state. Every
subset keeps one colour in all figures: the Okabe-Ito palette, which stays apart under the common
forms of colour blindness. `render_png` and `render_svg` give the same bytes for the same figure.
"""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray

SUBSET_COLOURS = {
    "avg_high": "#0072B2",
    "avg_low": "#E69F00",
    "range_high": "#009E73",
    "range_low": "#CC79A7",
}
OTHER_COLOUR = "#6B6B6B"


@dataclass(frozen=True)
class Mark:
    """How a category of a subset is drawn; `area` in square points."""

    marker: str
    area: float
    is_hollow: bool = False


# A category may belong to an average subset and to a range subset: filled and hollow marks of two
# sizes stay visible on top of each other.
_SUBSET_MARKS = {
    "avg_high": Mark("^", 26),
    "avg_low": Mark("v", 26),
    "range_high": Mark("o", 80, is_hollow=True),
    "range_low": Mark("s", 70, is_hollow=True),
}
_OTHER_MARK = Mark("D", 20)

_PNG_DPI = 160

_DARK_ABOVE = 0.55  # of the range of colours; numbers on darker fields are white
_MAX_NUMBERED = 8  # columns of a matrix; in larger ones numbers would not be legible

# Without dates and version strings, and with fixed ids, equal figures are equal files.
_PNG_METADATA = {"Software": None}
_SVG_METADATA = {"Date": None, "Creator": None}


def colour_of(subset: str) -> str:
    """Colour of a subset in all figures; grey for one outside the paper's four."""
    return SUBSET_COLOURS.get(subset, OTHER_COLOUR)


def mark_of(subset: str) -> Mark:
    """Mark of a subset's categories."""
    return _SUBSET_MARKS.get(subset, _OTHER_MARK)


def make_panels(
    names: Sequence[str], num_columns: int, width: float, row_height: float
) -> tuple[Figure, list[Axes]]:
    """A figure with one titled panel per name, filled row by row; sizes in inches."""
    num_columns = max(1, min(num_columns, len(names)))
    num_rows = math.ceil(len(names) / num_columns)
    figure = Figure(figsize=(width, 0.6 + row_height * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for name, axes in zip(names, grid, strict=False):
        axes.set_title(name, fontsize=10)
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    return figure, list(grid[: len(names)])


def add_legend(figure: Figure, subsets: Sequence[str], *, marks: bool = False) -> None:
    """Name the subsets above all panels, by their colours and, if asked, their marks."""
    figure.legend(
        handles=list(_build_handles(subsets, marks)),
        loc="outside upper center",
        ncols=4,
        frameon=False,
    )


def _build_handles(subsets: Sequence[str], marks: bool) -> Iterator[Line2D]:
    for subset in subsets:
        mark = mark_of(subset) if marks else Mark("s", 0)
        colour = colour_of(subset)
        face = "none" if mark.is_hollow else colour
        yield Line2D(
            [], [], ls="none", marker=mark.marker, color=colour, mfc=face, mew=1.5, label=subset
        )


def clear_frame(axes: Axes) -> None:
    """Leave only the two axes that carry numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def clear_axes(axes: Axes) -> None:
    """Leave no ticks, and a pale frame: for pictures and maps."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#D0D0D0")


def draw_matrix(
    axes: Axes,
    names: Sequence[str],
    matrix: NDArray[np.float64],
    limits: tuple[float, float],
    number_format: str,
    row_names: Sequence[str] | None = None,
) -> AxesImage:
    """Draw a matrix as a heat map, with its numbers where these are legible.

    Args:
        axes: empty ones, or with a matrix of the same size, which shows through empty fields.
        names: of columns, and of rows unless these have names of their own.
        matrix: `(R, C)`; a field that is not finite stays empty.
        limits: values of the lightest and of the darkest colour.
        number_format: such as .2f.
        row_names: of R rows; none for as many as columns, by the same names.
    """
    low, high = limits
    image = axes.imshow(matrix, vmin=low, vmax=high, cmap="cividis_r")
    rows = names if row_names is None else row_names
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    if len(names) <= _MAX_NUMBERED:
        for (i, j), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                colour = "white" if value > low + _DARK_ABOVE * (high - low) else "black"
                text = format(value, number_format)
                axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
    return image


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
