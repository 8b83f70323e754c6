"""Comparisons of RDMs hold against scipy, rsatoolbox, and draws written out."""

import numpy as np
import pytest
import rsatoolbox
from scipy.spatial.distance import squareform
from scipy.stats import kendalltau, spearmanr

from iqray.rdms.comparison import (
    COMPARISONS,
    bootstrap_interval,
    compare_rdms,
    compute_noise_ceiling,
    draw,
)

NAMES = {"spearman": "spearman", "tau_a": "tau-a", "cosine": "cosine"}


@pytest.fixture
def rdms():
    """Six subjects and a model over nine conditions, with ties."""
    generator = np.random.default_rng(3)
    truth = generator.uniform(1, 9, 36)
    subjects = np.round(truth + generator.normal(0, 2, (6, 36)), 1).clip(0)
    return subjects, np.round(truth)


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_equal_to_rsatoolbox(rdms, comparison):
    subjects, model = rdms
    theirs = rsatoolbox.rdm.compare(
        rsatoolbox.rdm.RDMs(model[None]), rsatoolbox.rdm.RDMs(subjects), NAMES[comparison]
    )
    np.testing.assert_allclose(compare_rdms(comparison, subjects, model), theirs, rtol=1e-9)


def test_equal_to_scipy(rdms):
    subjects, model = rdms
    for subject, rho in zip(subjects, compare_rdms("spearman", subjects, model)[0], strict=True):
        assert rho == pytest.approx(spearmanr(subject, model).statistic)
    left, right = np.random.default_rng(0).normal(size=(2, 300))  # without ties tau-a is tau-b
    [[tau]] = compare_rdms("tau_a", left[None], right)
    assert tau == pytest.approx(kendalltau(left, right).statistic)


def count_pairs_of_copies(comparison, weights):
    """What tau-a must be multiplied with to leave pairs of a value and its own copy out."""
    if comparison != "tau_a":
        return 1
    num = weights.sum()
    return num * (num - 1) / (num**2 - (weights**2).sum())


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_weights_count_a_pair_as_often_as_they_say(rdms, comparison):
    subjects, model = rdms
    weights = np.random.default_rng(1).integers(0, 4, (5, 36)).astype(float)
    found = compare_rdms(comparison, subjects, model, weights)
    for row, own in zip(found, weights.astype(int), strict=True):
        written_out = compare_rdms(
            comparison, np.repeat(subjects, own, axis=1), np.repeat(model, own)
        )
        expected = written_out[0] * count_pairs_of_copies(comparison, own)
        np.testing.assert_allclose(row, expected, rtol=1e-9)


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_an_rdm_is_most_like_itself_and_does_not_see_its_unit(rdms, comparison):
    subjects, _ = rdms
    distinct = subjects[:1] + np.linspace(0, 1e-3, 36)
    assert compare_rdms(comparison, distinct, 7 * distinct[0])[0, 0] == pytest.approx(1)


def test_a_model_without_differences_has_no_rank_correlation_and_no_concordance(rdms):
    subjects, _ = rdms
    assert np.isnan(compare_rdms("spearman", subjects, np.ones(36))).all()
    assert (compare_rdms("tau_a", subjects, np.ones(36)) == 0).all()
    assert np.isnan(compare_rdms("cosine", subjects, np.zeros(36))).all()


@pytest.mark.filterwarnings("ignore:Noise ceiling")
@pytest.mark.parametrize("comparison", COMPARISONS)
def test_noise_ceiling_is_that_of_rsatoolbox(rdms, comparison):
    subjects, _ = rdms
    theirs = rsatoolbox.inference.boot_noise_ceiling(
        rsatoolbox.rdm.RDMs(subjects), method=NAMES[comparison]
    )
    lower, upper = compute_noise_ceiling(comparison, subjects)
    assert (lower, upper) == pytest.approx(tuple(theirs))
    assert lower < upper < 1


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_subjects_that_agree_leave_no_room_below_one(comparison):
    subject = np.random.default_rng(2).uniform(1, 2, 15)
    assert compute_noise_ceiling(comparison, np.stack([subject] * 3)) == pytest.approx((1, 1))


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_interval_is_that_of_draws_written_out(rdms, comparison):
    subjects, model = rdms
    draws = draw(9, 6, 60, seed=4)
    low, high = bootstrap_interval(comparison, subjects, model, draws)
    matrices, square = np.array([squareform(each) for each in subjects]), squareform(model)
    means = []
    for conditions, chosen in zip(draws.conditions, draws.subjects, strict=True):
        drawn = np.repeat(np.arange(9), conditions)
        first, second = (drawn[index] for index in np.triu_indices(9, k=1))
        first, second = first[first != second], second[first != second]
        values = compare_rdms(comparison, matrices[:, first, second], square[first, second])
        pairs = np.outer(conditions, conditions)[np.triu_indices(9, k=1)]
        values = values * count_pairs_of_copies(comparison, pairs)
        means.append(np.repeat(values[0], chosen).mean())
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_a_perfect_model_is_perfect_in_every_draw(comparison):
    model = np.random.default_rng(5).permutation(28).astype(float) + 1
    interval = bootstrap_interval(comparison, model[None], model, draw(8, 1, 100, seed=0))
    assert interval == pytest.approx((1, 1))


def test_draws_keep_the_number_of_conditions_and_repeat_with_their_seed():
    draws = draw(7, 3, 50, seed=0)
    assert (draws.conditions.sum(axis=1) == 7).all()
    assert (draws.subjects.sum(axis=1) == 3).all()
    np.testing.assert_array_equal(draws.conditions, draw(7, 3, 50, seed=0).conditions)
    assert (draw(7, 1, 5, seed=1).subjects == 1).all()


def test_intervals_hold_the_value_of_endless_conditions_about_as_often_as_they_say():
    """Subjects and models whose RDMs come from one space of many conditions."""
    generator = np.random.default_rng(0)
    num_all, num_drawn = 300, 30
    places = generator.normal(size=(num_all, 3))
    noisy = places + generator.normal(size=(num_all, 3))

    def measure(points):
        first, second = np.triu_indices(len(points), k=1)
        return np.linalg.norm(points[first] - points[second], axis=1)

    truth = compare_rdms("cosine", measure(places)[None], measure(noisy))[0, 0]
    num_held = 0
    for trial in range(60):
        chosen = generator.choice(num_all, num_drawn, replace=False)
        low, high = bootstrap_interval(
            "cosine", measure(places[chosen])[None], measure(noisy[chosen]), draw(30, 1, 200, trial)
        )
        num_held += low <= truth <= high
    assert num_held >= 48
