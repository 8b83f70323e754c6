"""NIQE of one image on a CPU: pyiqa's score in float64, from compiled statistics.

Reads uint8 RGB pixels. Source: Mittal, Soundararajan
and Bovik 2013, "Making a completely blind image quality analyzer". MSCN stands for mean-subtracted
contrast-normalised coefficients: (x - local mean) / (local deviation + 1).
"""

import numpy as np
import torch

from iqray.compiling import compile_kernel
from iqray.metrics.nss import (
    RADIUS,
    WINDOW_SD_PX,
    ShapeTable,
    build_window,
    compute_luma,
    find_ties_rounded_down,
    halve,
)
from iqray.metrics.nss_parameters import NiqeParameters

_BLOCK_PX = 96

# Moments of a block: numbers of negative and positive values, sums of their squares, sum of all
# absolute values. They are taken of the coefficients and of products with four neighbours.
_NUM_MOMENTS = 5
_NUM_MAPS = 5

# The order of float64 sums moves the score by about 1e-14, so it is left to the compiler.
_REORDER = {"reassoc", "contract"}

_EPS = np.finfo(np.float64).eps  # what pyiqa adds below a square root


class NiqeScorer:
    """NIQE of one image after another, in float64.

    Args:
        parameters: the pristine Gaussian.
    """

    def __init__(self, parameters: NiqeParameters) -> None:
        self._mean = torch.from_numpy(parameters.mean)
        self._covariance = torch.from_numpy(parameters.covariance)
        self._tie_rounds_down = find_ties_rounded_down()
        self._taps = _build_taps()
        self._shapes = ShapeTable(torch.float64)

    def __call__(self, image: np.ndarray) -> float:
        """Distance of the image's statistics from the pristine ones; lower is better.

        Args:
            image: (height, width, 3) uint8, RGB, each side at least 96 px. What lies beyond whole
                blocks of 96 x 96 px, right and below, is left out.

        Raises:
            ValueError: no block has coefficients and products on both sides of 0, as in flat
                images.
        """
        statistics = self.compute_statistics(image)
        mean, covariance = _estimate_gaussian(torch.from_numpy(statistics))
        difference = self._mean - mean
        inverse = torch.linalg.pinv((self._covariance + covariance) / 2, hermitian=True)
        return (difference @ inverse @ difference).sqrt().item()

    def compute_statistics(self, image: np.ndarray) -> np.ndarray:
        """18 statistics at each of two scales for each block, (num_blocks, 36) float64.

        Blocks go row by row. What a block leaves undefined is NaN.
        """
        height, width = (side // _BLOCK_PX * _BLOCK_PX for side in image.shape[:2])
        luma = compute_luma(image[:height, :width], self._tie_rounds_down)
        half = halve(luma / np.float32(255))  # in float32, as pyiqa resizes
        return np.concatenate(
            [
                self._compute_scale(luma.astype(np.float64), _BLOCK_PX),
                self._compute_scale(half.astype(np.float64) * 255, _BLOCK_PX // 2),
            ],
            axis=1,
        )

    def _compute_scale(self, plane: np.ndarray, side: int) -> np.ndarray:
        coefficients = _normalize(plane, self._taps)
        moments = _compute_block_moments(coefficients, side)
        num_negative, num_positive, negative, positive, sum_abs = np.moveaxis(moments, 2, 0)
        num_pixels = side * side
        with np.errstate(invalid="ignore", divide="ignore"):
            left, right = np.sqrt(negative / num_negative), np.sqrt(positive / num_positive)
            square = (negative + positive) / num_pixels
            positions = self._shapes.find_asymmetric(left, right, sum_abs / num_pixels, square)
        alpha = self._shapes.alpha[positions]
        left, right = (sd * self._shapes.width[positions] for sd in (left, right))
        mean = (right - left) * self._shapes.shift[positions]
        own = np.stack([alpha[:, 0], (left[:, 0] + right[:, 0]) / 2], axis=1)
        products = np.stack([alpha, mean, left, right], axis=2)[:, 1:]
        return np.concatenate([own, products.reshape(len(own), -1)], axis=1)


def _build_taps() -> np.ndarray:
    """One axis of the Gaussian window, (7,) float64.

    pyiqa rounds the window of 7 x 7 to float32, so that it sums to 1 + 1e-8. Only that sum reaches
    the score (by the sign of the coefficients in flat parts), and is kept.
    """
    distances = np.arange(-RADIUS, RADIUS + 1)
    taps = np.exp(-(distances**2) / (2 * WINDOW_SD_PX**2))
    total = build_window().sum(dtype=np.float64)
    return taps / taps.sum() * np.sqrt(total)


def _estimate_gaussian(statistics: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance over blocks; each leaves out what is NaN, as pyiqa does.

    Args:
        statistics: (num_blocks, 36) float64.

    Returns:
        Mean (36,) of the numbers in each column, and covariance (36, 36) of the rows without NaN,
        which is 0 for just one.
    """
    whole = statistics[~statistics.isnan().any(dim=1)]
    if len(whole) == 0:
        raise ValueError(
            "NIQE needs a block of 96 x 96 px whose normalised pixels, and products of neighbours, "
            "lie on both sides of 0; this image is too flat or too regular"
        )
    return statistics.nanmean(dim=0), torch.cov(whole.T, correction=int(len(whole) > 1))


@compile_kernel()
def _normalize(plane: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """MSCN coefficients in float64 with a separable window; the border is replicated.

    Args:
        plane: (height, width) float64.
        taps: (7,) float64, symmetric: the window is their outer product.

    Returns:
        (height, width) float64.
    """
    height, width = plane.shape
    coefficients = np.empty_like(plane)
    sums = np.empty(width + 2 * RADIUS)
    sums_of_squares = np.empty(width + 2 * RADIUS)
    for row in range(height):
        _add_rows(plane, row, taps, sums, sums_of_squares)
        _normalize_row(plane[row], taps, sums, sums_of_squares, coefficients[row])
    return coefficients


@compile_kernel(fastmath=_REORDER)
def _add_rows(
    plane: np.ndarray, row: int, taps: np.ndarray, sums: np.ndarray, sums_of_squares: np.ndarray
) -> None:
    """Weighted sums of a plane, and of its squares, over the rows around `row`."""
    height, width = plane.shape
    far, mid, near, own = taps[0], taps[1], taps[2], taps[3]
    a, b, c = plane[max(row - 3, 0)], plane[max(row - 2, 0)], plane[max(row - 1, 0)]
    d, last = plane[row], height - 1
    e, f, g = plane[min(row + 1, last)], plane[min(row + 2, last)], plane[min(row + 3, last)]
    for x in range(width):
        sums[x + RADIUS] = (
            far * (a[x] + g[x]) + mid * (b[x] + f[x]) + near * (c[x] + e[x]) + own * d[x]
        )
        sums_of_squares[x + RADIUS] = (
            far * (a[x] * a[x] + g[x] * g[x])
            + mid * (b[x] * b[x] + f[x] * f[x])
            + near * (c[x] * c[x] + e[x] * e[x])
            + own * (d[x] * d[x])
        )
    for x in range(RADIUS):
        sums[x], sums_of_squares[x] = sums[RADIUS], sums_of_squares[RADIUS]
        sums[width + RADIUS + x] = sums[width + RADIUS - 1]
        sums_of_squares[width + RADIUS + x] = sums_of_squares[width + RADIUS - 1]


@compile_kernel(fastmath=_REORDER)
def _normalize_row(
    pixels: np.ndarray,
    taps: np.ndarray,
    sums: np.ndarray,
    sums_of_squares: np.ndarray,
    coefficients: np.ndarray,
) -> None:
    """MSCN coefficients of a row from its sums over rows, which have borders."""
    far, mid, near, own = taps[0], taps[1], taps[2], taps[3]
    s, q = sums, sums_of_squares
    for x in range(len(pixels)):
        mean = (
            far * (s[x] + s[x + 6])
            + mid * (s[x + 1] + s[x + 5])
            + near * (s[x + 2] + s[x + 4])
            + own * s[x + 3]
        )
        square = (
            far * (q[x] + q[x + 6])
            + mid * (q[x + 1] + q[x + 5])
            + near * (q[x + 2] + q[x + 4])
            + own * q[x + 3]
        )
        deviation = np.sqrt(abs(square - mean * mean) + _EPS)
        coefficients[x] = (pixels[x] - mean) / (deviation + 1.0)


@compile_kernel()
def _compute_block_moments(coefficients: np.ndarray, side: int) -> np.ndarray:
    """Moments of each square block's coefficients and of their products with four neighbours.

    Neighbours lie to the left, above, above left and above right, round the edges of the block.

    Args:
        coefficients: (height, width) float64, both multiples of `side`.
        side: of a block, pixels.

    Returns:
        (num_blocks, maps, moments) float64.
    """
    num_rows, num_columns = coefficients.shape[0] // side, coefficients.shape[1] // side
    moments = np.zeros((num_rows * num_columns, _NUM_MAPS, _NUM_MOMENTS))
    width = side + 2
    values = np.zeros(side * width)
    factors = np.zeros(1 + (side + 1) * width)
    ones = np.ones(len(values))
    for index in range(len(moments)):
        _wrap_block(coefficients, index // num_columns, index % num_columns, side, values, factors)
        _add_moments(values, ones, moments[index, 0])
        _add_moments(values, factors[width:], moments[index, 1])  # left
        _add_moments(values, factors[1:], moments[index, 2])  # above
        _add_moments(values, factors, moments[index, 3])  # above left
        _add_moments(values, factors[2:], moments[index, 4])  # above right
    return moments


@compile_kernel()
def _wrap_block(
    coefficients: np.ndarray,
    block_row: int,
    block_column: int,
    side: int,
    values: np.ndarray,
    factors: np.ndarray,
) -> None:
    """Lay a block out flat, so that each product of neighbours is one pass over two arrays.

    Args:
        coefficients: (height, width) float64.
        block_row: which block, from the top.
        block_column: which block, from the left.
        side: of a block, pixels.
        values: overwritten; the rows, with a 0 before and behind each.
        factors: overwritten from position 1 on; the last row, then all rows, each between its own
            last and first value: round the edges.
    """
    for row in range(side + 1):
        source = coefficients[block_row * side + (row if row > 0 else side) - 1]
        start = row * (side + 2)
        for x in range(1, side + 1):
            factors[1 + start + x] = source[block_column * side + x - 1]
        factors[1 + start] = factors[1 + start + side]
        factors[1 + start + side + 1] = factors[1 + start + 1]
        if row > 0:
            for x in range(1, side + 1):
                values[start - (side + 2) + x] = source[block_column * side + x - 1]


@compile_kernel(fastmath=_REORDER)
def _add_moments(values: np.ndarray, factors: np.ndarray, moments: np.ndarray) -> None:
    """Add the moments of values times factors, of which there are as many or more."""
    num_negative = 0.0
    num_positive = 0.0
    squares_negative = 0.0
    squares_positive = 0.0
    sum_abs = 0.0
    for index in range(len(values)):
        product = values[index] * factors[index]
        square = product * product
        num_negative += 1.0 if product < 0.0 else 0.0
        num_positive += 1.0 if product > 0.0 else 0.0
        squares_negative += square if product < 0.0 else 0.0
        squares_positive += square if product > 0.0 else 0.0
        sum_abs += abs(product)
    moments[0] += num_negative
    moments[1] += num_positive
    moments[2] += squares_negative
    moments[3] += squares_positive
    moments[4] += sum_abs
