"""How much space embeddings cover, by every definition that the paper's words allow.

Reads embeddings at matched image counts with their categories, and returns numbers. Pure.

A definition is a geometry and what it is taken over, such as `euclidean_pairs`, the paper's, or it
is `participation_ratio`. Geometries:

- euclidean: the length of the difference.
- norm_scaled: euclidean, divided by the mean length of the embeddings: a network whose activations
  are twice as large does not cover more.
- cosine: 1 - cos of the angle between two embeddings, in [0, 2].
- correlation: 1 - Pearson's correlation of their entries, in [0, 2].

Taken over:

- pairs: all pairs of images.
- within, between: pairs of images of one category, and of two; together they are all pairs.
- centroids: pairs of categories, each of which is its mean embedding.

The participation ratio, `(sum l)^2 / sum l^2` over the eigenvalues l of the embeddings' covariance,
is the number of directions that they fill (Gao et al. 2017): 1 on a line, dim in a ball.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqray.rdms.rdm import compute_centroids, compute_total_distance, iterate_pairs

FloatArray = NDArray[np.float64]

GEOMETRIES = ("euclidean", "norm_scaled", "cosine", "correlation")
EXTENTS = ("pairs", "centroids", "within", "between")
PARTICIPATION_RATIO = "participation_ratio"
DEFINITIONS = (
    *(f"{geometry}_{extent}" for geometry in GEOMETRIES for extent in EXTENTS),
    PARTICIPATION_RATIO,
)

# What the paper's "total distance covered" is taken to be.
PAPER_DEFINITION = "euclidean_pairs"


@dataclass(frozen=True)
class CoveredSpace:
    """What embeddings cover.

    Attributes:
        totals: by definition the sum over its pairs, or the participation ratio. NaN where it is
            not defined: an embedding is not finite, or has no direction (cosine, correlation), or
            all are equal (participation ratio).
        num_pairs: by definition; 0 of the participation ratio.
        category_sums: `(num_images, num_categories)`, sum of the Euclidean distances from an image
            to all others of a category; categories in alphabetical order.
    """

    totals: dict[str, float]
    num_pairs: dict[str, int]
    category_sums: FloatArray

    @property
    def means(self) -> dict[str, float]:
        """By definition the mean over its pairs; NaN without pairs."""
        return {
            name: self.totals[name] / num if num else np.nan for name, num in self.num_pairs.items()
        }


def measure_space(embeddings: ArrayLike, categories: Sequence[str]) -> CoveredSpace:
    """Measure embeddings by every definition.

    Args:
        embeddings: `(num_images, dim)`, any float type, of at least one image.
        categories: of each image. Give equally many images of each (`rdm.match_counts`): all but
            the centroids' numbers grow with them.
    """
    vectors = np.asarray(embeddings)
    names, targets = np.unique(np.asarray(categories, dtype=str), return_inverse=True)
    counts = np.bincount(targets)
    num_pairs = _count_pairs(counts)
    if not np.isfinite(vectors).all():
        sums = np.full((len(vectors), len(names)), np.nan)
        return CoveredSpace(dict.fromkeys(DEFINITIONS, np.nan), num_pairs, sums)
    sums, participation_ratio = _walk_pairs(vectors, targets, len(names))
    _, centroids = compute_centroids(vectors, categories)
    euclidean = _split_pairs(sums.sum() / 2, sums[np.arange(len(sums)), targets].sum() / 2)
    euclidean["centroids"] = compute_total_distance(centroids)[0]
    mean_norm = np.linalg.norm(vectors, axis=1).mean(dtype=np.float64)
    by_geometry = {
        "euclidean": euclidean,
        "norm_scaled": {
            extent: value / mean_norm if mean_norm > 0 else np.nan
            for extent, value in euclidean.items()
        },
        "cosine": _sum_angles(vectors, centroids, targets),
        "correlation": _sum_angles(_subtract_means(vectors), _subtract_means(centroids), targets),
    }
    totals = {
        f"{geometry}_{extent}": float(by_geometry[geometry][extent])
        for geometry in GEOMETRIES
        for extent in EXTENTS
    }
    return CoveredSpace({**totals, PARTICIPATION_RATIO: participation_ratio}, num_pairs, sums)


def _count_pairs(counts: NDArray[np.int64]) -> dict[str, int]:
    def count(num: int) -> int:
        return num * (num - 1) // 2

    pairs, within = count(int(counts.sum())), sum(count(int(num)) for num in counts)
    by_extent = {
        "pairs": pairs,
        "centroids": count(len(counts)),
        "within": within,
        "between": pairs - within,
    }
    named = {f"{name}_{extent}": by_extent[extent] for name in GEOMETRIES for extent in EXTENTS}
    return {**named, PARTICIPATION_RATIO: 0}


def _walk_pairs(
    vectors: NDArray, targets: NDArray[np.intp], num_categories: int
) -> tuple[FloatArray, float]:
    """Sums of distances by image and category, and the participation ratio, in one pass.

    The eigenvalues of the covariance are those of the inner products, up to a factor, so that their
    sum is the trace and the sum of their squares the squared Frobenius norm.
    """
    members = np.eye(num_categories)[targets]
    sums = np.zeros((len(vectors), num_categories))
    trace = squares = 0.0
    for block in iterate_pairs(vectors):
        sums[block.rows] += block.distances @ members[block.columns]
        norm = float(np.einsum("ij,ij->", block.products, block.products))
        if block.is_diagonal:
            trace += float(np.trace(block.products))
            squares += norm
        else:
            sums[block.columns] += block.distances.T @ members[block.rows]
            squares += 2 * norm
    return sums, trace**2 / squares if squares > 0 else np.nan


def _split_pairs(pairs: float, within: float) -> dict[str, float]:
    return {"pairs": pairs, "within": within, "between": pairs - within}


def _sum_angles(
    vectors: NDArray, centroids: FloatArray, targets: NDArray[np.intp]
) -> dict[str, float]:
    """Sums of `1 - cos` by extent; NaN where a vector has no direction."""
    units, centroid_units = _scale_to_unit(vectors), _scale_to_unit(centroids)
    within = sum(_sum_unit_angles(units[targets == index]) for index in range(len(centroids)))
    return {
        **_split_pairs(_sum_unit_angles(units), within),
        "centroids": _sum_unit_angles(centroid_units),
    }


def _sum_unit_angles(units: FloatArray) -> float:
    """Sum of `1 - a.b` over pairs of unit vectors: half their number times their scatter.

    `1 - a.b = |a - b|^2 / 2`, and the squared distances of n vectors sum to n times the squared
    distances from their mean. Nothing cancels, also where all vectors point the same way.
    """
    return len(units) / 2 * float(np.square(units - units.mean(axis=0)).sum())


def _scale_to_unit(vectors: NDArray) -> FloatArray:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.full(vectors.shape, np.nan), where=lengths > 0)


def _subtract_means(vectors: NDArray) -> FloatArray:
    centred = vectors - vectors.mean(axis=1, keepdims=True, dtype=np.float64)
    # A vector of equal entries has no direction; rounding must not give it one.
    is_constant = np.ptp(vectors, axis=1) == 0
    centred[is_constant] = 0
    return np.asarray(centred)
