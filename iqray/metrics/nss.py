"""What NIQE and BRISQUE share: luma, half size, and shapes of generalised Gaussians, compiled.

Both take natural-scene statistics of an image at two scales. Everything here and in
`iqray.metrics.niqe` and `iqray.metrics.brisque` follows pyiqa 0.1.16 (archs/niqe_arch.py,
brisque_arch.py, func_util.py, matlab_utils) and rounds as it does on CPUs wherever that rounding
reaches the score. Kernels release the GIL and use one thread.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from iqray.compiling import compile_kernel

# Half of the Gaussian window in which local mean and deviation are taken, and its width.
RADIUS = 3
WINDOW = 2 * RADIUS + 1
WINDOW_SD_PX = 7 / 6

# To Y, I and Q (columns) from R, G and B (rows), as pyiqa rounds NTSC's matrix.
_YIQ = ((0.299, 0.5959, 0.2115), (0.587, -0.2746, -0.5227), (0.114, -0.3213, 0.3112))

# MATLAB's imresize at scale 0.5: the cubic kernel (a = -0.5) stretched to 8 taps, which lie at odd
# quarters from its centre. The taps are exact in float32 and add up to 1.
_HALVING_TAPS = np.array([-3, -9, 29, 111, 111, 29, -9, -3], np.float32) / np.float32(256)
_HALVING_REACH = 3  # pixels before position 2 * i that output pixel i depends on


def build_window() -> np.ndarray:
    """Gaussian window in which local mean and deviation are taken, (7, 7) float32.

    It sums to 1 in float64, and to 1 + 1e-8 as it is rounded to float32.
    """
    distances = np.arange(-RADIUS, RADIUS + 1)
    squares = distances[:, None] ** 2 + distances**2
    weights = np.exp(-squares / (2 * WINDOW_SD_PX**2))
    return (weights / weights.sum()).astype(np.float32)


def compute_luma(image: np.ndarray, tie_rounds_down: np.ndarray) -> np.ndarray:
    """Y of YIQ, rounded to whole gray levels: (299 R + 587 G + 114 B) / 1000.

    Args:
        image: (height, width, 3) uint8, RGB, of any layout.
        tie_rounds_down: from `find_ties_rounded_down`.

    Returns:
        (height, width) float32, 0 to 255.
    """
    # A copy of one layout, so that views and read-only arrays compile no kernel of their own.
    return _compute_luma(image.copy(order="C").reshape(len(image), -1), tie_rounds_down)


@compile_kernel()
def _compute_luma(pixels: np.ndarray, tie_rounds_down: np.ndarray) -> np.ndarray:
    """Luma of pixels (height, 3 * width) uint8."""
    height, width = pixels.shape[0], pixels.shape[1] // 3
    luma = np.empty((height, width), np.float32)
    thousandths = np.empty(width, np.float32)  # whole numbers, exact in float32
    for row in range(height):
        source, levels = pixels[row], luma[row]
        for x in range(width):
            red, green = np.float32(source[3 * x]), np.float32(source[3 * x + 1])
            total = np.float32(299) * red + np.float32(587) * green
            total += np.float32(114) * np.float32(source[3 * x + 2])
            thousandths[x] = total
            levels[x] = np.floor((total + np.float32(500.5)) * np.float32(0.001))
        for x in range(width):
            is_tie = np.float32(1000) * levels[x] == thousandths[x] + np.float32(500)
            if is_tie and tie_rounds_down[source[3 * x], source[3 * x + 1]]:
                levels[x] -= np.float32(1)
    return luma


def find_ties_rounded_down() -> np.ndarray:
    """Where pyiqa's luma, halfway between two gray levels, ends up at the lower one.

    One pixel in a thousand is such a tie in decimal arithmetic. pyiqa decides it by the rounding of
    a float32 matrix product, so torch is asked about all 17,000 of them.

    Returns:
        (256, 256) bool, by R and G: for each there is at most one B that makes a tie.
    """
    levels = np.arange(256)
    blue_by_rest = np.full(1000, -1)
    blue_by_rest[(500 - 114 * levels) % 1000] = levels  # no two have the same rest
    blue = blue_by_rest[(299 * levels[:, None] + 587 * levels) % 1000]
    red, green = np.nonzero(blue >= 0)
    ties = np.stack([red, green, blue[red, green]])
    colours = torch.from_numpy(ties.astype(np.float32)).div(255)
    # All three columns, and pixels in rows: another product could take another way of rounding.
    luma = ((colours.T.contiguous() @ torch.tensor(_YIQ))[:, 0] * 255).round().numpy()
    rounds_down = np.zeros((256, 256), bool)
    rounds_down[red, green] = 1000 * luma < np.array([299, 587, 114]) @ ties
    return rounds_down


@compile_kernel()
def halve(plane: np.ndarray) -> np.ndarray:
    """Half the size by antialiased bicubic interpolation; the border is mirrored, edge included.

    Sums run over the taps from first to last in float32, as pyiqa's do, rows first.

    Args:
        plane: (height, width) float32, each side at least 4 px.

    Returns:
        (ceil(height / 2), ceil(width / 2)) float32.
    """
    height, width = plane.shape
    halved = np.empty(((height + 1) // 2, (width + 1) // 2), np.float32)
    for row in range(len(halved)):
        sums = np.zeros(width + 2 * _HALVING_REACH + 2, np.float32)  # down columns, with borders
        for tap in range(len(_HALVING_TAPS)):
            weight = _HALVING_TAPS[tap]
            source = plane[_mirror(2 * row - _HALVING_REACH + tap, height)]
            for x in range(width):
                sums[x + _HALVING_REACH] += weight * source[x]
        for x in range(_HALVING_REACH):
            sums[x] = sums[_mirror(x - _HALVING_REACH, width) + _HALVING_REACH]
        for x in range(width + _HALVING_REACH, len(sums)):
            sums[x] = sums[_mirror(x - _HALVING_REACH, width) + _HALVING_REACH]
        _halve_row(sums, halved[row])
    return halved


@compile_kernel()
def _halve_row(sums: np.ndarray, halved: np.ndarray) -> None:
    a, b, c, d = _HALVING_TAPS[0], _HALVING_TAPS[1], _HALVING_TAPS[2], _HALVING_TAPS[3]
    for x in range(len(halved)):
        total = a * sums[2 * x]
        total += b * sums[2 * x + 1]
        total += c * sums[2 * x + 2]
        total += d * sums[2 * x + 3]
        total += d * sums[2 * x + 4]
        total += c * sums[2 * x + 5]
        total += b * sums[2 * x + 6]
        halved[x] = total + a * sums[2 * x + 7]


@compile_kernel()
def _mirror(index: int, size: int) -> int:
    """Position inside [0, size) of a position up to `size` px beyond either end."""
    if index < 0:
        return -1 - index
    return 2 * size - 1 - index if index >= size else index


class ShapeTable:
    """Shapes of generalised Gaussians by the ratio of moments that tells them apart.

    Args:
        dtype: torch's float32 or float64, in which pyiqa builds the table. In float32 the ratios
            are too coarse to rise with every shape; the first of the nearest counts.

    Attributes:
        alpha: (9801,) shapes from 0.2 to 10, the grid of pyiqa.
        width: ratio of scale and deviation at each shape.
        shift: mean per difference of right and left scale.
        mean: mean per difference of right and left deviation.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        alpha = torch.arange(0.2, 10 + 0.001, 0.001, dtype=torch.float32).to(dtype)
        first, second, third = (torch.lgamma(order / alpha) for order in (1.0, 2.0, 3.0))
        self.alpha = alpha.numpy()
        self.width = (first - third).exp().sqrt().numpy()
        self.shift = (second - first).exp().numpy()
        self.mean = torch.exp(second - (first + third) / 2).numpy()
        self._asymmetric = _index_nearest((2 * second - (first + third)).exp().numpy())
        self._symmetric = _index_nearest((first + third - 2 * second).exp().numpy())

    def find_symmetric(self, mean_abs: Any, variance: Any) -> np.ndarray:
        """Positions of the shapes with this mean absolute value and variance; 0 for NaN."""
        return self._symmetric(variance / (mean_abs * mean_abs))

    def find_asymmetric(
        self, left: np.ndarray, right: np.ndarray, mean_abs: np.ndarray, mean_square: np.ndarray
    ) -> np.ndarray:
        """Positions of the shapes with these moments; 0 for NaN.

        Args:
            left: deviation of the values below 0 from 0.
            right: deviation of the values above 0 from 0.
            mean_abs: mean of the absolute values.
            mean_square: mean of the squares.
        """
        skew = left / right
        ratio = mean_abs * mean_abs / mean_square
        spread = skew * skew + 1
        return self._asymmetric(ratio * (skew * skew * skew + 1) * (skew + 1) / (spread * spread))


def _index_nearest(table: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Build the search for the first position in a table that is nearest to a value.

    NaN is at position 0, as in pyiqa, where `argmin` holds NaN for the smallest distance.
    """
    levels, positions = np.unique(table, return_index=True)

    def find(values: np.ndarray) -> np.ndarray:
        above = np.searchsorted(levels, values).clip(1, len(levels) - 1)
        distances = [abs(levels[side] - values) for side in (above - 1, above)]
        low, high = positions[above - 1], positions[above]
        nearest = np.where(distances[0] < distances[1], low, high)
        nearest = np.where(distances[0] == distances[1], np.minimum(low, high), nearest)
        return np.where(np.isfinite(values), nearest, 0)

    return find
