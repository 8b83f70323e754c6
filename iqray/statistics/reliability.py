"""Split-half reliability: would other images of the same categories give the same order?

The images of every category are split at random into two halves, each half gives every category a
statistic, and the two orders of the categories are compared. Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

FloatArray = NDArray[np.float64]
Statistic = Callable[[np.ndarray], np.ndarray]

# Percentiles of the middle 95 % of splits.
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Reliability:
    """How well a category order repeats in other images.

    Attributes:
        value: Spearman correlation between halves, averaged over splits; 1 is an order without
            noise, 0 one of noise only. Corrected, it is for as many images again; as it is, for
            half as many.
        low, high: the same at the 2.5th and 97.5th percentile of splits.
    """

    value: float
    low: float
    high: float


def measure_reliability(
    scores: Sequence[np.ndarray],
    statistics: Mapping[str, Statistic],
    num_splits: int,
    seed: int,
    *,
    is_corrected: bool,
) -> dict[str, Reliability]:
    """Split-half reliability of the category order by several statistics, from the same splits.

    Args:
        scores: of each category, `(num_images,)` finite; at least two images each, of statistics
            of spread four, since one image has none. An odd image goes to the second half.
        statistics: by name, a function of `(..., num_images)` that returns `(...)`.
        num_splits: random splits.
        seed: of the splits.
        is_corrected: correct to the whole number of images, which holds for averages only
            (`correct_spearman_brown`).

    Returns:
        By statistic. NaN where a statistic is one value in all categories of a half.
    """
    generator = np.random.default_rng(seed)
    shape = (2, num_splits, len(scores))
    halves = {name: np.empty(shape) for name in statistics}
    for category, values in enumerate(scores):
        shuffled = generator.permuted(np.tile(values, (num_splits, 1)), axis=1)
        middle = len(values) // 2
        for name, compute in statistics.items():
            halves[name][0, :, category] = compute(shuffled[:, :middle])
            halves[name][1, :, category] = compute(shuffled[:, middle:])
    return {name: _summarise(correlate_ranks(*both), is_corrected) for name, both in halves.items()}


def correlate_ranks(first: np.ndarray, second: np.ndarray) -> FloatArray:
    """Spearman correlation of each row of one array with the same row of another.

    Args:
        first: `(num_rows, num_values)`.
        second: of the same shape.

    Returns:
        `(num_rows,)` in [-1, 1]; ties share the average rank. NaN where a row has one value only.
    """
    ranks = [rankdata(values, axis=1) for values in (first, second)]
    centred = [row - row.mean(axis=1, keepdims=True) for row in ranks]
    norms = np.prod([np.sqrt((row**2).sum(axis=1)) for row in centred], axis=0)
    products = (centred[0] * centred[1]).sum(axis=1)
    return np.divide(products, norms, out=np.full(len(norms), np.nan), where=norms > 0)


def correct_spearman_brown(correlation: float) -> float:
    """Reliability of the whole, given the correlation between its halves: `2 r / (1 + r)`.

    Source: Spearman (1910) and Brown (1910), British Journal of Psychology 3. It is derived for a
    whole that is the sum or mean of parallel halves. A range of all images is no mean of the ranges
    of halves: how its noise falls with their number depends on the tails of the scores. It holds
    for r > 0; a negative one says that there is none, so it gives 0. NaN stays NaN.
    """
    return 0.0 if correlation < 0 else 2 * correlation / (1 + correlation)


def _summarise(correlations: FloatArray, is_corrected: bool) -> Reliability:
    low, high = np.percentile(correlations, _INTERVAL)
    parts = (float(correlations.mean()), float(low), float(high))
    return Reliability(*map(correct_spearman_brown, parts) if is_corrected else parts)
