"""Intervals of mean ranks: they cover what was planted, and clusters set their width."""

import numpy as np
import pytest

from iqray.statistics.bootstrap import bootstrap_ranks, bound_ranks, rank_draws


def draw_clusters(generator, num_clusters=12, effect=0.0, num_architectures=4, num_seeds=3):
    """Values whose subsets differ by cluster, a little by architecture and by seed."""
    shape = (num_clusters, num_architectures, num_seeds, 4)
    values = generator.normal(size=(num_clusters, 1, 1, 4)) + generator.normal(0, 0.3, size=shape)
    values[..., 0] += effect
    return list(values)


def test_mean_ranks_of_a_worked_example():
    first = np.array([[[4.0, 3, 2, 1], [4, 3, 2, 1.0]]])  # one architecture, two seeds
    second = np.array([[[1.0, 5, 1, 0]], [[0.0, 5, 0, 0]]])  # two architectures, one seed
    found = bootstrap_ranks([first, second], seed=0)
    np.testing.assert_allclose(
        found.mean_ranks, [(1 + 2.75) / 2, (2 + 1) / 2, (3 + 2.75) / 2, (4 + 3.5) / 2]
    )
    assert (found.low <= found.mean_ranks).all()
    assert (found.mean_ranks <= found.high).all()


def test_seeds_are_averaged_before_ranking():
    cluster = np.array([[[1.0, 0.5, 0, 0], [0, 0.75, 0, 0]]])
    assert bootstrap_ranks([cluster, cluster], seed=0).mean_ranks.tolist() == [2, 1, 3.5, 3.5]


def test_agreement_of_everything_leaves_no_width():
    found = bootstrap_ranks([np.tile([4.0, 3, 2, 1], (4, 3, 1))] * 6, seed=0)
    for ranks in (found.mean_ranks, found.low, found.high):
        assert ranks.tolist() == [1, 2, 3, 4]


def test_ties_survive_another_order_of_summation():
    """Thirds and tenths: sums of drawn seeds differ in the last digit only."""
    values = np.array([0.1, 0.2, 0.3])
    cluster = np.stack([values, values * 3 / 3, values + 0.3 - 0.3, values * 0.1 / 0.1], axis=-1)
    found = bootstrap_ranks([cluster[None], cluster[None]], seed=0)
    for ranks in (found.mean_ranks, found.low, found.high):
        assert ranks.tolist() == [2.5] * 4


def test_intervals_cover_at_their_rate():
    """Without an effect every subset has a mean rank of 2.5; 12 clusters lack 4 % of width."""
    generator = np.random.default_rng(1)
    covered = []
    for seed in range(300):
        found = bootstrap_ranks(draw_clusters(generator), seed, num_draws=400)
        covered.append((found.low[0] <= 2.5) & (found.high[0] >= 2.5))
    assert 0.90 < np.mean(covered) < 0.98


def test_a_planted_effect_keeps_the_middle_out():
    generator = np.random.default_rng(2)
    found = [
        bootstrap_ranks(draw_clusters(generator, effect=2.0), seed, num_draws=400)
        for seed in range(30)
    ]
    assert np.mean([result.high[0] < 2.5 for result in found]) > 0.9


def test_more_architectures_of_the_same_clusters_are_no_more_evidence():
    few = draw_clusters(np.random.default_rng(3), num_architectures=2)
    many = [np.tile(cluster, (20, 1, 1)) for cluster in few]
    widths = [
        np.ptp([found.low, found.high], axis=0).mean() for found in map(bootstrap, (few, many))
    ]
    assert widths[1] > 0.75 * widths[0]


def bootstrap(clusters):
    return bootstrap_ranks(clusters, seed=0, num_draws=1000)


def test_uneven_clusters_and_a_single_seed_are_taken():
    generator = np.random.default_rng(4)
    clusters = [generator.normal(size=(count, 1, 4)) for count in (1, 2, 4)]
    found = bootstrap_ranks(clusters, seed=0, num_draws=200)
    assert found.mean_ranks.sum() == pytest.approx(10)
    assert (found.low <= found.high).all()


def draw_means(generator, values, noise, num_draws):
    """Mean ranks over combinations of values that are drawn `num_draws` times."""
    drawn = values + generator.normal(0, noise, size=(num_draws, *values.shape))
    return rank_draws(drawn).mean(axis=1)


@pytest.mark.parametrize("lead", [0.0, 2.0, 3.0])
def test_rank_intervals_cover_what_studies_have_on_average(lead):
    """A study of 48 combinations; a subset leads by so many times the noise of one value."""
    generator = np.random.default_rng(5)
    truth = generator.normal(0, 0.5, size=(48, 4))
    truth[:, 0] += lead
    average = draw_means(generator, truth, 1.0, 2000).mean(axis=0)
    covered, unshifted, inside = [], [], []
    for _ in range(200):
        measured = truth + generator.normal(size=truth.shape)
        ranks = rank_draws(measured).mean(axis=0)
        draws = draw_means(generator, measured, 1.0, 200)
        low, high = bound_ranks(draws, ranks)
        assert (low <= ranks).all()
        assert (ranks <= high).all()
        assert (low >= 1).all()
        assert (high <= 4).all()
        covered.append((low <= average) & (average <= high))
        ends = np.percentile(draws, (2.5, 97.5), axis=0)
        unshifted.append((ends[0] <= average) & (average <= ends[1]))
        inside.append((ends[0] <= ranks) & (ranks <= ends[1]))
    assert np.mean(covered) > 0.82
    assert np.mean(covered, axis=0)[0] > 0.8
    if lead:  # why draws are shifted: unshifted, most leaders lie outside of their own interval
        assert np.mean(inside, axis=0)[0] < 0.5
        assert np.mean(unshifted, axis=0)[0] < 0.6


def test_a_leader_by_seeds_together_lies_in_its_interval():
    """Averaged over seeds the first subset leads everywhere, in single seeds it does not."""
    cluster = np.array([[[3.0, 2, 1, 0], [3, 2, 1, 0], [0, 0.1, 1, 2]]])
    found = bootstrap_ranks([cluster] * 12, seed=0)
    assert found.mean_ranks[0] == 1
    assert found.low[0] == 1
    assert found.high[0] > 1
