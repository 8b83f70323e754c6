"""Tests of ranks against worked examples, and on planted data: no effect, and an effect."""

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata

from iqray.statistics.rank_tests import (
    adjust_holm,
    permute_datasets,
    permute_labels,
    run_friedman,
    run_nemenyi,
)

# Ranks of four classifiers on 14 data sets, from table 6 of Demsar (2006), Journal of Machine
# Learning Research 7, 1-30. Its text gives the mean ranks, chi-squared 9.28 and CD 1.25.
DEMSAR = np.array(
    [
        [4, 3, 2, 1],
        [1, 2, 3, 4],
        [4, 1, 2, 3],
        [4, 1, 3, 2],
        [4, 2, 3, 1],
        [1, 2.5, 4, 2.5],
        [3, 2, 4, 1],
        [2.5, 2.5, 4, 1],
        [4, 3, 2, 1],
        [2.5, 2.5, 2.5, 2.5],
        [4, 2.5, 1, 2.5],
        [3, 2, 4, 1],
        [4, 1, 2, 3],
        [3, 1, 4, 2],
    ]
)
# He does not correct for ties; the correction divides by this (three pairs and a tie of four).
TIE_CORRECTION = 1 - (3 * 6 + 60) / (14 * 4 * 15)


def draw_ranks(generator, num_units, effect=0.0, num_subsets=4):
    """Ranks in which the first subset is better by `effect` standard deviations."""
    values = generator.normal(size=(num_units, num_subsets))
    values[:, 0] += effect
    return rankdata(-values, axis=1)


def draw_clusters(generator, num_clusters, effect=0.0, num_architectures=4):
    """Mean ranks of clusters whose architectures all but repeat each other."""
    shared = generator.normal(size=(num_clusters, 1, 4))
    values = shared + generator.normal(0, 0.3, size=(num_clusters, num_architectures, 4))
    values[..., 0] += effect
    return rankdata(-values, axis=-1)


def test_friedman_of_the_worked_example():
    result = run_friedman(DEMSAR)
    np.testing.assert_allclose(DEMSAR.mean(axis=0), [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    assert result.statistic * TIE_CORRECTION == pytest.approx(9.28, abs=0.005)
    assert result.kendall_w == pytest.approx(result.statistic / 42)
    assert 0.01 < result.p_value < 0.02


def test_friedman_at_its_limits():
    agreed = run_friedman(np.tile([1.0, 2, 3, 4], (5, 1)))
    assert agreed.kendall_w == pytest.approx(1)
    assert np.isnan(run_friedman(np.full((5, 4), 2.5)).p_value)


@pytest.mark.parametrize(("num_units", "expected"), [(48, 0.677), (24, 0.957), (14, 1.25)])
def test_critical_differences_of_the_table(num_units, expected):
    """q of 2.569 for four subsets at 0.05: table 5a of Demsar (2006)."""
    ranks = np.resize(DEMSAR, (num_units, 4))
    assert run_nemenyi(ranks).critical_difference == pytest.approx(expected, abs=0.006)
    assert run_nemenyi(ranks).critical_difference == pytest.approx(
        2.569 * np.sqrt(20 / (6 * num_units)), rel=2e-4
    )


def test_a_pair_at_the_critical_difference_has_p_of_alpha():
    result = run_nemenyi(DEMSAR)
    assert (result.p_values[0, 1] < 0.05) == (result.critical_difference < 1.143)
    at_limit = run_nemenyi(DEMSAR, alpha=result.p_values[0, 1])
    assert at_limit.critical_difference == pytest.approx(result.differences[0, 1], rel=1e-3)
    np.testing.assert_allclose(result.differences, -result.differences.T)
    np.testing.assert_allclose(np.diag(result.p_values), 1)


def test_permutation_p_values_equal_those_of_all_permutations():
    ranks = np.array([[1, 2, 3.5, 3.5], [1.5, 2, 2.75, 3.75]])
    result = permute_labels(ranks, seed=0)
    orders = [list(order) for order in itertools.permutations(range(4))]
    sums = np.array(
        [(ranks[0, a] + ranks[1, b]) / 2 - 2.5 for a, b in itertools.product(orders, orders)]
    )
    exact = np.mean((sums**2).sum(axis=1) >= result.statistic - 1e-9)
    assert result.p_value == pytest.approx(exact, rel=1e-12)
    largest = np.abs(sums).max(axis=1)
    exact_of_each = [np.mean(largest >= abs(value) - 1e-9) for value in result.deviations]
    np.testing.assert_allclose(result.p_values, exact_of_each, rtol=1e-12)
    drawn = permute_labels(ranks, seed=0, num_permutations=23)
    assert drawn.p_value == result.p_value  # all 24 are made
    drawn = permute_labels(np.concatenate([ranks] * 3), seed=0, num_permutations=999)
    assert drawn.smallest_p == 1 / 1000


def test_the_smallest_p_of_few_units():
    """Agreement without a tie: one of 4! orders of each unit beside the first."""
    for num_units, smallest in ((2, 1 / 24), (3, 1 / 576)):
        result = permute_labels(np.tile([1.0, 2, 3, 4], (num_units, 1)), seed=0)
        assert result.smallest_p == pytest.approx(smallest)
        assert result.p_value == pytest.approx(smallest)


def test_architectures_are_permuted_together():
    """Taken one by one, the four architectures of a cluster find effects that are not there."""
    generator = np.random.default_rng(3)
    together, apart = [], []
    for seed in range(300):
        ranks = draw_clusters(generator, num_clusters=6)
        together.append(permute_labels(ranks.mean(axis=1), seed, 199).p_value)
        apart.append(permute_labels(ranks.reshape(-1, 4), seed, 199).p_value)
    assert np.mean(np.array(together) <= 0.05) < 0.09
    assert np.mean(np.array(apart) <= 0.05) > 0.3


@pytest.mark.parametrize(("num_datasets", "expected"), [(2, 0.55), (5, 0.5)])
def test_metrics_of_a_dataset_are_permuted_together(num_datasets, expected):
    """An effect of each dataset's own, that metrics share at a correlation of 0.5."""
    generator = np.random.default_rng(9)
    over_datasets, over_clusters = [], []
    for seed in range(300):
        shared = generator.normal(size=(num_datasets, 1, 4))
        values = shared + generator.normal(size=(num_datasets, 6, 4))
        ranks = rankdata(-values, axis=-1)
        over_datasets.append(permute_labels(ranks.mean(axis=1), seed, 199).p_value)
        over_clusters.append(permute_labels(ranks.reshape(-1, 4), seed, 199).p_value)
    assert np.mean(np.array(over_datasets) <= 0.05) < 0.09
    assert np.mean(np.array(over_clusters) <= 0.05) == pytest.approx(expected, abs=0.12)


@pytest.mark.parametrize("num_clusters", [6, 12])
def test_permutation_rejects_at_its_rate_without_an_effect(num_clusters):
    generator = np.random.default_rng(4)
    results = [
        permute_labels(draw_clusters(generator, num_clusters).mean(axis=1), seed, 199)
        for seed in range(400)
    ]
    omnibus = np.mean([result.p_value <= 0.05 for result in results])
    any_subset = np.mean([result.p_values.min() <= 0.05 for result in results])
    # Three standard errors of 0.05 at 400 simulations are 0.033.
    assert 0.017 < omnibus < 0.083
    assert 0.017 < any_subset < 0.083


def test_planted_effect_is_found():
    generator = np.random.default_rng(5)
    results = [
        permute_labels(draw_clusters(generator, 12, effect=2.0).mean(axis=1), seed, 199)
        for seed in range(50)
    ]
    assert np.mean([result.p_value <= 0.05 for result in results]) > 0.9
    assert np.mean([result.p_values[0] <= 0.05 for result in results]) > 0.9
    assert all(result.deviations[0] < 0 for result in results)


def test_p_values_of_subsets_hold_where_no_subset_differs():
    """A subset that always wins gives the three others, which are alike, alarms beyond 5 %."""
    generator = np.random.default_rng(10)
    values = generator.normal(size=(300, 12, 4))
    found = []
    for effect in (0, 50):
        values[..., 0] += effect
        ranks = rankdata(-values, axis=-1)
        p_values = np.array([permute_labels(own, 0, 199).p_values for own in ranks])
        found.append((p_values[:, 1:] <= 0.05).any(axis=1).mean())
    assert found[0] < 0.08
    assert found[1] > 0.12


def test_friedman_and_nemenyi_on_planted_data():
    generator = np.random.default_rng(6)
    null = [draw_ranks(generator, 24) for _ in range(400)]
    assert 0.017 < np.mean([run_friedman(ranks).p_value <= 0.05 for ranks in null]) < 0.083
    limit = run_nemenyi(null[0]).critical_difference
    spreads = np.array([np.ptp(ranks.mean(axis=0)) for ranks in null])
    assert 0.01 < np.mean(spreads > limit) < 0.083
    planted = run_nemenyi(draw_ranks(generator, 24, effect=2.0))
    assert (planted.p_values[0, 1:] < 0.05).all()
    assert (planted.differences[0, 1:] < 0).all()


def draw_interaction(generator, effect, num_metrics=6, num_datasets=2):
    """Mean ranks of clusters; the first subset is better in the first dataset only."""
    values = generator.normal(size=(num_metrics, num_datasets, 4, 4))
    values[..., 1] += 2  # an effect of the subset is no interaction
    values[:, 0, :, 0] += effect
    return rankdata(-values, axis=-1).mean(axis=2)


def test_interaction_of_dataset_and_subset():
    generator = np.random.default_rng(7)
    null = [permute_datasets(draw_interaction(generator, 0.0), seed=0)[1] for _ in range(400)]
    # Of 64 permutations the smallest p-value is 2 / 64, the only one up to 0.05.
    assert min(null) == pytest.approx(2 / 64)
    assert 0.005 < np.mean(np.array(null) <= 0.05) < 0.057
    found = [permute_datasets(draw_interaction(generator, 3.0), seed=0)[1] for _ in range(50)]
    assert np.mean(np.array(found) <= 0.05) > 0.9


def test_interaction_of_many_datasets_draws_permutations():
    generator = np.random.default_rng(8)
    null = [
        permute_datasets(draw_interaction(generator, 0.0, 5, 4), seed, 199)[1]
        for seed in range(400)
    ]
    assert 0.017 < np.mean(np.array(null) <= 0.05) < 0.083


def test_interaction_equals_a_plain_loop_over_all_permutations():
    ranks = draw_interaction(np.random.default_rng(8), 1.0)
    statistic, p_value = permute_datasets(ranks, seed=0)
    found = []
    for swaps in itertools.product([False, True], repeat=6):
        rows = [pair[::-1] if swap else pair for swap, pair in zip(swaps, ranks, strict=True)]
        means = np.mean(rows, axis=0)
        found.append(((means - means.mean(axis=0)) ** 2).sum())
    assert statistic == pytest.approx(found[0])
    assert p_value == np.mean(np.array(found) >= statistic - 1e-9)
    _, drawn = permute_datasets(ranks, seed=0, num_permutations=63)
    assert drawn != p_value
    assert drawn == pytest.approx(p_value, abs=0.15)


def test_holm_of_a_worked_example():
    """Four p-values adjusted by hand: 0.005 x 4, 0.01 x 3, then 0.03 x 2 for the last two."""
    np.testing.assert_allclose(adjust_holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(adjust_holm([0.9, np.nan, 0.02]), [0.9, np.nan, 0.04])
    np.testing.assert_allclose(adjust_holm([0.6, 0.7]), [1, 1])
    assert adjust_holm([]).shape == (0,)
