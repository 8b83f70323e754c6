"""The 4 x 4 matrices: distances of every subset's images in the networks of every subset."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

from iqray.benchmarks.invented_results import make_cross_distances
from iqray.errors import StudyError
from iqray.results.cross_distances import average_cross_distances, keep_current, measure_subset
from iqray.settings.subset import SUBSET_NAMES
from tests.report_inputs import make_inputs

CATEGORIES = ["ant"] * 3 + ["bee"] * 4 + ["cat"] * 3


@pytest.fixture
def embeddings() -> np.ndarray:
    return np.random.default_rng(0).normal(5, 1, size=(10, 6)).astype(np.float32)


def test_a_subset_is_measured_among_its_own_images_alone(embeddings: np.ndarray) -> None:
    found, num_images = measure_subset(embeddings, CATEGORIES, ["ant", "cat"], 0, 3)
    assert num_images == 6
    expected = pdist(np.delete(embeddings, slice(3, 7), axis=0).astype(float)).mean()
    assert found == pytest.approx(expected)


def test_counts_are_matched_by_a_pick_of_the_networks_seed(embeddings: np.ndarray) -> None:
    subset = ["bee", "cat"]
    picks = [
        [*bees, *cats]
        for bees in itertools.combinations(range(3, 7), 2)
        for cats in itertools.combinations(range(7, 10), 2)
    ]
    possible = [pdist(embeddings[pick].astype(float)).mean() for pick in picks]
    found = {measure_subset(embeddings, CATEGORIES, subset, seed, 2) for seed in range(20)}
    assert {num_images for _, num_images in found} == {4}
    assert all(np.isclose(value, possible).any() for value, _ in found)
    assert len(found) > 1
    # The order of the images of other subsets changes nothing.
    again = measure_subset(embeddings[3:], CATEGORIES[3:], subset, 7, 2)
    assert again == measure_subset(embeddings, CATEGORIES, subset, 7, 2)


def test_what_is_not_finite_or_alone_has_no_distance(embeddings: np.ndarray) -> None:
    embeddings[0, 0] = np.nan
    assert np.isnan(measure_subset(embeddings, CATEGORIES, ["ant"], 0, 3)[0])
    assert np.isfinite(measure_subset(embeddings, CATEGORIES, ["bee"], 0, 3)[0])
    assert np.isnan(measure_subset(embeddings, CATEGORIES, ["bee"], 0, 1)[0])


def test_embeddings_of_other_subsets_are_a_mistake(embeddings: np.ndarray) -> None:
    with pytest.raises(StudyError, match="0 test images of category 'dog' are embedded, and 3"):
        measure_subset(embeddings, CATEGORIES, ["ant", "dog"], 0, 3)


def test_only_rows_of_the_pages_cells_are_kept() -> None:
    cells = make_inputs().cells
    table = make_cross_distances(cells)
    pd.testing.assert_frame_equal(keep_current(table, cells), table)
    [row] = np.flatnonzero(cells["subset"] == "avg_low")[:1]
    lost = cells["trial_id"].iloc[row]
    # Trained on or tested on: another subset of that name has other images.
    kept = keep_current(table, cells.replace({"trial_id": {lost: "of other categories"}}))
    pd.testing.assert_frame_equal(
        kept,
        table[(table[["trial_id", "tested_trial_id"]] != lost).all(axis=1)].reset_index(drop=True),
    )
    # What did not converge is no network of its subset, but its images are still the subset's.
    unconverged = cells.assign(status=cells["status"].where(cells["trial_id"] != lost, "failed"))
    kept = keep_current(table, unconverged)
    assert len(table) - len(kept) == 4
    assert lost not in set(kept["trial_id"])
    assert lost in set(kept["tested_trial_id"])


def test_averages_are_over_metrics_and_seeds_in_the_order_of_subsets() -> None:
    table = make_cross_distances(make_inputs().cells)
    averages = average_cross_distances(table.sample(frac=1, random_state=0), SUBSET_NAMES)
    assert list(averages.columns[4:]) == list(SUBSET_NAMES)
    assert len(averages) == 2 * 2 * 4  # datasets, architectures, subsets
    for row in averages.to_dict("records"):
        here = table[
            (table["dataset"] == row["dataset"])
            & (table["architecture"] == row["architecture"])
            & (table["trained_on"] == row["trained_on"])
        ]
        for subset in SUBSET_NAMES:
            own = here.loc[here["tested_on"] == subset, "distance"]
            assert len(own) == 4
            assert row[subset] == pytest.approx(own.mean())
    assert averages["trained_on"].to_list() == list(SUBSET_NAMES) * 4


def test_a_network_without_a_number_is_in_no_mean() -> None:
    table = make_cross_distances(make_inputs().cells)
    is_place = (table["dataset"] == "demo_a") & (table["architecture"] == "alexnet")
    is_place &= (table["trained_on"] == "avg_high") & (table["tested_on"] == "range_low")
    first = table.index[is_place][0]
    table.loc[first, "distance"] = None
    row = average_cross_distances(table, SUBSET_NAMES).iloc[0]
    assert row["range_low"] == pytest.approx(table.loc[is_place, "distance"].dropna().mean())
