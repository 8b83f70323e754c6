"""Layers of a convolutional network, run whole or on strips of rows, with one and the same result.

A strip takes with it the rows around it that its result depends on, so nothing is approximated:
every output is the same sum as without strips. Strips that stay in the processor's cache are faster
than whole maps, and an image of any size passes in bounded memory.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from iqray.metrics.winograd import convolve, transform_weight

# Strips that bound memory: 2 Mpx with 64 channels of float32 are 512 MiB. Smaller images pass
# whole, as borders of strips cost time: at 500 x 375 px no strip of any height pays for DBCNN.
LARGE_STRIP_PX = 2**21

# Fewer channels leave too little work to the matrix product to pay for the transforms.
_MIN_WINOGRAD_CHANNELS = 32
_MAX_WINOGRAD_THREADS = 2


class RowLayer(nn.Module):
    """A layer whose output row i depends on `size` input rows from row i * stride - padding on.

    Its forward takes the input rows that exist, and how many more lie above and below the image:
    what stands there is the layer's to say, since a zero behind a bias is another one before it.
    """

    size = 1
    stride = 1
    padding = 0

    def count_rows(self, num_rows: int) -> int:
        """Output rows of a whole input."""
        return (num_rows + 2 * self.padding - self.size) // self.stride + 1

    def forward(self, rows: torch.Tensor, above: int, below: int) -> torch.Tensor:
        """Output rows (num_images, channels, rows, width) of a strip of the input."""
        raise NotImplementedError


class Normalize(RowLayer):
    """Channels less their mean, over their deviation."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, rows: torch.Tensor, _above: int, _below: int) -> torch.Tensor:
        """Normalised rows."""
        return (rows - self.mean).div_(self.std)


class Convolution(RowLayer):
    """A convolution padded with zeros, with its ReLU if it has one.

    Args:
        convolution: dilation 1, one group, square.
        norm: BatchNorm in eval mode behind it, folded into the weights (in float64).
        has_relu: whether a ReLU follows.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, convolution: Any, norm: Any = None, has_relu: bool = True) -> None:
        super().__init__()
        self.size, self.stride, self.padding = (
            pair[0] for pair in (convolution.kernel_size, convolution.stride, convolution.padding)
        )
        weight, bias = convolution.weight.detach(), convolution.bias
        if norm is not None:
            weight, bias = _fold(weight, bias, norm)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", None if bias is None else bias.detach())
        self._has_relu = has_relu
        is_suitable = has_relu and self.bias is not None and _suits_winograd(convolution)
        self._winograd_weight = transform_weight(weight) if is_suitable else None

    def forward(self, rows: torch.Tensor, above: int, below: int) -> torch.Tensor:
        """Rows of the convolution."""
        if self._winograd_weight is not None and _may_use_winograd(rows, self.weight):
            assert self.bias is not None
            return convolve(rows, self._winograd_weight, self.bias, above, below)
        padding = (self.padding, self.padding)
        if above < self.padding or self._count_surplus(rows.shape[-2], below):
            rows, padding = pad_rows(rows, above, below), (0, self.padding)
        maps = functional.conv2d(rows, self.weight, self.bias, self.stride, padding)
        return maps.relu_() if self._has_relu else maps

    def _count_surplus(self, num_rows: int, below: int) -> int:
        """Rows that padding on both sides would add to the output; a stride may swallow them."""
        num_outputs = (num_rows + self.padding + below - self.size) // self.stride + 1
        return self.count_rows(num_rows) - num_outputs


class Pool(RowLayer):
    """Pooling with a window of 2 x 2 and stride 2; a last odd row or column is left out."""

    size = 2
    stride = 2

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self._pool = pool

    def forward(self, rows: torch.Tensor, _above: int, _below: int) -> torch.Tensor:
        """Rows of the pooled map."""
        return self._pool(rows)


def run_layers(
    layers: Iterable[Any], maps: torch.Tensor, strip_px: int | None = None
) -> torch.Tensor:
    """Run layers one after another.

    Args:
        layers: each a `RowLayer`, the first one first.
        maps: (num_images, channels, height, width).
        strip_px: largest number of input pixels of a strip, apart from the rows around it; whole
            maps if None. A strip has at least one row of output.

    Returns:
        Output of the last layer, whole.
    """
    layers = list(layers)
    strips = cut_strips(layers, maps, strip_px)
    first = next(strips)
    num_rows = _count_heights(layers, maps.shape[-2])[-1]
    if first.shape[-2] == num_rows:
        return first
    whole = first.new_empty((*first.shape[:2], num_rows, first.shape[-1]))
    whole = whole.to(memory_format=torch.channels_last)
    start = 0
    for strip in itertools.chain([first], strips):
        stop = start + strip.shape[-2]
        whole[:, :, start:stop] = strip
        start = stop
    return whole


def cut_strips(
    layers: Iterable[Any], maps: torch.Tensor, strip_px: int | None = None
) -> Iterator[torch.Tensor]:
    """Output of the last layer in strips of rows, from above; arguments as in `run_layers`."""
    layers = list(layers)
    heights = _count_heights(layers, maps.shape[-2])
    step = heights[-1]
    if strip_px is not None and maps.numel():
        row_px = len(maps) * maps.shape[-1] * maps.shape[-2] / max(1, step)
        step = max(1, min(step, int(strip_px / row_px)))
    for start in range(0, heights[-1], step):
        yield _compute_rows(layers, heights, maps, start, min(start + step, heights[-1]))


def choose_strip_px(images: torch.Tensor, cpu_px: int, accelerator_px: int) -> int:
    """Pixels of a strip, by where the images are."""
    return cpu_px if images.is_cpu else accelerator_px


def pad_rows(rows: torch.Tensor, above: int, below: int) -> torch.Tensor:
    """Add rows of zeros."""
    return functional.pad(rows, (0, 0, above, below)) if above or below else rows


def _count_heights(layers: Sequence[RowLayer], height: int) -> list[int]:
    """Rows of the input and of every layer's output."""
    return [
        *itertools.accumulate(layers, lambda rows, layer: layer.count_rows(rows), initial=height)
    ]


def _compute_rows(
    layers: Sequence[RowLayer], heights: Sequence[int], maps: torch.Tensor, start: int, stop: int
) -> torch.Tensor:
    """Rows [start, stop) of the last layer's output."""
    outside: list[tuple[int, int]] = []  # rows above and below the image, last layer first
    for layer, height in zip(reversed(layers), reversed(heights[:-1]), strict=True):
        first = start * layer.stride - layer.padding
        last = (stop - 1) * layer.stride - layer.padding + layer.size
        start, stop = max(first, 0), min(last, height)
        outside.append((start - first, last - stop))
    maps = maps[:, :, start:stop]
    for layer, (above, below) in zip(layers, reversed(outside), strict=True):
        maps = layer(maps, above, below)
    return maps


def _suits_winograd(convolution: Any) -> bool:
    is_padded_3x3 = convolution.kernel_size == (3, 3) and convolution.padding == (1, 1)
    channels = min(convolution.in_channels, convolution.out_channels)
    return is_padded_3x3 and convolution.stride == (1, 1) and channels >= _MIN_WINOGRAD_CHANNELS


def _may_use_winograd(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether it is exact (float32) and pays: its transforms run on one thread."""
    is_float32 = rows.dtype == weight.dtype == torch.float32
    return rows.is_cpu and is_float32 and torch.get_num_threads() <= _MAX_WINOGRAD_THREADS


def _fold(
    weight: torch.Tensor, bias: torch.Tensor | None, norm: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and bias of a convolution with the BatchNorm behind it."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    if bias is not None:
        shift = shift + bias.double() * scale
    return (weight.double() * scale[:, None, None, None]).float(), shift.float()
