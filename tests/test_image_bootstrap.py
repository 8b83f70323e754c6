"""Draws of categories, images and seeds against plain loops, and intervals that cover."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.spatial.distance import cdist, pdist

from iqray import schemas
from iqray.results.cells import build_cells
from iqray.statistics.image_bootstrap import TrialSample, Weights, draw_cells, resample_distance
from iqray.statistics.intervals import build_intervals
from tests.report_inputs import make_results, make_study_cells

NUM_CATEGORIES, NUM_IMAGES = 6, 5


def make_sample(generator, share=0.5, spread=0.0):
    """A network that is right with a chance that differs by category."""
    targets = np.repeat(np.arange(NUM_CATEGORIES), NUM_IMAGES)
    chances = np.clip(share + spread * generator.normal(size=NUM_CATEGORIES), 0, 1)
    is_right = generator.uniform(size=len(targets)) < chances[targets]
    vectors = generator.normal(size=(len(targets), 4))
    sums = cdist(vectors, vectors) @ np.eye(NUM_CATEGORIES)[targets]
    num_others = NUM_IMAGES - np.eye(NUM_CATEGORIES)[targets]
    distances = (sums / num_others).astype(np.float32)
    sample = TrialSample(np.where(is_right, 1, 7), targets, distances, targets)
    return sample, vectors


@pytest.fixture
def generator():
    return np.random.default_rng(4)


def test_drawing_everything_once_gives_the_trial_itself(generator):
    sample, vectors = make_sample(generator)
    once = Weights(np.ones((1, NUM_CATEGORIES)), np.ones((1, len(sample.targets))) / NUM_IMAGES)
    assert resample_distance(sample, once) == pytest.approx([pdist(vectors).sum()], rel=1e-5)


def test_drawn_categories_give_the_distance_among_them(generator):
    """Without drawing images: pairs of two categories, and within each, as a loop has them."""
    sample, vectors = make_sample(generator)
    times = np.array([2.0, 0, 1, 1, 2, 0])
    weights = Weights(times[None], (times[sample.targets] / NUM_IMAGES)[None])
    matrix = cdist(vectors, vectors)
    blocks = [matrix[5 * a : 5 * a + 5, 5 * b : 5 * b + 5] for a in range(6) for b in range(6)]
    between = within = weight = 0.0
    for index, block in enumerate(blocks):
        first, second = divmod(index, 6)
        if first == second:
            within += times[first] * block.sum() / 20 / NUM_CATEGORIES
        else:
            between += times[first] * times[second] * block.mean()
            weight += times[first] * times[second]
    expected = (435 - 60) * between / weight + 60 * within
    assert resample_distance(sample, weights) == pytest.approx([expected], rel=1e-5)


def test_accuracy_varies_as_drawn_categories_and_images_do(generator):
    """Against a loop that draws one category and one image after the other."""
    sample, _ = make_sample(generator, spread=0.3)
    drawn = draw_cells({"alexnet": [sample]}, generator, 4000)["alexnet"]["top1"]
    hits = (sample.category_rank == 1).reshape(NUM_CATEGORIES, NUM_IMAGES)
    plain = [
        np.mean(
            [
                generator.choice(hits[category], NUM_IMAGES).mean()
                for category in generator.integers(NUM_CATEGORIES, size=NUM_CATEGORIES)
            ]
        )
        for _ in range(4000)
    ]
    assert drawn.mean() == pytest.approx(np.mean(plain), abs=0.01)
    assert drawn.std() == pytest.approx(np.std(plain), rel=0.08)
    assert drawn.mean() == pytest.approx(hits.mean(), abs=0.01)


def test_networks_of_a_subset_see_the_same_drawn_images(generator):
    sample, _ = make_sample(generator)
    drawn = draw_cells({"a": [sample], "b": [sample]}, generator, 50)
    for measure in ("distance", "top1", "top5"):
        np.testing.assert_array_equal(drawn["a"][measure], drawn["b"][measure])


def test_seeds_that_differ_widen_the_draws(generator):
    samples = [make_sample(generator, share)[0] for share in (0.1, 0.9)]
    same = draw_cells({"a": [samples[0], samples[0]]}, generator, 500)["a"]["top1"]
    differing = draw_cells({"a": samples}, generator, 500)["a"]["top1"]
    assert differing.std() > 2 * same.std()


def test_intervals_cover_the_accuracy_of_the_category_they_are_drawn_from(generator):
    """Percentile intervals of six categories are too narrow by about sqrt(5 / 6)."""
    covered = []
    for _ in range(200):
        sample, _ = make_sample(generator, spread=0.15)
        drawn = draw_cells({"a": [sample]}, generator, 200)["a"]["top1"]
        low, high = np.percentile(drawn, (2.5, 97.5))
        covered.append(low <= 0.5 <= high)
    assert 0.85 < np.mean(covered) <= 1


def test_two_categories_of_one_image_have_a_distance(generator):
    targets = np.arange(2)
    distances = np.array([[np.nan, 3.0], [3.0, np.nan]], np.float32)
    sample = TrialSample(np.array([1, 2]), targets, distances, targets)
    assert draw_cells({"a": [sample]}, generator, 20)["a"]["distance"].tolist() == [3.0] * 20


@pytest.fixture
def cells():
    study_cells = make_study_cells()
    return build_cells(study_cells, make_results(study_cells), {"brisque": "real", "musiq": "real"})


def make_draws(cells, width=0.01):
    """Normal draws around what was measured."""
    generator = np.random.default_rng(1)
    means = cells.groupby(["dataset", "architecture", "metric", "subset"])[
        ["distance", "top1", "top5"]
    ].mean()
    return {
        names: {
            measure: value * (1 + width * generator.normal(size=300))
            for measure, value in row.items()
        }
        for names, row in means.iterrows()
    }


def test_the_table_has_every_cell_and_mean_ranks(cells):
    intervals = build_intervals(cells, make_draws(cells))
    table = pa.Table.from_pandas(intervals, schema=schemas.INTERVALS, preserve_index=False)
    assert table.num_rows == 3 * (8 * 4 + 3 * 4)
    own = intervals[intervals["scope"] == "cell"]
    assert own["value"].between(own["low"], own["high"]).all()
    assert own["rank"].between(own["rank_low"], own["rank_high"]).all()
    means = intervals[intervals["scope"] == "all"]
    assert (means["n"] == 8).all()
    assert means.groupby("measure")["rank"].sum().tolist() == pytest.approx([10] * 3)
    expected = own.groupby(["measure", "subset"])["rank"].mean()
    found = means.set_index(["measure", "subset"])["rank"]
    pd.testing.assert_series_equal(found.sort_index(), expected, check_names=False)


def test_ranks_lie_in_their_intervals_however_noisy_the_draws(cells):
    """Draws as wide as the values: those of a subset that leads everywhere are worse ranks."""
    cells.loc[cells["subset"] == "range_low", ["distance", "top1", "top5"]] *= 3
    intervals = build_intervals(cells, make_draws(cells, width=0.8))
    assert intervals["rank"].between(intervals["rank_low"], intervals["rank_high"]).all()
    assert intervals["rank_low"].min() >= 1
    assert intervals["rank_high"].max() <= 4
    leader = intervals[(intervals["scope"] == "all") & (intervals["subset"] == "range_low")]
    assert (leader["rank"] == 1).all()
    assert (leader["rank_low"] == 1).all()
    assert (leader["rank_high"] > 1.1).all()


def test_ranks_are_certain_where_draws_do_not_overlap(cells):
    intervals = build_intervals(cells, make_draws(cells, width=1e-9))
    own = intervals[intervals["scope"] == "cell"]
    assert (own["rank_low"] == own["rank"]).all()
    assert (own["rank_high"] == own["rank"]).all()
    assert (own["first_share"] == (own["rank"] == 1)).all()


def test_an_incomplete_combination_has_no_rank_and_counts_nowhere(cells):
    cells.loc[0, "status"] = "failed"
    draws = make_draws(cells)
    lost = tuple(cells.loc[0, ["dataset", "architecture", "metric", "subset"]])
    del draws[lost]
    intervals = build_intervals(cells, draws)
    own = intervals[(intervals["scope"] == "cell") & (intervals["measure"] == "top1")]
    assert own["rank_low"].isna().sum() == 4
    assert own["low"].isna().sum() == 1
    assert (intervals[intervals["scope"] == "all"]["n"] == 7).all()
