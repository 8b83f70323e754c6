"""BRISQUE of one image on a CPU: pyiqa's score, bit by bit, from compiled statistics.

Reads uint8 RGB pixels. Source: Mittal, Moorthy and
Bovik 2012, "No-reference image quality assessment in the spatial domain". MSCN stands for its
mean-subtracted contrast-normalised coefficients: (x - local mean) / (local deviation + 1).
"""

import numpy as np
import torch

from iqray.compiling import compile_kernel
from iqray.metrics.nss import (
    RADIUS,
    WINDOW,
    ShapeTable,
    build_window,
    compute_luma,
    find_ties_rounded_down,
    halve,
)
from iqray.metrics.nss_parameters import BrisqueParameters

# Each coefficient is multiplied with the one that lies (rows, columns) before it.
_SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))

# `torch.isclose` to 0, which pyiqa asks of the deviation.
_ZERO_DEVIATION = 1e-8

_EPS = np.finfo(np.float32).eps  # what pyiqa adds below a square root

# Of the published regression (LIVE, University of Texas at Austin: index_algorithms.htm), as pyiqa
# has them: width of the kernel, bias, and each statistic's smallest and largest value in training.
_GAMMA = 0.05
_RHO = -153.591
_RANGES = (
    # Shape and variance, then shape, mean, left and right variance of four products: native size,
    ((0.338, 10), (0.017204, 0.806612)),
    ((0.236, 1.642), (-0.123884, 0.20293), (0.000155, 0.712298), (0.001122, 0.470257)),
    ((0.244, 1.641), (-0.123586, 0.179083), (0.000152, 0.710456), (0.000975, 0.470984)),
    ((0.249, 1.555), (-0.135687, 0.100858), (0.000174, 0.684173), (0.000913, 0.534174)),
    ((0.258, 1.561), (-0.143408, 0.100486), (0.000179, 0.685696), (0.000888, 0.536508)),
    # half size.
    ((0.471, 3.264), (0.012809, 0.703171)),
    ((0.218, 1.046), (-0.094876, 0.187459), (1.5e-5, 0.442057), (0.001272, 0.40803)),
    ((0.222, 1.042), (-0.115772, 0.162604), (1.6e-5, 0.444362), (0.001374, 0.40243)),
    ((0.227, 0.996), (-0.117188, 0.098323), (3e-5, 0.531903), (0.001122, 0.369589)),
    ((0.228, 0.99), (-0.12243, 0.098658), (2.8e-5, 0.530092), (0.001118, 0.370399)),
)


class BrisqueScorer:
    """BRISQUE of one image after another, bit by bit as pyiqa computes it in float32.

    The published regression has coefficients of 740,000 in sum and gives scores of about 20. One
    rounding of float32 anywhere in the statistics moves a score by some 0.004, and the signs of
    coefficients in flat parts, which are nothing but rounding, by up to 5 %. An evaluation in
    float64, though closer to the definition, would not be pyiqa's score to 1e-4. So convolutions
    add in torch's order, and what has an order of its own there (sums, square roots, the
    regression) is left to torch, with one thread: it splits long sums between threads. On CPUs
    without fused multiply-adds scores differ by about 1e-3.

    Args:
        parameters: of the regression.
    """

    def __init__(self, parameters: BrisqueParameters) -> None:
        self._vectors = parameters.vectors.t()
        self._coefficients = parameters.coefficients
        self._tie_rounds_down = find_ties_rounded_down()
        self._window = build_window()
        self._shapes = ShapeTable(torch.float32)
        flat = [bounds for statistics in _RANGES for bounds in statistics]
        self._lowest, self._highest = torch.tensor(flat).unbind(dim=1)

    def __call__(self, image: np.ndarray) -> float:
        """Regression of the image's statistics on quality; lower is better.

        Args:
            image: (height, width, 3) uint8, RGB, each side at least 8 px.

        Returns:
            NaN where products of neighbours have only one sign.

        Raises:
            ValueError: all coefficients are 0.
        """
        statistics = torch.from_numpy(self.compute_statistics(image))[None]
        differences = self._scale(statistics)[:, :, None] - self._vectors[None]
        kernel = torch.exp(-differences.pow(2).sum(dim=1) * _GAMMA)
        return (kernel @ self._coefficients - _RHO).item()

    def _scale(self, statistics: torch.Tensor) -> torch.Tensor:
        """Statistics (num_images, 36) as the support vectors are scaled, training's to [-1, 1]."""
        # In this order of operations, in float32: see above.
        return -1 + 2 * (statistics - self._lowest) / (self._highest - self._lowest)

    def compute_statistics(self, image: np.ndarray) -> np.ndarray:
        """18 statistics at each of two scales, (36,) float32."""
        luma = compute_luma(image, self._tie_rounds_down)
        half = halve(luma)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.concatenate([self._compute_scale(plane) for plane in (luma, half)])

    def _compute_scale(self, plane: np.ndarray) -> np.ndarray:
        coefficients = self._normalize(plane)
        return np.concatenate([self._fit_symmetric(coefficients), self._fit_products(coefficients)])

    def _normalize(self, plane: np.ndarray) -> np.ndarray:
        """MSCN coefficients, with 0 beyond the border, (height, width) float32."""
        padded = np.pad(plane, RADIUS)
        means = _filter(padded, self._window)
        squares = _filter(padded * padded, self._window)
        deviations = _take_root(_compute_variances(means, squares))
        return _divide(plane, means, deviations)

    def _fit_symmetric(self, coefficients: np.ndarray) -> np.ndarray:
        """Shape and variance of a generalised Gaussian, (2,) float32."""
        num_pixels = np.float32(coefficients.size)
        variance = _add(coefficients * coefficients) / num_pixels
        mean_abs = _add(np.abs(coefficients)) / num_pixels
        [deviation] = _take_root(np.array([variance]))
        if deviation <= _ZERO_DEVIATION:
            raise ValueError("BRISQUE needs an image with non zero variance of pixel values")
        position = self._shapes.find_symmetric(mean_abs, variance)
        return np.array([self._shapes.alpha[position], deviation * deviation])

    def _fit_products(self, coefficients: np.ndarray) -> np.ndarray:
        """Shape, mean, left and right variance of an asymmetric Gaussian per shift, (16,)."""
        terms = np.empty((4, *coefficients.shape), np.float32)
        counts = np.empty((len(_SHIFTS), 2), np.float32)
        sums = np.empty((len(_SHIFTS), len(terms)), np.float32)
        for index, shift in enumerate(_SHIFTS):
            counts[index] = _multiply_neighbours(coefficients, *shift, terms)
            sums[index] = [_add(term) for term in terms]
        left, right = _take_root(sums[:, :2] / counts).T
        mean_abs, mean_square = (sums[:, 2:] / np.float32(coefficients.size)).T
        positions = self._shapes.find_asymmetric(left, right, mean_abs, mean_square)
        mean = (right - left) * self._shapes.mean[positions]
        statistics = [self._shapes.alpha[positions], mean, left * left, right * right]
        return np.stack(statistics, axis=1).ravel()


@compile_kernel(fastmath={"contract"})
def _filter(padded: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Weighted local sums in float32, added tap by tap, row after row, with fused multiply-adds.

    This is the order of torch's convolution on CPUs. It is kept because BRISQUE depends on it: in a
    flat part of an image, whether a coefficient is below, at or above 0 is nothing but rounding.

    Args:
        padded: (height + 6, width + 6) float32.
        window: (7, 7) float32.

    Returns:
        (height, width) float32.
    """
    height, width = padded.shape[0] - 2 * RADIUS, padded.shape[1] - 2 * RADIUS
    sums = np.zeros((height, width), np.float32)
    for row in range(height):
        for i in range(WINDOW):
            source = padded[row + i]
            a, b, c, d = window[i, 0], window[i, 1], window[i, 2], window[i, 3]
            e, f, g = window[i, 4], window[i, 5], window[i, 6]
            for x in range(width):
                total = sums[row, x]
                total += a * source[x]
                total += b * source[x + 1]
                total += c * source[x + 2]
                total += d * source[x + 3]
                total += e * source[x + 4]
                total += f * source[x + 5]
                total += g * source[x + 6]
                sums[row, x] = total
    return sums


@compile_kernel()
def _compute_variances(means: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Local variances in float32, with torch's epsilon added.

    Args:
        means: (height, width) float32, local means.
        squares: (height, width) float32, local means of squares.

    Returns:
        (height, width) float32.
    """
    variances = np.empty_like(means)
    for row in range(means.shape[0]):
        for column in range(means.shape[1]):
            mean = means[row, column]
            variances[row, column] = abs(squares[row, column] - mean * mean) + _EPS
    return variances


@compile_kernel()
def _divide(plane: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """MSCN coefficients in float32, all arrays (height, width) float32."""
    coefficients = np.empty_like(plane)
    one = np.float32(1)
    for row in range(plane.shape[0]):
        for column in range(plane.shape[1]):
            difference = plane[row, column] - means[row, column]
            coefficients[row, column] = difference / (deviations[row, column] + one)
    return coefficients


@compile_kernel()
def _multiply_neighbours(
    coefficients: np.ndarray, row_shift: int, column_shift: int, terms: np.ndarray
) -> tuple[int, int]:
    """Products of coefficients with those that lie a shift before them, round the edges.

    Args:
        coefficients: (height, width) float32.
        row_shift: -1, 0 or 1.
        column_shift: 0 or 1.
        terms: (4, height, width) float32, overwritten: squares of the negative products and 0
            elsewhere, of the positive ones, absolute values, squares.

    Returns:
        Numbers of negative and of positive products.
    """
    height, width = coefficients.shape
    zero = np.float32(0)
    shifted = np.empty(width, np.float32)
    num_negative = 0
    num_positive = 0
    for row in range(height):
        source = coefficients[(row - row_shift) % height]
        for column in range(width):
            shifted[column] = source[column - column_shift]  # -1 is the last one
        for column in range(width):
            product = coefficients[row, column] * shifted[column]
            square = product * product
            terms[0, row, column] = square if product < zero else zero
            terms[1, row, column] = square if product > zero else zero
            terms[2, row, column] = abs(product)
            terms[3, row, column] = square
            num_negative += product < zero
            num_positive += product > zero
    return num_negative, num_positive


def _add(values: np.ndarray) -> np.float32:
    """Float32 sum in torch's order."""
    return np.float32(torch.from_numpy(values).sum().item())


def _take_root(values: np.ndarray) -> np.ndarray:
    """Float32 square roots as torch rounds them: not always to the nearest number."""
    return torch.sqrt(torch.from_numpy(values)).numpy()
