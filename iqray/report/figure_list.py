"""The figures of the report with their words: alternative text, caption, file name.

Reads finished tables; `iqray.report.figures` draws. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from iqray.report.figures.categories import plot_category_ranges, plot_overlaps
from iqray.report.figures.controls import plot_controls
from iqray.report.figures.cross_distances import plot_cross_distances
from iqray.report.figures.measures import (
    plot_accuracies,
    plot_learning_curves,
    plot_mean_distances,
    plot_rank_distributions,
)
from iqray.report.figures.pictures import plot_centroid_maps, plot_score_distributions
from iqray.report.figures.style import render_png, render_svg
from iqray.report.inputs import ReportInputs
from iqray.report.interval_tables import name_draws
from iqray.report.tables import has_demo
from iqray.results.cells import DEMO_WEIGHTS, describe_finding
from iqray.results.cross_distances import average_cross_distances, list_others
from iqray.settings.control import DRAWN
from iqray.settings.embedding import PENULTIMATE


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its words; `name` is safe as a file name."""

    name: str
    figure: Figure
    alt: str
    caption: str
    has_demo_weights: bool

    @cached_property
    def svg(self) -> bytes:
        """The figure as an SVG file, rendered once for the page and the folder."""
        return render_svg(self.figure)

    @cached_property
    def png(self) -> bytes:
        """The figure as a PNG file."""
        return render_png(self.figure)


def build_figures(inputs: ReportInputs) -> Iterator[ReportFigure]:
    """Make the figures of the report that its inputs have anything for, one after another."""
    yield _build_rank_distributions(inputs)
    yield _build_mean_distances(inputs)
    if inputs.centroid_maps:
        yield _build_centroid_maps(inputs)
    yield _build_accuracies(inputs)
    for layer in inputs.cross_distances["layer"].unique():
        yield _build_cross_distances(inputs, layer)
    drawn = inputs.controls[inputs.controls["control"].isin(DRAWN)]
    for control in drawn["control"].unique():
        yield _build_controls(inputs, control)
    for dataset in inputs.cells["dataset"].unique():
        yield from _build_score_distributions(inputs, dataset)
        yield _build_category_ranges(inputs, dataset)
        yield from _build_overlaps(inputs, dataset)
    if len(inputs.epochs):
        yield _build_learning_curves(inputs)


def _build_rank_distributions(inputs: ReportInputs) -> ReportFigure:
    return ReportFigure(
        "rank_distributions",
        plot_rank_distributions(inputs.rank_counts),
        "Stacked bars of how many combinations give each subset each rank, by dataset and "
        f"measure. {' '.join(describe_finding(inputs.rank_counts))}",
        "Who takes which rank, by dataset (the paper's Figure 3, for all three measures). Bars "
        "between whole ranks are ties.",
        has_demo(inputs.rank_counts),
    )


def _name_draws(inputs: ReportInputs, *kinds: str) -> str:
    return name_draws(inputs.cells["seed"].nunique(), *kinds)


def _build_mean_distances(inputs: ReportInputs) -> ReportFigure:
    return ReportFigure(
        "mean_distances",
        plot_mean_distances(inputs.cells, inputs.intervals),
        "Mean distance between test images by subset, one panel per dataset and architecture; the "
        "values are in the table of accuracy and mean distance.",
        "Mean Euclidean distance between the embeddings of two test images (the paper's Figure 2). "
        "A bar is the mean, a dot a metric and seed, a line a metric's 95 % interval over drawn "
        f"{_name_draws(inputs, 'categories', 'images')}. Scales differ between architectures.",
        has_demo(inputs.cells),
    )


def _build_centroid_maps(inputs: ReportInputs) -> ReportFigure:
    maps = inputs.centroid_maps
    described = "; ".join(
        f"{each.title}: stress-1 {each.stress:.3f}, {', '.join(each.categories)}" for each in maps
    )
    return ReportFigure(
        "centroid_maps",
        plot_centroid_maps(maps),
        f"Maps of category centroids, one trial each. {described}.",
        "Example (the paper's Figure 2): multidimensional scaling (metric SMACOF) of the distances "
        f"between the centroids of up to {max(len(each.categories) for each in maps)} sample "
        "categories, for the networks of one combination. Axes have no meaning; stress-1 near 0 "
        "means that a map shows the distances faithfully, 0.2 that it does so poorly.",
        any(DEMO_WEIGHTS in each.weights for each in maps),
    )


def _build_accuracies(inputs: ReportInputs) -> ReportFigure:
    return ReportFigure(
        "accuracies",
        plot_accuracies(inputs.intervals, inputs.cells),
        "Top-1 and top-5 accuracy of every cell with its 95 % interval, by dataset, architecture "
        "and subset; the values are in the table of cells with intervals.",
        "Accuracy on the subset's own test images. A dot is a cell, averaged over seeds, its bar "
        "the 95 % interval of a bootstrap that draws "
        f"{_name_draws(inputs, 'categories', 'their test images')}; metrics stand side by "
        "side, the thin line is their mean. Subsets hold different "
        "categories, so that a difference may be one of difficulty. Dashed: chance.",
        has_demo(inputs.cells),
    )


def _build_cross_distances(inputs: ReportInputs, layer: str) -> ReportFigure:
    own = inputs.cross_distances[inputs.cross_distances["layer"] == layer]
    subsets = list(inputs.cells["subset"].unique())
    others = list_others(own)
    beside = f" and in others ({', '.join(others)})" if others else ""
    return ReportFigure(
        f"cross_distances_{layer}",
        plot_cross_distances(average_cross_distances(own, subsets), subsets),
        "Heat maps of the mean distance between the test images of each subset in networks that "
        f"were trained on each subset{beside}, at {layer}, one panel per dataset and architecture; "
        "the values are in the table by subset of the network and of the test images.",
        "What networks of one subset make of the images of another: mean Euclidean distance "
        "between the embeddings of two test images of the column's subset, at "
        f"{'the input of the last linear layer' if layer == PENULTIMATE else layer}, by networks "
        "trained on the row's. Means over metrics and seeds, at the same number of images in every "
        "category; the diagonal is what the cells themselves cover. Networks differ in scale: "
        f"compare within a row. {_describe_colours(others)}",
        has_demo(own),
    )


def _describe_colours(others: Sequence[str]) -> str:
    if not others:
        return "Colours go from the least to the largest number of a panel."
    return (
        f"Networks that no subset has trained ({', '.join(others)}) come last, on the same images. "
        "Colours go from the least to the largest number of the subsets' rows of a panel, and of "
        "each of these networks' rows."
    )


def _build_controls(inputs: ReportInputs, control: str) -> ReportFigure:
    own = inputs.controls[inputs.controls["control"] == control]
    return ReportFigure(
        f"controls_{control}",
        plot_controls(own),
        f"Dots of the z of every cell among {control} control subsets, by dataset, measure, "
        "architecture and subset; the table of real subsets among controls sums them up.",
        f"Real subsets against {control} control subsets ({own['num_draws'].min()} or more draws): "
        "a dot is a cell, its z the distance from the mean of the control subsets in their "
        "standard deviations. In the grey band, where 95 % of further control subsets would lie if "
        "they were normal, a subset is like the controls; with few draws the band is wide.",
        has_demo(own),
    )


def _build_score_distributions(inputs: ReportInputs, dataset: str) -> Iterator[ReportFigure]:
    own = inputs.score_quantiles[inputs.score_quantiles["dataset"] == dataset]
    if own.empty:
        return
    pictures = {key: value for key, value in inputs.pictures.items() if key[0] == dataset}
    medians = own[own["quantile"] == 0.5].set_index("metric")["score"]
    described = ", ".join(f"{metric} {score:.3g}" for metric, score in medians.items())
    examples = (
        " Beside it, images on the way from the best to the worst, with their scores."
        if pictures
        else " The images themselves could not be reached when this page was made."
    )
    yield ReportFigure(
        f"score_distributions_{dataset}",
        plot_score_distributions(own, pictures),
        f"Histograms of the scores of {dataset} by metric, with example images where these could "
        f"be reached. Medians: {described}.",
        f"{dataset}: scores of the training images by metric, a line at the median.{examples}",
        has_demo(own),
    )


def _build_category_ranges(inputs: ReportInputs, dataset: str) -> ReportFigure:
    stats = inputs.category_stats[inputs.category_stats["dataset"] == dataset]
    return ReportFigure(
        f"category_ranges_{dataset}",
        plot_category_ranges(inputs.category_stats, inputs.subsets, dataset),
        f"Scatter of the categories of {dataset}: average score against range of scores, one "
        "panel per metric, the four subsets marked; they are listed in the table of subsets.",
        f"{dataset}: every dot is a category. Scores are raw: for a metric that is lower for "
        "better images, such as BRISQUE and NIQE, high quality lies on the left.",
        has_demo(stats),
    )


def _build_overlaps(inputs: ReportInputs, dataset: str) -> Iterator[ReportFigure]:
    diagnostics = inputs.diagnostics
    own = diagnostics[(diagnostics["dataset"] == dataset)]
    if not (own["measure"] == "jaccard_subsets").any():
        return
    yield ReportFigure(
        f"overlaps_{dataset}",
        plot_overlaps(own, dataset),
        f"Heat maps of how far the subsets of {dataset} hold the same categories, between subsets "
        "and between metrics; the values are in results/diagnostics.csv.",
        f"{dataset}: shared categories as Jaccard overlap, 1 for equal and 0 for disjoint choices. "
        "Where metrics overlap little, they mean different things by quality.",
        _has_demo_rows(own),
    )


def _has_demo_rows(rows: pd.DataFrame) -> bool:
    return has_demo(rows[rows["measure"].isin(["jaccard_subsets", "jaccard_metrics"])])


def _build_learning_curves(inputs: ReportInputs) -> ReportFigure:
    last = inputs.epochs.groupby("trial_id")["loss"].last().astype("float64")
    return ReportFigure(
        "learning_curves",
        plot_learning_curves(inputs.epochs, inputs.cells),
        f"Training loss by epoch of {len(last)} trials, by dataset, architecture and subset. The "
        f"last losses lie between {last.min():.3f} and {last.max():.3f}.",
        "Training loss by epoch: a thin line is a trial, a thick one the mean of a subset. A "
        "level line near the start is a trial that did not learn.",
        has_demo(inputs.cells),
    )
