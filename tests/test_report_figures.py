"""Every figure holds what its table says, and is the same file whenever it is made."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection

from iqray.report.figure_list import build_figures
from iqray.report.figures.categories import build_overlap_matrix
from iqray.report.figures.measures import plot_accuracies
from iqray.report.figures.pictures import CentroidMap, pick_examples
from iqray.report.figures.style import colour_of
from iqray.settings.subset import SUBSET_NAMES
from tests.report_inputs import add_other_networks, make_inputs


@pytest.fixture(scope="module")
def clean_inputs():
    return make_inputs()


@pytest.fixture(scope="module")
def figures(clean_inputs):
    return {item.name: item for item in build_figures(clean_inputs)}


def test_figures_render_to_the_same_bytes(clean_inputs, figures):
    again = {item.name: item for item in build_figures(clean_inputs)}
    assert list(again) == list(figures)
    for name in ("rank_distributions", "centroid_maps"):
        assert figures[name].png.startswith(b"\x89PNG")
        assert b"<svg" in figures[name].svg
        assert figures[name].png == again[name].png
        assert figures[name].svg == again[name].svg


def test_rank_figure_has_one_bar_segment_per_count(figures):
    for axes in figures["rank_distributions"].figure.axes:
        assert sum(bar.get_height() for bar in axes.patches) == 16  # 4 combinations x 4 subsets
    assert len({colour_of(subset) for subset in SUBSET_NAMES}) == 4


def test_distance_bars_are_the_means_of_their_cells(clean_inputs, figures):
    means = clean_inputs.cells.groupby(["dataset", "architecture", "subset"])["mean_distance"]
    panels = figures["mean_distances"].figure.axes
    heights = [bar.get_height() for axes in panels for bar in axes.patches]
    assert sorted(heights) == pytest.approx(sorted(means.mean()))
    # A line per metric: the interval of the sum over pairs, by the pairs of its cell.
    cells = clean_inputs.cells.assign(
        pairs=clean_inputs.cells["distance"] / clean_inputs.cells["mean_distance"]
    )
    own = clean_inputs.intervals.query("scope == 'cell' and measure == 'distance'").merge(
        cells.drop_duplicates(["dataset", "architecture", "metric", "subset"]),
        on=["dataset", "architecture", "metric", "subset"],
    )
    ends = [
        tuple(segment[:, 1])
        for axes in panels
        for lines in axes.collections
        if isinstance(lines, LineCollection)
        for segment in lines.get_segments()
    ]
    expected = zip(own["low"] / own["pairs"], own["high"] / own["pairs"], strict=True)
    np.testing.assert_allclose(sorted(ends), sorted(expected))
    assert len(ends) == len(own) > 0


def test_accuracy_bars_are_the_intervals_of_their_cells(clean_inputs, figures):
    panels = figures["accuracies"].figure.axes
    assert len(panels) == 2 * 2 * 2  # dataset, accuracy, architecture
    intervals = clean_inputs.intervals
    for measure, axes in (("top1", panels[0]), ("top5", panels[2])):
        own = intervals[
            (intervals["scope"] == "cell")
            & (intervals["measure"] == measure)
            & (intervals["dataset"] == "demo_a")
            & (intervals["architecture"] == "alexnet")
        ]
        ends = [
            tuple(segment[:, 1])
            for lines in axes.collections
            if isinstance(lines, LineCollection)
            for segment in lines.get_segments()
            if segment[0, 0] == segment[1, 0]  # upright
        ]
        assert sorted(ends) == sorted(zip(own["low"], own["high"], strict=True))
    for axes in panels:
        bars = [each for each in axes.collections if isinstance(each, LineCollection)]
        tops = [segment[:, 1].max() for each in bars for segment in each.get_segments()]
        assert max(tops) <= axes.get_ylim()[1]  # nothing is cut off


def test_a_cell_without_an_interval_is_a_dot_alone(clean_inputs):
    intervals = clean_inputs.intervals.assign(low=np.nan, high=np.nan)
    axes = plot_accuracies(intervals, clean_inputs.cells).axes[0]
    dots = [each.get_offsets() for each in axes.collections if isinstance(each, PathCollection)]
    assert np.isfinite(np.concatenate(dots)).all()
    assert len(np.concatenate(dots)) == 2 * 4  # metrics, subsets


def test_cross_distances_are_the_means_of_networks_and_images(clean_inputs, figures):
    panels = figures["cross_distances_penultimate"].figure.axes
    means = clean_inputs.cells.groupby(["dataset", "architecture", "subset"])[
        "mean_distance"
    ].mean()
    assert len(panels) == 2 * 2  # datasets, architectures
    for (dataset, architecture), axes in zip(
        itertools.product(("demo_a", "demo_b"), ("alexnet", "resnet50")), panels, strict=True
    ):
        [image] = axes.images
        diagonal = np.diagonal(image.get_array())
        own = means[dataset, architecture]
        np.testing.assert_allclose(diagonal, own[list(SUBSET_NAMES)].astype(float))
        assert len(axes.texts) == 16


def build_crossed(inputs):
    figures = build_figures(inputs)
    return next(item for item in figures if item.name == "cross_distances_penultimate")


def test_other_networks_have_rows_and_colours_of_their_own(clean_inputs, figures):
    crossed = add_other_networks(clean_inputs.cross_distances)
    item = build_crossed(dataclasses.replace(clean_inputs, cross_distances=crossed))
    before = figures["cross_distances_penultimate"].figure.axes
    for axes, plain in zip(item.figure.axes, before, strict=True):
        images = [image.get_array() for image in axes.images]
        # Millions in another network's row leave the subsets' colours and numbers as they were.
        np.testing.assert_array_equal(images[0][:4], plain.images[0].get_array())
        assert axes.images[0].get_clim() == plain.images[0].get_clim()
        for row, image in zip((4, 5), images[1:], strict=True):
            assert np.ma.count(image) == 4
            np.testing.assert_allclose(image[row] / image[row, 0], images[0][0] / images[0][0, 0])
        assert len(axes.texts) == 24
    labels = [label.get_text() for label in item.figure.axes[0].get_yticklabels()]
    assert labels == [*SUBSET_NAMES, "untrained", "checkpoint:mine"]
    assert "(untrained, checkpoint:mine) come last" in item.caption
    # A layer that only another network has.
    alone = crossed[crossed["trained_on"] == "checkpoint:mine"]
    item = build_crossed(dataclasses.replace(clean_inputs, cross_distances=alone))
    assert [len(axes.texts) for axes in item.figure.axes] == [4] * 4


def test_overlap_matrix_is_symmetric_and_averages_pairs():
    rows = pd.DataFrame(
        [["a", "b", 0.2], ["a", "b", 0.4], ["a", "c", 0.1], ["b", "c", None]],
        columns=["first", "second", "value"],
    )
    names, matrix = build_overlap_matrix(rows)
    assert names == ["a", "b", "c"]
    expected = [[1, 0.3, 0.1], [0.3, 1, np.nan], [0.1, np.nan, 1]]
    np.testing.assert_allclose(matrix, expected)


def test_examples_go_from_the_best_to_the_worst_image(clean_inputs):
    quantiles = clean_inputs.score_quantiles
    for metric, scores in (
        ("brisque", [0, 10, 25, 50, 75, 90, 100]),  # lower is better
        ("musiq", [100, 90, 75, 50, 25, 10, 0]),
    ):
        own = quantiles[(quantiles["dataset"] == "demo_a") & (quantiles["metric"] == metric)]
        assert [row["score"] for row in pick_examples(own)] == pytest.approx(scores)


def test_pictures_are_shown_where_there_are_any(clean_inputs):
    picture = np.full((48, 64, 3), 128, np.uint8)
    [example] = clean_inputs.centroid_maps
    with_pictures = dataclasses.replace(
        clean_inputs,
        pictures={("demo_a", number): picture for number in (0, 50, 100)},
        centroid_maps=[dataclasses.replace(example, pictures={example.categories[0]: picture})],
    )
    figures = {item.name: item for item in build_figures(with_pictures)}
    shown = [axes for axes in figures["score_distributions_demo_a"].figure.axes if axes.images]
    assert len(shown) == 2 * 3  # best, median and worst of two metrics
    assert "could not be reached" in figures["score_distributions_demo_b"].caption
    assert b"<image" in figures["centroid_maps"].svg


def test_stress_is_printed_on_every_map(clean_inputs):
    [example] = clean_inputs.centroid_maps
    maps = [dataclasses.replace(example, stress=stress) for stress in (0.051, 0.234)]
    assert all(isinstance(each, CentroidMap) for each in maps)
    inputs = dataclasses.replace(clean_inputs, centroid_maps=maps)
    [item] = [each for each in build_figures(inputs) if each.name == "centroid_maps"]
    titles = [axes.get_title() for axes in item.figure.axes]
    assert [title.rpartition(" ")[2] for title in titles] == ["0.051", "0.234"]


def test_curves_of_shared_trials_are_drawn_in_every_subset(figures):
    panels = figures["learning_curves"].figure.axes
    assert len(panels) == 4
    # 2 metrics x 4 subsets x 2 seeds, and a mean for each subset.
    assert {len(axes.lines) for axes in panels} == {16 + 4}
