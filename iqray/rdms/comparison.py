"""How alike RDMs are: Spearman's rho, Kendall's tau-a, cosine; with bootstrap and noise ceiling.

All take condensed RDMs of the same conditions, and weights of the pairs of conditions: a pair of
weight 2 counts as if it were there twice. A bootstrap draw of conditions is such a set of weights,
so that ranks are sorted once for all draws. Pure.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from iqray.compiling import compile_kernel

FloatArray = NDArray[np.float64]

SPEARMAN, TAU_A, COSINE = "spearman", "tau_a", "cosine"

# Weights of pairs held at a time: draws x pairs, 32 MB each of a few arrays.
_BLOCK_VALUES = 4 * 2**20

_INTERVAL = (2.5, 97.5)


def compare_rdms(
    comparison: str, subjects: FloatArray, model: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Compare a model's RDM with each subject's.

    Args:
        comparison: `spearman`, the correlation of ranks, ties sharing their mean rank; `tau_a`,
            concordant less discordant pairs of dissimilarities over all such pairs, so that ties
            count against it; `cosine`, of the angle between the RDMs as vectors.
        subjects: `(num_subjects, num_pairs)`, finite.
        model: `(num_pairs,)`, finite.
        weights: `(num_draws, num_pairs)`, whole numbers from 0 on; none for one draw of ones.

    Returns:
        `(num_draws, num_subjects)` in [-1, 1]; NaN where nothing varies (spearman), where all is 0
        (cosine), or below two pairs (tau_a). Nili et al. (2014), Schütt et al. (2023): tau-a where
        a model predicts ties, which Spearman would reward.
    """
    if weights is None:
        weights = np.ones((1, len(model)))
    with np.errstate(invalid="ignore", divide="ignore"):
        compared = [_COMPARISONS[comparison](subject, model, weights) for subject in subjects]
    return np.stack(compared, axis=1)


def compute_noise_ceiling(comparison: str, subjects: FloatArray) -> tuple[float, float]:
    """Between which bounds the best possible model would lie, given how subjects differ.

    The mean of all subjects' RDMs is compared with each subject's (upper bound, which no single
    RDM is expected to pass), and the mean of the others' with the one left out (lower bound). RDMs
    are averaged after ranking (spearman, tau_a) or division by their root mean square (cosine).
    Nili et al. 2014, A Toolbox for Representational Similarity Analysis, PLOS Computational Biology
    10(4) e1003553. For tau_a the mean of ranks is not the very best RDM, only nearly.

    Args:
        comparison: as for `compare_rdms`.
        subjects: `(num_subjects, num_pairs)`, finite, at least two subjects.

    Returns:
        Lower and upper bound, means over subjects.
    """
    scaled = _scale(comparison, subjects)
    total = scaled.sum(axis=0)
    upper = compare_rdms(comparison, subjects, total)
    lower = [
        compare_rdms(comparison, subjects[[index]], total - scaled[index])
        for index in range(len(subjects))
    ]
    return float(np.mean(lower)), float(np.mean(upper))


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws, the same for every RDM that they are used with.

    Attributes:
        conditions: `(num_draws, num_conditions)`, how often each condition was drawn.
        subjects: `(num_draws, num_subjects)`, how often each subject was; ones for a single one.
    """

    conditions: NDArray[np.int64]
    subjects: NDArray[np.int64]


def draw(num_conditions: int, num_subjects: int, num_draws: int, seed: int) -> Draws:
    """Draw conditions and subjects with replacement, both at once."""
    generator = np.random.default_rng(seed)
    counts = [
        generator.multinomial(number, np.full(number, 1 / number), size=num_draws)
        for number in (num_conditions, num_subjects)
    ]
    return Draws(*counts)


def bootstrap_interval(
    comparison: str, subjects: FloatArray, model: FloatArray, draws: Draws
) -> tuple[float, float]:
    """95 % percentile interval of the mean over subjects of `compare_rdms`.

    Args:
        comparison: as for `compare_rdms`.
        subjects: `(num_subjects, num_pairs)`, finite.
        model: `(num_pairs,)`, finite.
        draws: of these conditions and subjects.

    Returns:
        Low and high end. A pair of a condition with itself, drawn twice, is left out. Draws that
        give no number, as of one condition only, do not count; NaN where no draw gives one. With
        several subjects the interval is somewhat too wide: drawing two factors at once counts the
        noise that they share more than once (Schütt et al. 2023, eLife 12 e82566).
    """
    means = np.concatenate(
        [
            (compare_rdms(comparison, subjects, model, weights) * counts).sum(axis=1)
            for weights, counts in _iterate_weights(draws, len(model))
        ]
    ) / len(subjects)
    if np.isnan(means).all():
        return np.nan, np.nan
    low, high = np.nanpercentile(means, _INTERVAL)
    return float(low), float(high)


def _iterate_weights(
    draws: Draws, num_pairs: int
) -> Iterator[tuple[FloatArray, NDArray[np.int64]]]:
    """Weights of the pairs and counts of the subjects, some draws at a time."""
    first, second = np.triu_indices(draws.conditions.shape[1], k=1)
    step = max(1, _BLOCK_VALUES // num_pairs)
    for start in range(0, len(draws.conditions), step):
        counts = draws.conditions[start : start + step]
        weights = (counts[:, first] * counts[:, second]).astype(np.float64)
        yield weights, draws.subjects[start : start + step]


def _scale(comparison: str, subjects: FloatArray) -> FloatArray:
    """Subjects' RDMs as they are averaged."""
    if comparison == COSINE:
        return np.asarray(subjects / np.sqrt((subjects**2).mean(axis=1, keepdims=True)))
    return np.asarray(rankdata(subjects, axis=1), dtype=np.float64)


def _compare_cosine(left: FloatArray, right: FloatArray, weights: FloatArray) -> FloatArray:
    norms = np.sqrt((weights @ left**2) * (weights @ right**2))
    return np.asarray(weights @ (left * right) / norms)


def _correlate_ranks(left: FloatArray, right: FloatArray, weights: FloatArray) -> FloatArray:
    """Pearson's correlation of the ranks that values have among all that were drawn."""
    total = weights.sum(axis=1, keepdims=True)
    centred = []
    for values in (left, right):
        ranks = _rank(values, weights)
        centred.append(ranks - (weights * ranks).sum(axis=1, keepdims=True) / total)
    one, other = centred
    squares = (weights * one**2).sum(axis=1) * (weights * other**2).sum(axis=1)
    return np.asarray((weights * one * other).sum(axis=1) / np.sqrt(squares))


def _rank(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean ranks `(num_draws, num_pairs)`, each value being there as often as its weight says."""
    order = np.argsort(values, kind="stable")
    is_last = np.append(np.diff(values[order]) != 0, True)  # of its ties
    ends = np.cumsum(weights[:, order], axis=1)[:, is_last]
    starts = np.concatenate([np.zeros((len(weights), 1)), ends[:, :-1]], axis=1)
    ranks = np.empty_like(weights)
    group = np.concatenate([[0], np.cumsum(is_last[:-1])]).astype(np.intp)
    ranks[:, order] = ((starts + ends + 1) / 2)[:, group]
    return ranks


def _count_concordance(left: FloatArray, right: FloatArray, weights: FloatArray) -> FloatArray:
    order = np.argsort(left, kind="stable")
    levels, ranks = np.unique(right[order], return_inverse=True)
    return np.asarray(_compute_tau_a(left[order], ranks, len(levels), weights[:, order]))


@compile_kernel()
def _compute_tau_a(
    left: FloatArray, ranks: NDArray[np.int64], num_ranks: int, weights: FloatArray
) -> FloatArray:
    """Tau-a by a tree of sums over ranks (Fenwick 1994), in num_pairs * log(num_ranks) steps.

    Args:
        left: (num_pairs,) ascending.
        ranks: (num_pairs,) of the other values, from 0, ties equal.
        num_ranks: how many there are.
        weights: (num_draws, num_pairs).
    """
    num_pairs = len(left)
    found = np.empty(len(weights))
    for draw_index in range(len(weights)):
        own = weights[draw_index]
        tree = np.zeros(num_ranks + 1)
        seen, difference, of_itself = 0.0, 0.0, 0.0
        start = 0
        while start < num_pairs:
            end = start + 1
            while end < num_pairs and left[end] == left[start]:
                end += 1
            for index in range(start, end):  # against all of smaller left value
                if own[index] == 0:
                    continue
                below, place = 0.0, ranks[index]
                while place > 0:
                    below += tree[place]
                    place -= place & -place
                up_to, place = 0.0, ranks[index] + 1
                while place > 0:
                    up_to += tree[place]
                    place -= place & -place
                difference += own[index] * (below - (seen - up_to))
            for index in range(start, end):
                place = ranks[index] + 1
                while place <= num_ranks:
                    tree[place] += own[index]
                    place += place & -place
                seen += own[index]
                of_itself += own[index] * own[index]
            start = end
        # Two drawings of one pair of conditions are not two pairs that could be ordered.
        found[draw_index] = difference / ((seen * seen - of_itself) / 2)
    return found


_COMPARISONS: dict[str, Callable[[FloatArray, FloatArray, FloatArray], FloatArray]] = {
    SPEARMAN: _correlate_ranks,
    TAU_A: _count_concordance,
    COSINE: _compare_cosine,
}
COMPARISONS = tuple(_COMPARISONS)
