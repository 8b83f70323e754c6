"""CLIP-IQA's forward pass: pyiqa's with its ten prompts encoded once instead of for every image.

BatchNorm is folded into the convolutions. Pooling by attention has one query only, so that neither
keys nor values need be computed for every position. Images too large for memory pass in strips.
Source: pyiqa 0.1.16, archs/clipiqa_arch.py and clip_model.py.
"""

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


class ClipiqaForward(PreciseForward):
    """CLIP-IQA with its prompts encoded beforehand; the text tower (250 MB) is not kept.

    Args:
        network: pyiqa's CLIP-IQA around a CLIP ResNet, in eval mode.
        precision: one of `iqray.metrics.precision.PRECISIONS`. Only the ResNet computes in
            bfloat16; pooling by attention and what follows are always in float32.
    """

    text: torch.Tensor  # (10, dim), of length 1
    scale: torch.Tensor

    def __init__(self, network: Any, precision: str = "fp32") -> None:
        super().__init__(precision)
        [model] = network.clip_model
        with torch.inference_mode():
            text = model.encode_text(network.prompt_pairs)
            self.register_buffer("text", text / text.norm(dim=-1, keepdim=True))
            self.register_buffer("scale", model.logit_scale.exp())
        visual = model.visual
        blocks = [
            [Bottleneck(block) for block in layer]
            for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        ]
        normalize = Normalize(network.default_mean, network.default_std)
        # In strips: all that has a 16th of the image's pixels or more, with many channels.
        self.front = nn.ModuleList([normalize, *_read_stem(visual), *blocks[0], blocks[1][0]])
        self.rest = nn.ModuleList([*blocks[1][1:], *blocks[2], *blocks[3]])
        self.pool = AttentionPool(visual.attnpool)
        self.strip_px = LARGE_STRIP_PX
        self._store_weights(self.front, self.rest)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mean over five pairs of prompts of the probability of the good one, in [0, 1]."""
        with self._compute_heavy_part(images.device):
            maps = run_layers(self.front, images, self.strip_px)
            maps = run_layers(self.rest, maps)
        embeddings = self.pool(maps.float())
        embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
        logits = self.scale * embeddings @ self.text.t()  # (num_images, 10): good, bad, good, ...
        return logits.reshape(len(images), -1, 2).softmax(dim=-1)[..., 0].mean(dim=1)


class Bottleneck(RowLayer):
    """A residual block of CLIP's ResNet: 1 x 1, 3 x 3, average pooling if it halves, 1 x 1."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.halves = not isinstance(block.avgpool, nn.Identity)
        self.size, self.stride, self.padding = (4, 2, 1) if self.halves else (3, 1, 1)
        self.narrow = Convolution(block.conv1, block.bn1)
        self.middle = Convolution(block.conv2, block.bn2)
        self.widen = Convolution(block.conv3, block.bn3, has_relu=False)
        self.shortcut = None
        if block.downsample is not None:
            _, convolution, norm = block.downsample
            self.shortcut = Convolution(convolution, norm, has_relu=False)

    def forward(self, rows: torch.Tensor, above: int, below: int) -> torch.Tensor:
        """Rows of the block's output."""
        own = rows[:, :, 1 - above : rows.shape[-2] - 1 + below]
        inner = self.middle(self.narrow(rows, 0, 0), above, below)
        if self.halves:
            inner, own = functional.avg_pool2d(inner, 2), functional.avg_pool2d(own, 2)
        if self.shortcut is not None:
            own = self.shortcut(own, 0, 0)
        return self.widen(inner, 0, 0).add_(own).relu_()


class AttentionPool(nn.Module):
    """Attention of the mean position to all, without position embeddings.

    The query q meets each key W x + b only as q W x + q b, of which the last is the same for all
    and drops out of the softmax; values, too, are linear and can be weighted before they are made.
    """

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (
            pool.q_proj,
            pool.k_proj,
            pool.v_proj,
            pool.c_proj,
        )
        self.num_heads = pool.num_heads

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Embeddings (num_images, dim) of maps (num_images, channels, height, width)."""
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat((tokens.mean(dim=1, keepdim=True), tokens), dim=1)
        query = self.query(tokens[:, 0]).unflatten(1, (self.num_heads, -1))
        keys, values = (
            layer.weight.unflatten(0, (self.num_heads, -1)) for layer in (self.key, self.value)
        )
        probe = torch.einsum("nhd,hdc->nhc", query * query.shape[-1] ** -0.5, keys)
        attention = (probe @ tokens.transpose(1, 2)).softmax(dim=-1)
        pooled = torch.einsum("nhc,hdc->nhd", attention @ tokens, values)
        return self.output(pooled.flatten(1) + self.value.bias)


def _read_stem(visual: Any) -> list[RowLayer]:
    return [
        Convolution(visual.conv1, visual.bn1),
        Convolution(visual.conv2, visual.bn2),
        Convolution(visual.conv3, visual.bn3),
        Pool(visual.avgpool),
    ]
