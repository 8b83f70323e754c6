"""The 4 x 4 matrices: distances of every subset's images in the networks of every subset."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

from iqray.benchmarks.invented_results import make_cross_distances
from iqray.errors import StudyError
from iqray.report.cross_tables import tabulate_cross_distances
from iqray.results.cross_distances import (
    average_cross_distances,
    join_cells,
    keep_current,
    measure_subset,
)
from iqray.schemas import CROSS_DISTANCES
from iqray.settings.subset import SUBSET_NAMES
from tests.report_inputs import add_other_networks, make_inputs

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


def test_networks_that_no_subset_has_trained_need_only_the_images_of_the_pages_cells() -> None:
    cells = make_inputs().cells
    table = add_other_networks(make_cross_distances(cells))
    is_other = table["trial_id"].isna()
    assert is_other.sum() == 2 * len(cells)
    # An architecture that no cell has.
    table.loc[table["trained_on"] == "checkpoint:mine", "architecture"] = "vgg16"
    pd.testing.assert_frame_equal(keep_current(table, cells), table)
    lost = table.loc[is_other, "tested_trial_id"].iloc[0]
    others = table[is_other]
    kept = keep_current(table, cells.replace({"trial_id": {lost: "of other categories"}}))
    pd.testing.assert_frame_equal(
        kept[kept["trial_id"].isna()].reset_index(drop=True),
        others[others["tested_trial_id"] != lost].reset_index(drop=True),
    )
    unconverged = cells.assign(status=cells["status"].where(cells["trial_id"] != lost, "failed"))
    assert keep_current(table, unconverged)["trial_id"].isna().sum() == len(others)


def make_cells() -> list[dict[str, Any]]:
    """Two subsets of one metric, whose trials of two architectures have two seeds."""
    return [
        {
            "dataset": "d",
            "architecture": architecture,
            "metric": "musiq",
            "subset": subset,
            "seed": seed,
            "trial_id": f"{architecture}-{subset}-{seed}",
        }
        for architecture, subset, seed in itertools.product(
            ("alexnet", "resnet50"), ("avg_high", "avg_low"), (0, 1)
        )
    ]


def measure(network: str, seed: int) -> pd.DataFrame:
    """Distances whose digits tell network, seed and subset."""
    subsets = ["avg_high", "avg_low"]
    distances = [float(len(network) * 100 + seed * 10 + number) for number in range(2)]
    rows = {"metric": "musiq", "tested_on": subsets, "distance": distances, "num_images": 6}
    return pd.DataFrame(rows).assign(layer="penultimate")


def test_every_network_has_a_row_for_each_subset_and_seed() -> None:
    cells = make_cells()
    trained = [measure(cell["trial_id"], 0).assign(trial_id=cell["trial_id"]) for cell in cells]
    # An untrained network has a seed; the checkpoint has the images of both.
    others = [
        measure(name, seed).assign(
            dataset="d", architecture=architecture, trained_on=name, seed=seed
        )
        for name, architecture, seed in (
            ("untrained", "alexnet", 1),
            ("checkpoint:mine", "vgg16", 0),
            ("checkpoint:mine", "vgg16", 1),
        )
    ]
    table = join_cells(pd.DataFrame(cells), trained, others)
    assert set(table.columns) == set(CROSS_DISTANCES.names) - {"weights"}
    assert len(table) == 2 * (len(cells) + 3)
    trials = {(c["architecture"], c["subset"], c["seed"]): c["trial_id"] for c in cells}
    for number, row in enumerate(table.to_dict("records")):
        is_other = number >= 2 * len(cells)
        assert pd.isna(row["trial_id"]) == is_other
        if not is_other:
            assert row["trial_id"] == trials[row["architecture"], row["trained_on"], row["seed"]]
        design = "alexnet" if row["architecture"] == "vgg16" else row["architecture"]
        assert row["tested_trial_id"] == trials[design, row["tested_on"], row["seed"]]
        name = row["trained_on"] if is_other else row["trial_id"]
        expected = measure(name, row["seed"] if is_other else 0).set_index("tested_on")["distance"]
        assert row["distance"] == expected[row["tested_on"]]
    alone = join_cells(pd.DataFrame(cells), [], others)
    assert len(alone) == 2 * 3


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


def test_other_networks_come_after_the_subsets_and_change_nothing_of_them() -> None:
    table = make_cross_distances(make_inputs().cells)
    shown = tabulate_cross_distances(add_other_networks(table), SUBSET_NAMES)
    assert shown.title.endswith("networks that no subset has trained come last")
    frame = shown.frame
    names = [*SUBSET_NAMES, "untrained", "checkpoint:mine"]
    assert frame["trained on"].to_list() == names * 4
    plain = tabulate_cross_distances(table, SUBSET_NAMES)
    assert "no subset" not in plain.title
    is_subset = frame["trained on"].isin(SUBSET_NAMES)
    pd.testing.assert_frame_equal(frame[is_subset].reset_index(drop=True), plain.frame)
    first = frame.set_index("trained on").iloc[:6][list(SUBSET_NAMES)].astype(float)
    np.testing.assert_allclose(first.loc["untrained"], first.loc[SUBSET_NAMES[0]] * 1e6)


def test_a_network_without_a_number_is_in_no_mean() -> None:
    table = make_cross_distances(make_inputs().cells)
    is_place = (table["dataset"] == "demo_a") & (table["architecture"] == "alexnet")
    is_place &= (table["trained_on"] == "avg_high") & (table["tested_on"] == "range_low")
    first = table.index[is_place][0]
    table.loc[first, "distance"] = None
    row = average_cross_distances(table, SUBSET_NAMES).iloc[0]
    assert row["range_low"] == pytest.approx(table.loc[is_place, "distance"].dropna().mean())
