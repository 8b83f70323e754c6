"""CNN-IQA's forward pass, in strips: pyiqa's without its pooling window as large as the image.

Global extrema are reductions, and those of strips give those of the whole. A strip's 50 maps stay
in the processor's cache between the convolution and its extrema, and no image is too large.
Source: pyiqa 0.1.16, archs/cnniqa_arch.py.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from iqray.compiling import compile_kernel
from iqray.metrics.precision import PreciseForward
from iqray.metrics.strips import Convolution, choose_strip_px, cut_strips

# Measured at 500 x 375 on one thread: 2^13 to 2^16 px a strip are alike.
_CPU_STRIP_PX = 2**15
_ACCELERATOR_STRIP_PX = 2**22


class CnniqaForward(PreciseForward):
    """CNN-IQA with global extrema by reduction.

    Args:
        network: pyiqa's CNN-IQA, in eval mode.
        precision: one of `iqray.metrics.precision.PRECISIONS`. Extrema and what follows them are
            always in float32.
    """

    def __init__(self, network: Any, precision: str = "fp32") -> None:
        super().__init__(precision)
        self.convolution = Convolution(network.conv1, has_relu=False)
        self.fc1, self.fc2, self.fc3 = network.fc1, network.fc2, network.fc3
        self.strip_px: int | None = None
        self._store_weights(self.convolution)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (num_images, 1)."""
        strip_px = self.strip_px or choose_strip_px(images, _CPU_STRIP_PX, _ACCELERATOR_STRIP_PX)
        with self._compute_heavy_part(images.device):
            strips = cut_strips([self.convolution], images, strip_px)
            highest, lowest = _find_extrema(next(strips))
            for maps in strips:
                higher, lower = _find_extrema(maps)
                highest, lowest = highest.maximum(higher), lowest.minimum(lower)
        shape = (len(images), -1, self.fc1.in_features // 2)
        extrema = (highest.reshape(shape).amax(dim=1), lowest.reshape(shape).amin(dim=1))
        hidden = torch.cat(extrema, dim=1).float()
        hidden = functional.relu(self.fc1(hidden))
        return self.fc3(functional.relu(self.fc2(hidden)))


def _find_extrema(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Highest and lowest values down the rows, (num_images, width * channels) each.

    Passes down the rows run along memory, which those over rows and columns at once do not.
    """
    rows = maps.permute(0, 2, 3, 1).flatten(2)
    if not (rows.is_cpu and rows.dtype == torch.float32):
        return rows.amax(dim=1), rows.amin(dim=1)
    highest, lowest = rows[:, 0].clone(), rows[:, 0].clone()
    for image in range(len(rows)):
        _widen(rows[image].numpy(), highest[image].numpy(), lowest[image].numpy())
    return highest, lowest


@compile_kernel()
def _widen(rows: np.ndarray, highest: np.ndarray, lowest: np.ndarray) -> None:
    """Widen extrema by rows of values, both in one pass: half the time of torch's two.

    Args:
        rows: (num_rows, num_values) float32.
        highest: (num_values,) float32, overwritten.
        lowest: likewise.
    """
    for row in rows:
        for index in range(len(row)):
            value = row[index]
            highest[index] = value if value > highest[index] else highest[index]
            lowest[index] = value if value < lowest[index] else lowest[index]
