import numpy as np
import pytest
from scipy.stats import spearmanr

from iqray.scoring.gate import (
    NUM_CALIBRATION,
    bound_statistics,
    compute_spearman,
    draw_calibration,
    find_open,
)

# How far lower precision moves a category's statistic, in standard deviations between categories.
BIAS, ERROR = 0.02, 0.03


def choose(values: np.ndarray, k: int) -> tuple[set[int], set[int]]:
    """Top and bottom k by a plain sort."""
    order = np.argsort(values, kind="stable")
    return set(order[-k:].tolist()), set(order[:k].tolist())


def pass_gate(truth: np.ndarray, lower: np.ndarray, k: int) -> tuple[np.ndarray, int]:
    """What the gate ends with: exact values where it asked for them; and how many it asked for."""
    exact = np.full(len(truth), np.nan)
    asked = draw_calibration(len(truth))
    while asked:
        exact[asked] = truth[asked]
        asked = find_open(lower, exact, k)
    return np.where(np.isnan(exact), lower, exact), int((~np.isnan(exact)).sum())


@pytest.mark.parametrize("seed", range(20))
def test_selection_is_that_of_full_precision(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.normal(0, 1, 400)
    lower = truth + BIAS + generator.uniform(-ERROR, ERROR, 400)
    mixed, num_exact = pass_gate(truth, lower, k=20)
    assert choose(mixed, 20) == choose(truth, 20)
    assert NUM_CALIBRATION <= num_exact < 120


def test_without_the_gate_lower_precision_would_choose_wrong() -> None:
    """The errors planted above do change subsets: the gate has something to do."""
    differs = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        truth = generator.normal(0, 1, 400)
        lower = truth + BIAS + generator.uniform(-ERROR, ERROR, 400)
        differs += choose(lower, 20) != choose(truth, 20)
    assert differs >= 5


def test_equal_precision_asks_for_nothing_more() -> None:
    truth = np.random.default_rng(0).normal(0, 1, 200)
    assert pass_gate(truth, truth, k=10)[1] == NUM_CALIBRATION


def test_useless_precision_ends_with_every_category_in_full() -> None:
    generator = np.random.default_rng(0)
    truth, lower = generator.normal(0, 1, 100), generator.normal(0, 1, 100)
    mixed, num_exact = pass_gate(truth, lower, k=10)
    assert choose(mixed, 10) == choose(truth, 10)
    assert num_exact == 100


def test_exact_ties_are_not_open() -> None:
    exact = np.array([1.0, 1.0, 1.0, 0.0])
    assert find_open(exact, exact, k=1) == []


def test_bounds_hold_the_known_and_widen_the_rest() -> None:
    lower = np.array([1.0, 2.0, 3.0, 4.0])
    exact = np.array([0.9, 1.8, np.nan, np.nan])
    low, high = bound_statistics(lower, exact)
    np.testing.assert_allclose(low[:2], exact[:2])
    np.testing.assert_allclose(high[:2], exact[:2])
    # Errors 0.1 and 0.2: median 0.15, at most 0.05 away, twice that is allowed. So the truth lies
    # 0.05 to 0.25 below lower precision, and the bounds reach up to that itself.
    np.testing.assert_allclose(low[2:], [2.75, 3.75])
    np.testing.assert_allclose(high[2:], lower[2:])
    with pytest.raises(ValueError, match="full precision"):
        bound_statistics(lower, np.full(4, np.nan))


def test_calibration_is_drawn_once_from_all_categories() -> None:
    assert draw_calibration(5) == [0, 1, 2, 3, 4]
    drawn = draw_calibration(1000)
    assert drawn == draw_calibration(1000) == sorted(set(drawn))
    assert len(drawn) == NUM_CALIBRATION


def test_spearman_of_scores_that_have_collapsed_is_no_agreement() -> None:
    assert compute_spearman([1, 1, 1], [1, 2, 3]) == 0
    assert compute_spearman([1, 1, 1], [2, 2, 2]) == 1
    assert compute_spearman([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 20, (2, 500))  # with ties
    expected = spearmanr(first, second).statistic
    assert compute_spearman(first, second) == pytest.approx(expected, rel=1e-12)
