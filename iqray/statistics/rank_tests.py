"""Tests of ranks: does any subset rank better than the others, beyond chance?

Reads arrays of ranks, one row per unit (a combination, a cluster of combinations, or a dataset) and
one column per subset; each row sums to the same. Returns numbers. Pure.

Every test takes its units for independent. Clusters of one dataset are only as far as its metrics
are: they rank the same categories, and where the subsets of two metrics overlap, so do the trials.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import friedmanchisquare, rankdata, studentized_range

FloatArray = NDArray[np.float64]

NUM_PERMUTATIONS = 9999


@dataclass(frozen=True)
class FriedmanResult:
    """Friedman's test of no difference between subsets.

    Attributes:
        statistic: chi-squared with `num_subsets - 1` degrees of freedom, corrected for ties.
        p_value: from the chi-squared distribution; rough below about ten units.
        kendall_w: agreement of the units in [0, 1]; 1 where all rank the subsets alike.
    """

    statistic: float
    p_value: float
    kendall_w: float


def run_friedman(values: FloatArray) -> FriedmanResult:
    """Friedman's test with Kendall's W.

    Args:
        values: `(num_units, num_subsets)`, ranked within units, ties sharing the average rank; at
            least two units and three subsets.

    Returns:
        NaN for all three where the subsets tie in every unit.

    Source: Demsar (2006), Journal of Machine Learning Research 7, 1-30; W is the statistic over
    `num_units * (num_subsets - 1)` (Kendall and Babington Smith, 1939).
    """
    num_units, num_subsets = values.shape
    if (values == values[:, :1]).all():
        return FriedmanResult(math.nan, math.nan, math.nan)
    result = friedmanchisquare(*values.T)
    kendall_w = result.statistic / (num_units * (num_subsets - 1))
    return FriedmanResult(float(result.statistic), float(result.pvalue), float(kendall_w))


@dataclass(frozen=True)
class NemenyiResult:
    """Nemenyi's comparison of all pairs of subsets.

    Attributes:
        critical_difference: mean ranks that differ by more differ at `alpha` over all pairs.
        differences: `(num_subsets, num_subsets)`, mean rank of the row minus that of the column.
        p_values: of the same shape, adjusted for all pairs.
    """

    critical_difference: float
    differences: FloatArray
    p_values: FloatArray


def run_nemenyi(values: FloatArray, alpha: float = 0.05) -> NemenyiResult:
    """Nemenyi's test of all pairs after Friedman's.

    Args:
        values: as of `run_friedman`.
        alpha: chance of one false difference or more among all pairs, if the units are independent.

    Source: Demsar (2006), equation of CD: `q * sqrt(k (k + 1) / (6 n))` for k subsets and n units,
    q from the studentized range of infinite degrees of freedom divided by the square root of two.
    """
    num_units, num_subsets = values.shape
    mean_ranks = rankdata(values, axis=1).mean(axis=0)
    error = math.sqrt(num_subsets * (num_subsets + 1) / (12 * num_units))
    limit = studentized_range.ppf(1 - alpha, num_subsets, np.inf)
    differences = mean_ranks[:, None] - mean_ranks[None, :]
    p_values = studentized_range.sf(np.abs(differences) / error, num_subsets, np.inf)
    return NemenyiResult(float(limit * error), differences, np.minimum(p_values, 1.0))


@dataclass(frozen=True)
class PermutationResult:
    """Permutation test of no difference between subsets.

    Attributes:
        statistic: sum over subsets of the squared deviation of the mean rank from the middle.
        p_value: of all subsets at once.
        smallest_p: no p-value of this test can be smaller, whatever the ranks are.
        deviations: `(num_subsets,)`, mean rank minus the middle; negative is better.
        p_values: of each subset, two-sided, adjusted for the number of subsets by comparison with
            the largest deviation of a permutation (Westfall and Young, 1993). That bounds
            the chance of a false alarm only where no subset differs (weak control): once one does,
            the others leave the middle because ranks sum to the same, so that a small p of a second
            subset says nothing of its own.
    """

    statistic: float
    p_value: float
    smallest_p: float
    deviations: FloatArray
    p_values: FloatArray


def permute_labels(
    ranks: FloatArray, seed: int, num_permutations: int = NUM_PERMUTATIONS
) -> PermutationResult:
    """Permute the subsets' labels within each unit: a cluster, or a dataset.

    What a unit holds is permuted together, so `ranks` has its mean: of a cluster over architectures
    and seeds, which share the categories of its subsets; of a dataset over metrics, too.
    Independence is assumed between units only.

    Args:
        ranks: `(num_units, num_subsets)`, mean ranks of a unit; at least two units.
        seed: of the permutations, which are random where there are more than `num_permutations`
            different ones, else all. The first unit keeps its labels, since permuting those of all
            units alike changes no statistic: U units of k subsets have `k! ** (U - 1)`, so that of
            two units and four subsets no p-value is below 1/24.
        num_permutations: the most that are made. Of random ones the labels as they are count as one
            more, so no p-value is below `1 / (num_permutations + 1)` (Phipson and Smyth, 2010).
    """
    num_units, num_subsets = ranks.shape
    centred = ranks - ranks.mean()
    orders = _list_orders(num_units - 1, num_subsets, seed, num_permutations)
    permuted = centred[np.arange(1, num_units)[None, :, None], orders]
    null = (centred[0] + permuted.sum(axis=1)) / num_units
    statistics = (null**2).sum(axis=1)
    largest = np.abs(null).max(axis=1)
    return PermutationResult(
        float(statistics[0]),
        _compute_share(statistics[0], statistics),
        1 / len(orders),
        null[0],
        np.array([_compute_share(abs(deviation), largest) for deviation in null[0]]),
    )


def permute_datasets(
    ranks: FloatArray, seed: int, num_permutations: int = NUM_PERMUTATIONS
) -> tuple[float, float]:
    """Test the interaction of dataset and subset: do the datasets rank the subsets differently?

    The labels of the datasets are permuted within each metric. Rows of ranks sum to the same, so a
    dataset has no effect of its own, and an effect of the subset or of the metric on the subsets is
    the same under every permutation; what is left is the interaction. Restricting permutations to
    the levels of the other factor: Anderson and ter Braak (2003), Journal of Statistical
    Computation and Simulation 73, 85-113.

    Args:
        ranks: `(num_metrics, num_datasets, num_subsets)`, mean ranks of clusters; at least two
            metrics and two datasets.
        seed: of the permutations, which are random where there are more than `num_permutations`
            different ones, else all. Two datasets and M metrics have `2 ** M`, each of which has
            its mirror image, so no p-value is below `2 / 2 ** M`.
        num_permutations: the most that are made.

    Returns:
        The statistic, which is the sum over datasets and subsets of the squared deviation of the
        dataset's mean rank from that over datasets, and its p-value.
    """
    num_metrics, num_datasets, _ = ranks.shape
    centred = ranks - ranks.mean(axis=(0, 1))
    orders = _list_orders(num_metrics, num_datasets, seed, num_permutations)
    relabelled = centred[np.arange(num_metrics)[None, :, None], orders].mean(axis=1)
    statistics = (relabelled**2).sum(axis=(1, 2))
    return float(statistics[0]), _compute_share(statistics[0], statistics)


def _list_orders(num_rows: int, num_labels: int, seed: int, num_permutations: int) -> NDArray:
    """Orders of the labels in every row, `(n, num_rows, num_labels)`; as they are comes first."""
    if math.factorial(num_labels) ** num_rows <= num_permutations:
        each = itertools.permutations(range(num_labels))
        return np.array(list(itertools.product(each, repeat=num_rows)))
    orders = np.tile(np.arange(num_labels), (num_permutations + 1, num_rows, 1))
    orders[1:] = np.random.default_rng(seed).permuted(orders[1:], axis=-1)
    return orders


def _compute_share(statistic: float, null: FloatArray) -> float:
    """Share of the permutations whose statistic is as large, the labels as they are included.

    Values that differ by rounding alone count as equal.
    """
    return float(np.mean(null >= statistic * (1 - 1e-9) - 1e-12))


def adjust_holm(p_values: ArrayLike) -> FloatArray:
    """Adjust p-values of a family of tests by Holm's step-down method.

    Args:
        p_values: `(num_tests,)`, in any order. NaN is a test that was not made: it stays NaN and
            does not count.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted
