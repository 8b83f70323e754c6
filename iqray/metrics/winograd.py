"""Convolutions of 3 x 3 with fewer multiplications on CPUs: Winograd's F(2 x 2, 3 x 3), compiled.

Four outputs that form a square take 16 multiplications per pair of channels instead of 36, at the
price of a few additions per channel. Source: Lavin and Gray 2016, "Fast algorithms for
convolutional neural networks", section 4.1. Its constants are 0, 1/2 and 1, so that rounding
errors stay those of a direct sum (measured below them: 4e-7 of the largest output beside 1e-6).
"""

import numpy as np
import torch

from iqray.compiling import compile_kernel

# Tiles at a time: what is between the two transforms then stays in the processor's cache, and the
# matrix product is still large enough. Measured best between 100 and 700 for VGG16's layers.
_MAX_TILES = 256

# Lavin and Gray's G: of the rows (1 0 0), (1 1 1) / 2, (1 -1 1) / 2, (0 0 1).
_WEIGHT_TRANSFORM = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def transform_weight(weight: torch.Tensor) -> torch.Tensor:
    """Weights (outputs, inputs, 3, 3) as matrices (16, inputs, outputs), rounded once."""
    transform = torch.tensor(_WEIGHT_TRANSFORM, dtype=torch.float64)
    tiles = transform @ weight.double() @ transform.T
    return tiles.permute(2, 3, 1, 0).flatten(0, 1).to(torch.float32).contiguous()


def convolve(
    maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, above: int, below: int
) -> torch.Tensor:
    """Convolution of 3 x 3 with stride 1, bias and ReLU; one column of zeros left and right.

    Args:
        maps: (num_images, inputs, height, width) float32, on the CPU.
        weight: from `transform_weight`.
        bias: (outputs,) float32.
        above: rows of zeros above the maps, 0 or 1.
        below: rows of zeros below them.

    Returns:
        (num_images, outputs, height + above + below - 2, width) float32, channels last.
    """
    num_images, _, height, width = maps.shape
    shape = (num_images, height + above + below - 2, width, weight.shape[2])
    convolved = maps.new_empty(shape)
    for image, output in zip(maps.permute(0, 2, 3, 1).contiguous(), convolved, strict=True):
        _convolve_image(image, weight, bias.numpy(), above, output.numpy())
    return convolved.permute(0, 3, 1, 2)


def _convolve_image(
    image: torch.Tensor, weight: torch.Tensor, bias: np.ndarray, above: int, output: np.ndarray
) -> None:
    num_rows, num_columns = (output.shape[0] + 1) // 2, (output.shape[1] + 1) // 2
    step = max(1, _MAX_TILES // num_columns)
    for first in range(0, num_rows, step):
        count = min(step, num_rows - first)
        tiles = image.new_empty(16, count * num_columns, weight.shape[1])
        _split(image.numpy(), above, first, tiles.numpy())
        _join(torch.bmm(tiles, weight).numpy(), bias, first, output)


@compile_kernel(fastmath={"contract"})
def _split(maps: np.ndarray, above: int, first: int, tiles: np.ndarray) -> None:
    """Cut maps into tiles of 4 x 4, two apart, and transform them: B' d B by Lavin and Gray.

    Args:
        maps: (height, width, channels) float32.
        above: rows of zeros above the maps.
        first: row of tiles to begin with.
        tiles: (16, rows * columns of tiles, channels) float32, overwritten.
    """
    height, width, num_channels = maps.shape
    num_columns = (width + 1) // 2
    zeros = np.zeros((width, num_channels), np.float32)
    # Tiles transformed down their columns; a column of zeros on the left, up to two on the right.
    sums = np.zeros((4, width + 3, num_channels), np.float32)
    for row in range(tiles.shape[1] // num_columns):
        y = 2 * (first + row) - above
        a = maps[y] if y >= 0 else zeros
        b = maps[y + 1] if y + 1 < height else zeros
        c = maps[y + 2] if y + 2 < height else zeros
        d = maps[y + 3] if y + 3 < height else zeros
        for x in range(width):
            for i in range(num_channels):
                sums[0, x + 1, i] = a[x, i] - c[x, i]
                sums[1, x + 1, i] = b[x, i] + c[x, i]
                sums[2, x + 1, i] = c[x, i] - b[x, i]
                sums[3, x + 1, i] = b[x, i] - d[x, i]
        for column in range(num_columns):
            tile = row * num_columns + column
            for k in range(4):
                line = sums[k, 2 * column : 2 * column + 4]
                for i in range(num_channels):
                    tiles[4 * k, tile, i] = line[0, i] - line[2, i]
                    tiles[4 * k + 1, tile, i] = line[1, i] + line[2, i]
                    tiles[4 * k + 2, tile, i] = line[2, i] - line[1, i]
                    tiles[4 * k + 3, tile, i] = line[1, i] - line[3, i]


@compile_kernel(fastmath={"contract"})
def _join(tiles: np.ndarray, bias: np.ndarray, first: int, output: np.ndarray) -> None:
    """Transform tiles back (A' m A), add the bias and cut off what is below 0.

    Args:
        tiles: (16, rows * columns of tiles, channels) float32.
        bias: (channels,) float32.
        first: row of tiles that the first one belongs to.
        output: (height, width, channels) float32; two rows for each row of tiles are overwritten.
    """
    height, width, num_channels = output.shape
    num_columns = (width + 1) // 2
    spare = np.empty(num_channels, np.float32)  # for outputs beyond the last row or column
    sums = np.empty((2, 4, num_channels), np.float32)
    zero = np.float32(0)
    for tile in range(tiles.shape[1]):
        y, x = 2 * (first + tile // num_columns), 2 * (tile % num_columns)
        for k in range(4):
            for i in range(num_channels):
                middle, last = tiles[4 + k, tile, i], tiles[8 + k, tile, i]
                sums[0, k, i] = tiles[k, tile, i] + middle + last
                sums[1, k, i] = middle - last - tiles[12 + k, tile, i]
        for row in range(2):
            is_inside = y + row < height
            left = output[y + row, x] if is_inside else spare
            right = output[y + row, x + 1] if is_inside and x + 1 < width else spare
            line = sums[row]
            for i in range(num_channels):
                first_sum = line[0, i] + line[1, i] + line[2, i] + bias[i]
                second_sum = line[1, i] - line[2, i] - line[3, i] + bias[i]
                left[i] = zero if first_sum < zero else first_sum  # NaN stays, unlike with max
                right[i] = zero if second_sum < zero else second_sum
