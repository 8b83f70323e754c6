"""Images that lie decoded in a device's memory, and network inputs made from them there.

Written for GPUs and run in tests on the CPU, where it agrees with `iqray.training.batches` within
one of 256 levels. It has not run on a GPU yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from iqray.packs.packing import PackedImages
from iqray.training.batches import MEAN, STD

# Share of a device's free memory that images may take; the rest is for weights, activations and
# whatever else shares the device. Our choice: a tenth of ImageNet at 256 px then fits into 64 GB.
_LARGEST_SHARE = 0.4

# Crops are cut out as float32 for so many pixels at a time: 100 MB.
_CHUNK_PIXELS = 8_000_000


def fits_on_device(num_bytes: int, free_bytes: int) -> bool:
    """Whether images may lie on a device as a whole.

    Args:
        num_bytes: of all decoded images.
        free_bytes: of the device's memory, before a model is on it.
    """
    return num_bytes <= _LARGEST_SHARE * free_bytes


def get_free_bytes(device: torch.device) -> int:
    """Memory for images to lie in: 0 on a CPU, which reads them from their packs as well."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


@dataclass(frozen=True)
class ResidentImages:
    """All images of a trial on one device.

    Attributes:
        pixels: (num_pixels of all images, 3) uint8 RGB.
        starts: (num_images,) int64, where an image's first pixel is.
        widths: (num_images,) int64, pixels.
    """

    pixels: torch.Tensor
    starts: torch.Tensor
    widths: torch.Tensor

    @classmethod
    def copy(cls, data: PackedImages, device: torch.device) -> "ResidentImages":
        """Copy packed images to a device, one pack after another."""
        num_pixels = data.shapes.prod(axis=1)
        pixels = torch.empty((int(num_pixels.sum()), 3), dtype=torch.uint8, device=device)
        start = 0
        for pack in data.packs:
            own = torch.from_numpy(pack.flatten()).view(-1, 3)
            stop = start + len(own)
            pixels[start:stop] = own.to(device)
            start = stop
        starts = torch.from_numpy(np.cumsum(num_pixels) - num_pixels)
        return cls(pixels, starts.to(device), torch.from_numpy(data.shapes[:, 1]).to(device))

    def make_batch(
        self, indices: np.ndarray, boxes: np.ndarray, flips: np.ndarray, input_px: int
    ) -> torch.Tensor:
        """Crop, resize, flip and normalise images on the device.

        The filter is that of `iqray.training.batches.make_batch`: bilinear, antialiased, rounded to
        whole levels. Here it is a product with the filter's weights along each side.

        Args:
            indices: (N,) int64.
            boxes: (N, 4) int64, top, left, height, width, inside the images.
            flips: (N,) bool, mirror left to right.
            input_px: side of the network input, pixels.

        Returns:
            (N, 3, input_px, input_px) float32 in channels-last memory order, on the device.
        """
        device = self.pixels.device
        levels = torch.empty((len(indices), input_px, input_px, 3), device=device)
        for part in _split(boxes):
            box = torch.from_numpy(boxes[part]).to(device)
            chosen = torch.from_numpy(indices[part]).to(device)
            mirrored = torch.from_numpy(flips[part]).to(device)
            crops = self._cut_out(chosen, box, *boxes[part, 2:].max(axis=0).tolist())
            rows = _weigh(box[:, 2], crops.shape[1], input_px)
            columns = _weigh(box[:, 3], crops.shape[2], input_px)
            columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
            levels[part] = torch.einsum("nyh,nhwc,nxw->nyxc", rows, crops, columns)
        mean, std = (torch.tensor(values, device=device) for values in (MEAN, STD))
        return ((levels.round_() / 255 - mean) / std).permute(0, 3, 1, 2)

    def _cut_out(
        self, indices: torch.Tensor, boxes: torch.Tensor, height: int, width: int
    ) -> torch.Tensor:
        """Crops, each in the top left of (height, width, 3): (N, height, width, 3) float32.

        What a smaller crop leaves over repeats its last row and column, to which no weight goes.
        """
        device = self.pixels.device
        tops, lefts, heights, widths = boxes[:, :, None, None].unbind(1)
        y = torch.minimum(torch.arange(height, device=device)[:, None], heights - 1)
        x = torch.minimum(torch.arange(width, device=device), widths - 1)
        starts, strides = self.starts[indices], self.widths[indices]
        places = (tops + y) * strides[:, None, None] + lefts + x
        return self.pixels[starts[:, None, None] + places].to(torch.float32)


def _split(boxes: np.ndarray) -> Iterator[slice]:
    """Parts of a batch whose crops fit into a chunk."""
    largest = int(boxes[:, 2:].max(axis=0).prod())
    step = max(1, _CHUNK_PIXELS // largest)
    return (slice(start, start + step) for start in range(0, len(boxes), step))


def _weigh(sizes: torch.Tensor, largest: int, input_px: int) -> torch.Tensor:
    """Weights of a crop's rows or columns in those of the input: (N, input_px, largest) float32.

    A triangle around each centre, as wide as the scale where images shrink, that adds up to 1
    inside the crop: Pillow's and torch's antialiased bilinear filter.

    Args:
        sizes: (N,) int64, of the crops along one side, pixels.
        largest: of them.
        input_px: side of the network input, pixels.
    """
    scales = (sizes.to(torch.float32) / input_px)[:, None, None]
    centres = (torch.arange(input_px, device=sizes.device)[:, None] + 0.5) * scales
    places = torch.arange(largest, device=sizes.device)
    distances = (places + 0.5 - centres).abs() / scales.clamp(min=1)
    weights = (1 - distances).clamp(min=0) * (places < sizes[:, None, None])
    return weights / weights.sum(dim=2, keepdim=True)
