"""The figures of the report with their words: alternative text, caption, file name.

Reads finished tables; `iqray.figures` draws. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from iqray.figures import (
    MdsExample,
    plot_category_ranges,
    plot_centroid_map,
    plot_mean_distances,
    plot_rank_distributions,
)
from iqray.report_tables import has_demo
from iqray.results import DEMO_WEIGHTS, describe_finding


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its words; `name` is safe as a file name."""

    name: str
    figure: Figure
    alt: str
    caption: str
    has_demo_weights: bool


def build_figures(
    rank_counts: pd.DataFrame,
    cells: pd.DataFrame,
    category_stats: pd.DataFrame,
    subsets: pd.DataFrame,
    mds_examples: Sequence[MdsExample],
) -> Iterator[ReportFigure]:
    """Make the figures of the report, in the order in which it shows them.

    Args:
        rank_counts: a table of `schemas.RANK_COUNTS`.
        cells: a table of `schemas.CELLS`.
        category_stats: a table of `schemas.CATEGORY_STATS`.
        subsets: a table of `schemas.SUBSETS`.
        mds_examples: trials whose category centroids are shown.
    """
    yield ReportFigure(
        "rank_distributions",
        plot_rank_distributions(rank_counts),
        "Stacked bars of how many combinations give each subset each rank, by dataset and "
        f"measure. {' '.join(describe_finding(rank_counts))}",
        "Who takes which rank, by dataset. Bars between whole ranks are ties.",
        has_demo(rank_counts),
    )
    yield ReportFigure(
        "mean_distances",
        plot_mean_distances(cells),
        "Mean distance between test images by subset, one panel per architecture; the values are "
        "in the table of accuracy and mean distance.",
        "Mean Euclidean distance between the embeddings of two test images. A dot is a cell and "
        "seed, a bar the mean. Scales differ between architectures.",
        has_demo(cells),
    )
    for number, example in enumerate(mds_examples, start=1):
        yield _build_centroid_map(number, example)
    for dataset in category_stats["dataset"].unique():
        yield _build_category_ranges(category_stats, subsets, dataset)


def _build_centroid_map(number: int, example: MdsExample) -> ReportFigure:
    return ReportFigure(
        f"centroid_map_{number}",
        plot_centroid_map(example),
        f"Map of {len(example.categories)} category centroids of one trial ({example.title}): "
        f"{', '.join(example.categories)}. Stress-1 is {example.stress:.3f}.",
        "Example: multidimensional scaling (metric SMACOF) of the distances between category "
        "centroids. Axes have no meaning; stress-1 near 0 means that the map shows the "
        "distances faithfully, 0.2 that it does so poorly.",
        DEMO_WEIGHTS in example.weights,
    )


def _build_category_ranges(
    category_stats: pd.DataFrame, subsets: pd.DataFrame, dataset: str
) -> ReportFigure:
    stats = category_stats[category_stats["dataset"] == dataset]
    return ReportFigure(
        f"category_ranges_{dataset}",
        plot_category_ranges(category_stats, subsets, dataset),
        f"Scatter of the categories of {dataset}: average score against range of scores, one "
        "panel per metric, the four subsets marked; they are listed in the table of subsets.",
        f"{dataset}: every dot is a category. Scores are raw: for a metric that is lower for "
        "better images, such as BRISQUE and NIQE, high quality lies on the left.",
        has_demo(stats),
    )
