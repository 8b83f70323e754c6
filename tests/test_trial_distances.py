"""A trial's distances are kept beside its embeddings, and measured only where they are missing."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import cdist, pdist

from iqray.embeddings.tables import build_embedding_table
from iqray.results.distances import DEFINITIONS
from iqray.results.trial_distances import (
    DISTANCES_VERSION,
    provide_distances,
    read_category_distances,
    write_distances,
)
from iqray.storage import Storage
from tests.small_trials import make_trial

CATEGORIES = ["ant", "ant", "cat", "cat", "dog", "dog", "dog"]


@pytest.fixture
def embeddings() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


@pytest.fixture
def storage(tmp_path: Path, embeddings: np.ndarray) -> Storage:
    storage = Storage(str(tmp_path))
    images = pa.table({"image_id": range(7), "category": CATEGORIES})
    path = f"trials/{make_trial().trial_id}/embeddings.parquet"
    storage.write_table(path, build_embedding_table(images, embeddings))
    return storage


def test_missing_distances_are_measured_once(storage: Storage, embeddings: np.ndarray) -> None:
    trial = dataclasses.replace(make_trial(), num_matched=2)
    first = provide_distances(storage, {trial.trial_id: trial})[trial.trial_id]
    assert set(first) == set(DEFINITIONS)
    table = storage.read_table(f"trials/{trial.trial_id}/category_distances.parquet")
    kept = table["image_id"].to_pylist()
    assert table["category"].to_pylist() == ["ant", "ant", "cat", "cat", "dog", "dog"]
    expected = pdist(embeddings[kept].astype(float))
    assert first["euclidean_pairs"]["value"] == pytest.approx(expected.sum())
    assert first["euclidean_pairs"]["mean"] == pytest.approx(expected.mean())

    storage.delete(f"trials/{trial.trial_id}/embeddings.parquet")
    assert provide_distances(storage, {trial.trial_id: trial}) == {trial.trial_id: first}


def test_distances_of_another_version_are_measured_again(storage: Storage) -> None:
    trial = make_trial()
    path = f"trials/{trial.trial_id}/distances.json"
    old = {"version": DISTANCES_VERSION - 1, "definitions": {}}
    storage.write_json(path, old)
    found = provide_distances(storage, {trial.trial_id: trial})
    assert set(found[trial.trial_id]) == set(DEFINITIONS)
    assert storage.read_json(path)["version"] == DISTANCES_VERSION


def test_distances_to_categories_are_means_over_other_images(
    tmp_path: Path, embeddings: np.ndarray
) -> None:
    storage, trial = Storage(str(tmp_path)), dataclasses.replace(make_trial(), num_matched=2)
    images = pa.table({"image_id": range(6), "category": CATEGORIES[:6]})
    write_distances(storage, trial, images, embeddings[:6])
    found, targets = read_category_distances(storage, trial.trial_id)
    matrix = cdist(embeddings[:6], embeddings[:6]).reshape(6, 3, 2)
    expected = matrix.mean(axis=2)
    expected[np.arange(6), targets] = matrix.sum(axis=2)[np.arange(6), targets]
    assert targets.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_only_image_has_no_distance_to_its_own_category(
    tmp_path: Path, embeddings: np.ndarray
) -> None:
    storage, trial = Storage(str(tmp_path)), dataclasses.replace(make_trial(), num_matched=1)
    images = pa.table({"image_id": range(3), "category": ["ant", "cat", "dog"]})
    write_distances(storage, trial, images, embeddings[:3])
    found, _ = read_category_distances(storage, trial.trial_id)
    np.testing.assert_array_equal(np.isnan(found), np.eye(3, dtype=bool))
