"""Distances hold against scipy, plain loops and the laws that any distance obeys."""

import math
import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import special_ortho_group

from iqray.rdms.rdm import (
    compute_centroids,
    compute_rdm,
    compute_total_distance,
    embed_mds,
    match_counts,
)


@pytest.fixture
def embeddings():
    return np.random.default_rng(5).normal(size=(60, 7))


def test_total_distance_of_a_right_triangle():
    assert compute_total_distance([[0, 0], [3, 0], [0, 4]]) == (pytest.approx(12), 3)


@pytest.mark.parametrize("num_images", [2, 1023, 1024, 1025, 2500])
def test_total_distance_equals_scipy_across_block_borders(num_images):
    vectors = np.random.default_rng(num_images).normal(size=(num_images, 5)).astype(np.float32)
    total, num_pairs = compute_total_distance(vectors)
    expected = pdist(vectors.astype(np.float64))
    assert num_pairs == len(expected)
    assert total == pytest.approx(expected.sum(), rel=1e-9)


def test_total_distance_far_from_the_origin(embeddings):
    shifted = 1e6 + 1e-3 * embeddings
    assert compute_total_distance(shifted)[0] == pytest.approx(pdist(shifted).sum(), rel=1e-6)


def test_total_distance_survives_rotation_and_permutation(embeddings):
    total, _ = compute_total_distance(embeddings)
    rotation = special_ortho_group.rvs(7, random_state=1)
    shuffled = np.random.default_rng(2).permutation(embeddings)
    assert compute_total_distance(embeddings @ rotation)[0] == pytest.approx(total, rel=1e-9)
    assert compute_total_distance(shuffled)[0] == pytest.approx(total, rel=1e-9)


def test_total_distance_scales_linearly(embeddings):
    total, _ = compute_total_distance(embeddings)
    assert compute_total_distance(2.5 * embeddings)[0] == pytest.approx(2.5 * total, rel=1e-9)


def test_total_distance_of_equal_embeddings_is_zero():
    total, num_pairs = compute_total_distance(np.full((10, 4), 0.3, dtype=np.float32))
    assert num_pairs == 45
    assert total == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("num_images", [0, 1])
def test_total_distance_without_pairs(num_images):
    assert compute_total_distance(np.ones((num_images, 3))) == (0.0, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_total_distance_is_nan_when_an_embedding_is_not_finite(embeddings, bad):
    embeddings[3, 2] = bad
    total, num_pairs = compute_total_distance(embeddings)
    assert math.isnan(total)
    assert num_pairs == 60 * 59 // 2


def test_total_distance_never_holds_all_pairs():
    vectors = np.random.default_rng(0).normal(size=(6000, 4)).astype(np.float32)
    tracemalloc.start()
    compute_total_distance(vectors)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    all_pairs_bytes = 6000 * 6000 * 8
    assert peak < all_pairs_bytes / 5


def test_centroids_follow_alphabetical_categories():
    names, centroids = compute_centroids([[1, 1], [0, 4], [3, 5]], ["yak", "ant", "yak"])
    assert names == ["ant", "yak"]
    np.testing.assert_array_equal(centroids, [[0, 4], [2, 3]])


def test_rdm_equals_a_double_loop(embeddings):
    rdm = compute_rdm(embeddings)
    looped = [[math.dist(left, right) for right in embeddings] for left in embeddings]
    np.testing.assert_allclose(rdm, looped, rtol=1e-12)
    np.testing.assert_array_equal(rdm, rdm.T)
    np.testing.assert_array_equal(np.diag(rdm), 0)


def test_mds_recovers_points_of_a_plane():
    points = np.random.default_rng(3).normal(size=(10, 2)) * 50
    rdm = compute_rdm(points)
    coordinates, stress = embed_mds(rdm, seed=0)
    assert stress < 1e-3
    np.testing.assert_allclose(compute_rdm(coordinates), rdm, rtol=0.02, atol=0.1)


def test_mds_stress_follows_its_definition(embeddings):
    rdm = compute_rdm(embeddings[:10])
    coordinates, stress = embed_mds(rdm, seed=0)
    fitted = compute_rdm(coordinates)
    assert 0.05 < stress < 0.5
    assert stress == pytest.approx(math.sqrt(((fitted - rdm) ** 2).sum() / (fitted**2).sum()))


def test_mds_does_not_depend_on_the_unit_of_distance(embeddings):
    rdm = compute_rdm(embeddings[:10])
    coordinates, stress = embed_mds(rdm, seed=4)
    scaled_coordinates, scaled_stress = embed_mds(1000 * rdm, seed=4)
    assert scaled_stress == pytest.approx(stress, rel=1e-6)
    np.testing.assert_allclose(scaled_coordinates, 1000 * coordinates, rtol=1e-3, atol=1e-3)


def test_mds_of_a_collapsed_space_is_one_point():
    coordinates, stress = embed_mds(np.zeros((4, 4)), seed=0)
    np.testing.assert_array_equal(coordinates, np.zeros((4, 2)))
    assert stress == 0


def test_match_counts_takes_the_smallest_count_of_every_category():
    categories = ["a"] * 7 + ["b"] * 3 + ["c"] * 5
    picked = match_counts(categories, seed=1)
    assert [categories[index] for index in picked] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert len(set(picked)) == 9
    np.testing.assert_array_equal(picked, match_counts(categories, seed=1))
    assert not np.array_equal(picked, match_counts(categories, seed=2))


def test_match_counts_keeps_all_when_counts_are_equal():
    np.testing.assert_array_equal(match_counts(["b", "a", "b", "a"], seed=9), [0, 1, 2, 3])


def test_match_counts_of_nothing_is_empty():
    assert len(match_counts([], seed=0)) == 0
