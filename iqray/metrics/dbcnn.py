"""DBCNN's forward pass: pyiqa's with faster convolutions, and in bounded memory.

BatchNorm is folded into the convolutions of its branch for synthetic distortions; images too large
for memory pass in strips. Source: pyiqa 0.1.16, archs/dbcnn_arch.py.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from iqray.metrics.precision import PreciseForward
from iqray.metrics.strips import (
    LARGE_STRIP_PX,
    Convolution,
    Normalize,
    Pool,
    RowLayer,
    run_layers,
)

_EPS = 1e-8  # what pyiqa adds below the square root


class DbcnnForward(PreciseForward):
    """DBCNN: VGG16 and SCNN side by side, their maps multiplied and pooled.

    Args:
        network: pyiqa's DBCNN, in eval mode.
        precision: one of `iqray.metrics.precision.PRECISIONS`. Only the two branches compute in
            bfloat16; their product, its root and the regression are always in float32.
    """

    def __init__(self, network: Any, precision: str = "fp32") -> None:
        super().__init__(precision)
        self.normalize = Normalize(network.default_mean, network.default_std)
        self.content = nn.ModuleList(_read_layers(network.features1))
        self.distortion = nn.ModuleList(_read_layers(network.features2))
        self.regression = network.fc
        self.strip_px = LARGE_STRIP_PX
        self._store_weights(self.content, self.distortion)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (num_images, 1)."""
        with self._compute_heavy_part(images.device):
            content = self._look_at_content(images).float()
            distortion = self._run([self.normalize, *self.distortion], images).float()
        if content.shape[-2:] != distortion.shape[-2:]:
            size = content.shape[-2:]
            distortion = functional.interpolate(
                distortion, size, mode="bilinear", align_corners=True
            )
        num_positions = content.shape[-2] * content.shape[-1]
        product = content.flatten(2) @ distortion.flatten(2).transpose(1, 2) / num_positions
        return self.regression(functional.normalize((product.flatten(1) + _EPS).sqrt()))

    def _look_at_content(self, images: torch.Tensor) -> torch.Tensor:
        """VGG16's maps. Two blocks and then one in strips: a strip of all would be mostly borders.

        Behind them maps have a 64th of the image's size, and pass whole.
        """
        ends = [index + 1 for index, layer in enumerate(self.content) if isinstance(layer, Pool)]
        maps = self._run([self.normalize, *self.content[: ends[1]]], images)
        maps = self._run(self.content[ends[1] : ends[2]], maps, shrinkage=16)
        return run_layers(self.content[ends[2] :], maps)

    def _run(self, layers: Any, maps: torch.Tensor, shrinkage: int = 1) -> torch.Tensor:
        return run_layers(layers, maps, max(1, self.strip_px // shrinkage))


def _read_layers(modules: Any) -> Iterator[RowLayer]:
    """Layers of a sequence of convolution, BatchNorm (or none) and ReLU, with poolings between."""
    modules = list(modules)
    for index, module in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            follower = modules[index + 1]
            yield Convolution(module, follower if isinstance(follower, nn.BatchNorm2d) else None)
        elif isinstance(module, nn.MaxPool2d):
            yield Pool(module)
