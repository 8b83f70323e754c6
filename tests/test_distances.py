"""Every definition of distance against scipy and scikit-learn, and the laws that it obeys."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances

from iqray.results.distances import (
    DEFINITIONS,
    EXTENTS,
    GEOMETRIES,
    PARTICIPATION_RATIO,
    measure_space,
)

CATEGORIES = np.repeat(["yak", "ant", "bee"], 8)


@pytest.fixture
def embeddings():
    """Three clouds off the origin, as activations are."""
    generator = np.random.default_rng(5)
    return generator.normal(2, 1, size=(24, 7)) + np.repeat(generator.normal(size=(3, 7)), 8, 0)


def measure_plainly(vectors, categories, geometry):
    """Sums over pairs of whole distance matrices, as scikit-learn makes them."""
    names = np.unique(categories)
    centroids = np.stack([vectors[categories == name].mean(axis=0) for name in names])
    kind = "euclidean" if geometry == "norm_scaled" else geometry
    matrix = pairwise_distances(vectors, metric=kind)
    is_same = categories[:, None] == categories[None, :]
    scale = np.linalg.norm(vectors, axis=1).mean() if geometry == "norm_scaled" else 1
    sums = {
        "pairs": matrix.sum() / 2,
        "within": matrix[is_same].sum() / 2,
        "between": matrix[~is_same].sum() / 2,
        "centroids": pdist(centroids, kind).sum(),
    }
    return {extent: value / scale for extent, value in sums.items()}


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_sums_equal_those_of_whole_matrices(embeddings, geometry):
    space = measure_space(embeddings, CATEGORIES)
    expected = measure_plainly(embeddings, CATEGORIES, geometry)
    for extent in EXTENTS:
        assert space.totals[f"{geometry}_{extent}"] == pytest.approx(expected[extent], rel=1e-9)


def test_sums_cross_block_borders():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(1500, 4)).astype(np.float32)
    categories = generator.choice(list("abcde"), 1500)
    space = measure_space(vectors, categories)
    expected = measure_plainly(vectors.astype(float), categories, "euclidean")
    for extent in EXTENTS:
        assert space.totals[f"euclidean_{extent}"] == pytest.approx(expected[extent], rel=1e-6)
    distances = pairwise_distances(vectors.astype(float))
    by_category = np.stack([distances[:, categories == name].sum(axis=1) for name in "abcde"], 1)
    np.testing.assert_allclose(space.category_sums, by_category, rtol=1e-6)


def test_means_are_over_the_pairs_of_each_extent(embeddings):
    space = measure_space(embeddings, CATEGORIES)
    counts = {name: space.num_pairs[f"cosine_{name}"] for name in EXTENTS}
    assert counts == {"pairs": 276, "centroids": 3, "within": 84, "between": 192}
    assert space.means["cosine_pairs"] == pytest.approx(pdist(embeddings, "cosine").mean())
    assert np.isnan(space.means[PARTICIPATION_RATIO])


def test_participation_ratio_is_that_of_pca(embeddings):
    variances = PCA().fit(embeddings).explained_variance_
    found = measure_space(embeddings, CATEGORIES).totals[PARTICIPATION_RATIO]
    assert found == pytest.approx(variances.sum() ** 2 / (variances**2).sum())


def test_participation_ratio_counts_filled_directions():
    generator = np.random.default_rng(1)
    ball = generator.normal(size=(4000, 5))
    line = generator.normal(size=(40, 1)) @ generator.normal(size=(1, 5))
    ratios = [
        measure_space(vectors, ["a"] * len(vectors)).totals[PARTICIPATION_RATIO]
        for vectors in (ball, line)
    ]
    assert ratios == pytest.approx([5, 1], abs=0.05)


def test_what_a_change_of_scale_changes(embeddings):
    """Only Euclidean sums follow the activations' scale."""
    before = measure_space(embeddings, CATEGORIES).totals
    after = measure_space(3 * embeddings, CATEGORIES).totals
    for name in DEFINITIONS:
        factor = 3 if name.startswith("euclidean") else 1
        assert after[name] == pytest.approx(factor * before[name], rel=1e-9)


def test_angles_of_nearly_parallel_embeddings_do_not_cancel():
    vectors = 1 + 1e-6 * np.random.default_rng(2).normal(size=(30, 6))
    found = measure_space(vectors, ["a"] * 30).totals["cosine_pairs"]
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = pdist(units, "sqeuclidean").sum() / 2  # |a - b|^2 / 2 = 1 - a.b for unit vectors
    assert found == pytest.approx(expected, rel=1e-6)


def test_an_embedding_without_direction_leaves_lengths_alone(embeddings):
    embeddings[3] = 0
    totals = measure_space(embeddings, CATEGORIES).totals
    undefined = {name for name, value in totals.items() if np.isnan(value)}
    names = ("pairs", "within", "between")
    assert undefined == {f"{kind}_{name}" for kind in ("cosine", "correlation") for name in names}
    embeddings[3] = 0.1
    totals = measure_space(embeddings, CATEGORIES).totals
    assert np.isnan(totals["correlation_pairs"])
    assert totals["cosine_pairs"] > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_has_no_distance(embeddings, bad):
    embeddings[0, 0] = bad
    space = measure_space(embeddings, CATEGORIES)
    assert all(np.isnan(value) for value in space.totals.values())


def test_equal_embeddings_cover_nothing():
    totals = measure_space(np.full((6, 4), 0.5), list("aabbcc")).totals
    assert np.isnan(totals.pop(PARTICIPATION_RATIO))
    correlation = {totals.pop(f"correlation_{extent}") for extent in EXTENTS}
    assert all(np.isnan(value) for value in correlation)
    assert list(totals.values()) == [0] * 12
