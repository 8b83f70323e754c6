"""RDMs too large to be held whole, piece by piece in the order of scipy's condensed form. Pure."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqray.rdms.rdm import FloatArray, compute_distances
from iqray.settings.rdm import CORRELATION, EUCLIDEAN

# Distances of one piece; float64, so 32 MB.
_PIECE_VALUES = 4 * 2**20

# Vectors that are float64 at a time: 1024 of 4096 values are 32 MB.
_BLOCK_ROWS = 1024


def iterate_rdm(vectors: ArrayLike, measure: str) -> Iterator[NDArray[np.float32]]:
    """Compute the upper triangle of an RDM, row by row, in pieces of whole rows.

    Besides the vectors, as they are, about 0.2 GB are in memory, however many there are.

    Args:
        vectors: `(num_conditions, dim)`, any float type: embeddings or their means.
        measure: `euclidean`, the distance; `cosine`, 1 minus the cosine of the angle, in [0, 2];
            `correlation`, 1 minus Pearson's correlation over the vectors' values, in [0, 2].

    Yields:
        float32, together `num_conditions * (num_conditions - 1) / 2` values in the order of
        `scipy.spatial.distance.pdist`. NaN where a vector has a NaN or an infinity, and where
        cosine meets a zero vector or correlation a constant one.
    """
    rows = np.asarray(vectors)
    centre = _find_centre(rows)
    num_rows = max(1, _PIECE_VALUES // max(1, len(rows)))
    for start in range(0, len(rows), num_rows):
        block = _prepare(rows[start : start + num_rows], centre, measure)
        distances = np.concatenate(
            [
                compute_distances(block, _prepare(rows[i : i + _BLOCK_ROWS], centre, measure))
                for i in range(start, len(rows), _BLOCK_ROWS)
            ],
            axis=1,
        )
        if measure != EUCLIDEAN:
            distances = distances**2 / 2  # of unit vectors: 1 minus their scalar product
        is_later = np.arange(distances.shape[1]) > np.arange(distances.shape[0])[:, None]
        yield distances[is_later].astype(np.float32)


def _find_centre(rows: NDArray) -> FloatArray:
    """Mean of the vectors that are finite: subtracting it keeps Euclidean distances precise."""
    is_finite = np.isfinite(rows).all(axis=1)
    total = rows.sum(axis=0, where=is_finite[:, None], dtype=np.float64)
    return np.asarray(total / max(1, is_finite.sum()))


def _prepare(rows: NDArray, centre: FloatArray, measure: str) -> FloatArray:
    """Vectors, float64, whose Euclidean distances give the measure."""
    prepared = np.where(np.isfinite(rows), rows, np.nan).astype(np.float64)
    if measure == EUCLIDEAN:
        return prepared - centre
    if measure == CORRELATION:
        prepared -= prepared.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(prepared, axis=1, keepdims=True)
    # A constant vector less its mean is zero but for rounding, which has no direction.
    norms[norms <= 1e-12 * np.abs(rows).max(axis=1, keepdims=True)] = np.nan
    return prepared / norms
