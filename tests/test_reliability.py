"""Split-half reliability: planted reliabilities are found, and noise is told from order."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from iqray.categories.category_stats import STATISTICS
from iqray.statistics.reliability import (
    correct_spearman_brown,
    correlate_ranks,
    measure_reliability,
)

MEAN = {"mean": STATISTICS["mean"]}


def draw_scores(spread, num_categories=300, num_images=20, seed=0):
    """Scores of unit noise around category means of a standard deviation."""
    generator = np.random.default_rng(seed)
    means = generator.normal(0, spread, num_categories)
    return [mean + generator.normal(size=num_images) for mean in means]


def measure(scores, statistics, num_splits, seed, is_corrected=True):
    return measure_reliability(scores, statistics, num_splits, seed, is_corrected=is_corrected)


@pytest.mark.parametrize("spread", [0.2, 0.5])
def test_planted_reliability_is_found(spread):
    """Variance of the means over variance of the observed means is the reliability of a mean."""
    expected = spread**2 / (spread**2 + 1 / 20)
    found = measure(draw_scores(spread, num_categories=2000), MEAN, 20, seed=1)
    assert found["mean"].value == pytest.approx(expected, abs=0.05)
    assert found["mean"].low < found["mean"].value < found["mean"].high


def test_the_uncorrected_correlation_is_that_of_halves():
    scores = draw_scores(0.3, num_categories=50)
    found = measure(scores, MEAN, 200, seed=1, is_corrected=False)["mean"]
    generator = np.random.default_rng(7)
    correlations = []
    for _ in range(200):
        orders = [generator.permutation(values) for values in scores]
        means = [[np.mean(own[part]) for own in orders] for part in (slice(10), slice(10, None))]
        correlations.append(spearmanr(*means).statistic)
    assert found.value == pytest.approx(np.mean(correlations), abs=0.02)
    corrected = measure(scores, MEAN, 200, seed=1)["mean"].value
    assert corrected == pytest.approx(2 * found.value / (1 + found.value))


def test_the_correction_does_not_hold_for_ranges():
    """Scores with heavy tails: halves correlate, and all images are hardly better."""
    generator = np.random.default_rng(3)
    scale = np.exp(generator.normal(0, 0.7, size=(2000, 1)))
    scores = scale * generator.standard_t(1.5, size=(2000, 40))
    wanted = {"max_min": STATISTICS["max_min"]}
    halves = measure(list(scores), wanted, 10, seed=0, is_corrected=False)["max_min"].value
    corrected = measure(list(scores), wanted, 10, seed=0)["max_min"].value
    again = scale * generator.standard_t(1.5, size=(2000, 40))
    of_all = spearmanr(np.ptp(scores, axis=1), np.ptp(again, axis=1)).statistic
    assert of_all == pytest.approx(halves, abs=0.06)
    assert corrected > of_all + 0.1


def test_noise_has_no_reliability():
    found = measure(draw_scores(0.0), MEAN, 50, seed=1)["mean"]
    assert found.value < 0.15
    assert found.low == 0


def test_an_order_without_noise_is_wholly_reliable():
    scores = [np.full(count, float(count)) for count in (2, 3, 5, 9)]
    found = measure(scores, MEAN, 10, seed=0)["mean"]
    assert (found.low, found.value, found.high) == pytest.approx((1, 1, 1))


def test_a_statistic_without_differences_has_no_value():
    scores = [np.full(4, value) for value in (1.0, 2.0, 3.0)]
    found = measure(scores, {"max_min": STATISTICS["max_min"]}, 10, seed=0)
    assert np.isnan(found["max_min"].value)


def test_the_seed_decides_the_splits():
    scores = draw_scores(0.3, num_categories=20)
    first, same, other = (measure(scores, MEAN, 5, seed) for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_halves_share_no_image_and_lose_none():
    scores = [np.arange(7.0), np.arange(10.0)]
    seen = []

    def look(values):
        seen.append(values)
        return values.sum(axis=-1)

    measure(scores, {"sum": look}, 6, seed=0)
    for values, first, second in zip(scores, seen[::2], seen[1::2], strict=True):
        assert first.shape == (6, len(values) // 2)
        whole = np.sort(np.concatenate([first, second], axis=1), axis=1)
        np.testing.assert_array_equal(whole, np.tile(values, (6, 1)))
    assert len({tuple(row) for row in seen[2]}) > 1


def test_correlations_equal_those_of_scipy():
    first, second = np.random.default_rng(2).integers(0, 6, size=(2, 5, 12))
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(correlate_ranks(first, second), expected)


def test_spearman_brown_of_worked_numbers():
    assert correct_spearman_brown(0.5) == pytest.approx(2 / 3)
    assert correct_spearman_brown(1.0) == 1
    assert correct_spearman_brown(-1.0) == 0
    assert np.isnan(correct_spearman_brown(float("nan")))
