"""An RDM made in pieces is the one that scipy makes whole."""

import tracemalloc
from itertools import islice

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from iqray.rdms.blocks import iterate_rdm

MEASURES = ("euclidean", "cosine", "correlation")


def join(vectors, measure):
    return np.concatenate(list(iterate_rdm(vectors, measure)))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("num_conditions", [2, 37, 2500])
def test_pieces_joined_equal_scipy(measure, num_conditions):
    vectors = np.random.default_rng(num_conditions).normal(size=(num_conditions, 6))
    vectors = vectors.astype(np.float32)
    expected = pdist(vectors.astype(np.float64), measure)
    np.testing.assert_allclose(join(vectors, measure), expected, rtol=1e-6, atol=1e-7)


def test_a_piece_has_whole_rows_and_no_more_values_than_it_may():
    pieces = [len(piece) for piece in iterate_rdm(np.zeros((2500, 1)), "euclidean")]
    num_rows = 4 * 2**20 // 2500
    later = [2499 - row for row in range(2500)]
    assert pieces == [sum(later[:num_rows]), sum(later[num_rows:])]


@pytest.mark.parametrize("measure", MEASURES)
def test_one_vector_that_is_not_finite_spoils_its_own_pairs_only(measure):
    vectors = np.random.default_rng(1).normal(size=(6, 4))
    clean = join(vectors, measure)
    vectors[0, 2] = np.inf
    found = join(vectors, measure)
    assert np.isnan(found[:5]).all()
    np.testing.assert_allclose(found[5:], clean[5:], rtol=1e-5)


def test_far_from_the_origin_distances_stay_precise():
    vectors = np.random.default_rng(2).normal(size=(20, 8))
    shifted = join(vectors + 1e4, "euclidean")
    np.testing.assert_allclose(shifted, join(vectors, "euclidean"), rtol=1e-5)


def test_angles_do_not_see_length_nor_correlation_an_offset():
    vectors = np.random.default_rng(3).normal(size=(9, 5))
    np.testing.assert_allclose(join(3 * vectors, "cosine"), join(vectors, "cosine"), atol=1e-6)
    moved = 2 * vectors + np.arange(9)[:, None]
    np.testing.assert_allclose(join(moved, "correlation"), join(vectors, "correlation"), atol=1e-6)


@pytest.mark.parametrize(("measure", "value"), [("cosine", 0.0), ("correlation", 0.3)])
def test_a_vector_without_direction_has_no_dissimilarity(measure, value):
    vectors = np.random.default_rng(4).normal(size=(4, 7)).astype(np.float32)
    vectors[0] = value
    found = join(vectors, measure)
    assert np.isnan(found[:3]).all()
    assert np.isfinite(found[3:]).all()


def test_memory_does_not_hold_all_pairs():
    vectors = np.zeros((12_000, 2), np.float32)
    tracemalloc.start()
    first = list(islice(iterate_rdm(vectors, "euclidean"), 3))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(map(len, first)) > 12_000 * 1000
    assert peak < 12_000**2 * 4 / 2  # the condensed form alone is 288 MB
