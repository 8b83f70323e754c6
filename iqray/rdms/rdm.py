"""Distances between embeddings: total distance, category centroids, RDM and its MDS picture.

Reads arrays of embeddings, one row per test image, and returns arrays. All distances are
Euclidean, computed in float64. Knows neither Ray nor the disk.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import smacof

FloatArray = NDArray[np.float64]

# Rows compared at a time: two blocks of 1024 x 4096 float64 and their 1024 x 1024 distances take
# 80 MB, and matrix products of this size already run at full speed.
_BLOCK_ROWS = 1024

# SMACOF finds local minima only; the best of eight random starts is stable for ten categories.
_NUM_STARTS = 8


def compute_total_distance(embeddings: ArrayLike) -> tuple[float, int]:
    """Sum the Euclidean distances over all unordered pairs of embeddings.

    Args:
        embeddings: `(num_images, dim)`, any float type. Zero or one image has no pairs.

    Returns:
        The sum and the number of pairs, `num_images * (num_images - 1) / 2`. A NaN or an infinity
        in any embedding makes the sum NaN. The sum grows with the number of images: compare it
        at equal counts only (`match_counts`), or divide by the pairs.

    """
    vectors = np.asarray(embeddings)
    num_images = len(vectors)
    num_pairs = num_images * (num_images - 1) // 2
    if num_pairs == 0:
        return 0.0, 0
    if not np.isfinite(vectors).all():
        return math.nan, num_pairs
    blocks = iterate_pairs(vectors)
    # A block with itself has every pair twice.
    return math.fsum(
        block.distances.sum() / (2 if block.is_diagonal else 1) for block in blocks
    ), num_pairs


class PairBlock(NamedTuple):
    """Some embeddings against some others, or against themselves.

    Attributes:
        rows, columns: which embeddings.
        products: inner products of the centred embeddings, (rows, columns) float64.
        distances: Euclidean, of the same shape; exactly 0 from an embedding to itself.
        is_diagonal: rows and columns are the same embeddings.
    """

    rows: slice
    columns: slice
    products: FloatArray
    distances: FloatArray
    is_diagonal: bool


def iterate_pairs(vectors: NDArray) -> Iterator[PairBlock]:
    """Go through all pairs of embeddings in blocks; no pair comes in two blocks.

    Args:
        vectors: `(num_images, dim)`, finite.

    Squared distances come from `|a|^2 + |b|^2 - 2 a.b` after the mean embedding is subtracted,
    which leaves distances unchanged and keeps the rounding error of one pair below about 1e-7 of
    the spread, also when all embeddings lie far from the origin.
    """
    centre = vectors.mean(axis=0, dtype=np.float64)
    slices = [slice(start, start + _BLOCK_ROWS) for start in range(0, len(vectors), _BLOCK_ROWS)]
    for position, rows in enumerate(slices):
        left = vectors[rows] - centre
        for columns in slices[position:]:
            is_diagonal = columns == rows
            right = left if is_diagonal else vectors[columns] - centre
            products = left @ right.T
            distances = _compute_distances(left, right, products)
            if is_diagonal:
                np.fill_diagonal(distances, 0)
            yield PairBlock(rows, columns, products, distances, is_diagonal)


def compute_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    """Euclidean distances of every left vector from every right one, by matrix products.

    Args:
        left: `(num_left, dim)` float64, centred with `right` where they lie far from the origin.
        right: `(num_right, dim)` float64.

    Returns:
        `(num_left, num_right)` float64.
    """
    return _compute_distances(left, right, left @ right.T)


def _compute_distances(left: FloatArray, right: FloatArray, products: FloatArray) -> FloatArray:
    squared = -2 * products
    squared += np.einsum("ij,ij->i", left, left)[:, None]
    squared += np.einsum("ij,ij->i", right, right)[None, :]
    # Rounding can leave a tiny negative number where two embeddings are equal.
    np.maximum(squared, 0, out=squared)
    return np.sqrt(squared, out=squared)


def compute_centroids(
    embeddings: ArrayLike, categories: Sequence[str]
) -> tuple[list[str], FloatArray]:
    """Average the embeddings of each category.

    Args:
        embeddings: `(num_images, dim)`.
        categories: the category of each row.

    Returns:
        The category names in alphabetical order, and their centroids `(num_categories, dim)`
        float64. A NaN in an embedding stays in its category's centroid.
    """
    vectors = np.asarray(embeddings)
    names, inverse = np.unique(np.asarray(categories, dtype=str), return_inverse=True)
    centroids = [
        vectors[inverse == index].mean(axis=0, dtype=np.float64) for index in range(len(names))
    ]
    return names.tolist(), np.stack(centroids)


def compute_rdm(vectors: ArrayLike) -> FloatArray:
    """Compute the representational dissimilarity matrix of a few vectors.

    Args:
        vectors: `(C, dim)`, usually category centroids; C in the thousands at most, as the matrix
            is held whole.

    Returns:
        `(C, C)` float64 Euclidean distances, symmetric, zero on the diagonal. A NaN in a vector
        makes its row and column NaN off the diagonal.
    """
    return squareform(pdist(np.asarray(vectors, dtype=np.float64)))


def embed_mds(rdm: ArrayLike, seed: int) -> tuple[FloatArray, float]:
    """Place categories in the plane so that distances follow the RDM: metric SMACOF.

    Args:
        rdm: `(C, C)`, symmetric with a zero diagonal, finite.
        seed: of the random starts; the same seed gives the same picture.

    Returns:
        Coordinates `(C, 2)` float64, whose axes and rotation mean nothing, and stress-1 in [0, 1]:
        `sqrt(sum (d - delta)^2 / sum d^2)` over pairs, where `delta` is the RDM and `d` the
        distance in the plane (Kruskal 1964). 0 is perfect; Kruskal calls 0.1 fair and 0.2 poor.
        When all dissimilarities are zero, all coordinates and the stress are zero.

    Raises:
        ValueError: the RDM is not finite or not symmetric.
    """
    dissimilarities = np.asarray(rdm, dtype=np.float64)
    scale = float(dissimilarities.max(initial=0.0))
    if scale == 0:
        return np.zeros((len(dissimilarities), 2)), 0.0
    # SMACOF stops at an absolute change of stress, so the RDM is brought to one scale first.
    coordinates, _ = smacof(
        dissimilarities / scale,
        n_components=2,
        n_init=_NUM_STARTS,
        max_iter=1000,
        eps=1e-9,
        random_state=seed,
        normalized_stress=False,
    )
    coordinates = coordinates * scale
    return coordinates, _compute_stress(dissimilarities, coordinates)


def _compute_stress(dissimilarities: FloatArray, coordinates: FloatArray) -> float:
    fitted = pdist(coordinates)
    wanted = squareform(dissimilarities, checks=False)
    return float(np.sqrt(np.sum((fitted - wanted) ** 2) / np.sum(fitted**2)))


def match_counts(
    categories: Sequence[str], seed: int, count: int | None = None
) -> NDArray[np.int64]:
    """Pick the same number of images from every category.

    Args:
        categories: the category of each image.
        seed: of the random pick; the same seed and categories give the same pick.
        count: images per category, at most as many as the smallest category has; none for that.

    Returns:
        Indices of the picked images, ascending; all of them when the counts are equal already.
    """
    names, inverse, counts = np.unique(
        np.asarray(categories, dtype=str), return_inverse=True, return_counts=True
    )
    generator = np.random.default_rng(seed)
    picks = [
        generator.choice(
            np.flatnonzero(inverse == index), size=count or counts.min(), replace=False
        )
        for index in range(len(names))
    ]
    return np.sort(np.concatenate(picks)) if picks else np.empty(0, dtype=np.int64)
