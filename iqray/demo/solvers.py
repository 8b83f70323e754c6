"""Closed-form least squares with a penalty: linear, and with a Gaussian kernel.

Pure functions from arrays to arrays, in float64.
"""

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

Array = npt.NDArray[np.float64]

# Penalties tried, relative to the mean squared length of the centred inputs.
_PENALTIES = 10.0 ** np.arange(-6, 4)


def solve_ridge(inputs: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Array, float]:
    """Linear map with the smallest leave-one-out error over a grid of ridge penalties.

    Solved in the dual, so that the cost grows with the number of images, not of dimensions. With
    the centred Gram matrix K and the dual coefficients a, the residual of image i when it is left
    out is `penalty * a_i / (penalty * inv(K + penalty)_ii - 1/n)`, up to its sign (Hastie,
    Tibshirani and Friedman 2009, equation 7.64, with an unpenalised mean).

    Args:
        inputs: (num_images, dim), finite.
        targets: (num_images,), finite.

    Returns:
        (dim,) weights and the bias: `inputs @ weights + bias` estimates the targets.
    """
    inputs = np.asarray(inputs, np.float64)
    targets = np.asarray(targets, np.float64)
    mean = inputs.mean(axis=0)
    centred = inputs - mean
    gram = centred @ centred.T
    scale = np.trace(gram) / len(gram)
    solutions = [_solve_dual(gram, targets, penalty * scale) for penalty in _PENALTIES]
    coefficients, _ = min(solutions, key=lambda solution: solution[1])
    weights = centred.T @ coefficients
    return weights, float(targets.mean() - mean @ weights)


def solve_kernel_ridge(inputs: Array, targets: Array, gamma: float, penalty: float) -> Array:
    """Coefficients c that minimise `|K c - targets|^2 + penalty * c' K c`.

    K is the Gaussian kernel `exp(-gamma * |x - y|^2)` of the inputs with themselves.

    Args:
        inputs: (num_images, dim).
        targets: (num_images,).
        gamma: of the kernel, above 0.
        penalty: above 0.

    Returns:
        (num_images,) coefficients.
    """
    kernel = np.exp(-gamma * cdist(inputs, inputs, "sqeuclidean"))
    return np.linalg.solve(kernel + penalty * np.eye(len(kernel)), targets)


def _solve_dual(gram: Array, targets: Array, penalty: float) -> tuple[Array, float]:
    """Dual coefficients, and the mean squared leave-one-out error."""
    num_images = len(gram)
    inverse = np.linalg.inv(gram + penalty * np.eye(num_images))
    coefficients = inverse @ (targets - targets.mean())
    residuals = penalty * coefficients / (penalty * np.diag(inverse) - 1 / num_images)
    return coefficients, float(np.mean(residuals**2))
