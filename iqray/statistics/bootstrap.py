"""Hierarchical bootstrap of mean ranks, from accuracies and distances of finished cells.

Clusters are drawn with replacement, then the architectures of each drawn cluster, then the seeds of
each drawn architecture; values are averaged over the drawn seeds and ranked anew. Categories and
images are not drawn here but by `iqray.statistics.image_bootstrap`. Pure.

Drawing clusters one by one takes them for independent. Metrics of a dataset rank the same
categories; the more they agree, the more these intervals are too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

FloatArray = NDArray[np.float64]

NUM_DRAWS = 4000

INTERVAL = (2.5, 97.5)  # percentiles
# Equal values summed in another order differ in the sixteenth digit: still a tie.
_TIE_DECIMALS = 9


@dataclass(frozen=True)
class RankIntervals:
    """Mean ranks of the subsets with intervals of 95 % (`bound_ranks`).

    Attributes:
        mean_ranks: `(num_subsets,)`, over architectures within a cluster, then over clusters.
        low, high: `(num_subsets,)`.
    """

    mean_ranks: FloatArray
    low: FloatArray
    high: FloatArray


def bootstrap_ranks(
    clusters: Sequence[FloatArray], seed: int, num_draws: int = NUM_DRAWS
) -> RankIntervals:
    """Intervals of mean ranks.

    Args:
        clusters: of each cluster, the values `(num_architectures, num_seeds, num_subsets)`, higher
            is better, finite; the number of architectures may differ. At least two clusters: one
            cluster tells nothing about the next.
        seed: of the draws.
        num_draws: more narrow the error of the interval, not the interval.

    Intervals of few clusters are too narrow: the percentile bootstrap of n clusters lacks a factor
    of about `sqrt(n / (n - 1))` in width (Davison and Hinkley, 1997, section 2.5).
    """
    generator = np.random.default_rng(seed)
    ranks = np.array([rank_draws(cluster.mean(axis=1)).mean(axis=0) for cluster in clusters])
    num_clusters = len(clusters)
    drawn = np.array([_draw_inside(cluster, num_draws, generator) for cluster in clusters])
    # Every place takes a random one of its cluster's inner draws, so that a cluster that is drawn
    # twice has other architectures and seeds each time.
    chosen = generator.integers(num_clusters, size=(num_draws, num_clusters))
    rows = generator.integers(num_draws, size=(num_draws, num_clusters))
    means = drawn[chosen, rows].mean(axis=1)
    mean_ranks = ranks.mean(axis=0)
    return RankIntervals(mean_ranks, *bound_ranks(means, mean_ranks))


def bound_ranks(draws: FloatArray, ranks: FloatArray) -> tuple[FloatArray, FloatArray]:
    """95 % intervals of ranks from drawn ranks, recentred on those that were measured.

    Drawn values have the noise of the measured ones twice, and noise pulls ranks to the middle: of
    a subset that leads almost everywhere, every drawn mean rank can be worse than the measured one,
    and their percentiles a 95 % interval without the number beside it. So draws give the spread
    only: they are shifted until their median is the measured rank, then clipped to possible ranks.
    The bias that the shift removes is not subtracted a second time, as the basic bootstrap would,
    since bias estimates are too noisy for it (Efron and Tibshirani, 1993, section 10.6).

    What such an interval covers is the mean rank that studies of this size have on average; ranks
    of values without noise are more extreme. In simulations of 48 combinations it covered that mean
    in 79 to 100 % of studies, unshifted percentiles in 14 to 100 %.

    Args:
        draws: `(num_draws, num_subsets)`, drawn ranks or means of them.
        ranks: `(num_subsets,)`, as measured.

    Returns:
        Low and high, `(num_subsets,)` in `[1, num_subsets]`; the measured rank lies between.
    """
    shifted = draws - np.median(draws, axis=0) + ranks
    low, high = np.percentile(np.clip(shifted, 1, len(ranks)), INTERVAL, axis=0)
    return low, high


def _draw_inside(cluster: FloatArray, num_draws: int, generator: np.random.Generator) -> FloatArray:
    """Mean ranks `(num_draws, num_subsets)` of drawn architectures and seeds of one cluster."""
    num_architectures, num_seeds, _ = cluster.shape
    size = (num_draws, num_architectures)
    architectures = generator.integers(num_architectures, size=size)
    seeds = generator.integers(num_seeds, size=(*size, num_seeds))
    values = cluster[architectures[..., None], seeds].mean(axis=2)
    return rank_draws(values).mean(axis=1)


def rank_draws(values: FloatArray) -> FloatArray:
    """Ranks along the last axis, 1 for the highest value; ties share the average rank."""
    scale = np.abs(values).max(axis=-1, keepdims=True)
    relative = np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)
    return rankdata(-np.round(relative, _TIE_DECIMALS), axis=-1)
