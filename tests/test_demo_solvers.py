import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV

from iqray.demo.solvers import solve_kernel_ridge, solve_ridge


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    inputs = generator.normal(2, 1, (40, 60)) * np.linspace(0.1, 3, 60)
    return inputs, inputs[:, -3:].sum(axis=1) + generator.normal(0, 2, 40)


def test_ridge_agrees_with_scikit_learns_leave_one_out(data):
    inputs, targets = data
    weights, bias = solve_ridge(inputs, targets)
    centred = inputs - inputs.mean(axis=0)
    scale = (centred**2).sum() / len(inputs)
    peer = RidgeCV(alphas=scale * 10.0 ** np.arange(-6, 4)).fit(inputs, targets)
    np.testing.assert_allclose(weights, peer.coef_, rtol=1e-6, atol=1e-9)
    assert bias == pytest.approx(peer.intercept_)


def test_ridge_recovers_a_planted_map_without_noise():
    generator = np.random.default_rng(1)
    inputs = generator.normal(size=(50, 8))
    planted = np.arange(8.0)
    weights, bias = solve_ridge(inputs, inputs @ planted + 5)
    np.testing.assert_allclose(weights, planted, atol=1e-3)
    assert bias == pytest.approx(5, abs=1e-3)


def test_ridge_gives_the_mean_where_there_is_nothing_to_learn():
    generator = np.random.default_rng(2)
    inputs = generator.normal(size=(30, 100))
    targets = generator.normal(3, 1, 30)
    weights, bias = solve_ridge(inputs, targets)
    estimates = generator.normal(size=(200, 100)) @ weights + bias
    assert estimates.mean() == pytest.approx(targets.mean(), abs=0.2)
    assert estimates.std() < 0.3 * targets.std()


def test_kernel_ridge_agrees_with_scikit_learn(data):
    inputs, targets = data
    coefficients = solve_kernel_ridge(inputs, targets, gamma=0.01, penalty=0.1)
    peer = KernelRidge(alpha=0.1, kernel="rbf", gamma=0.01).fit(inputs, targets)
    np.testing.assert_allclose(coefficients, peer.dual_coef_, rtol=1e-6)
