"""MUSIQ's forward pass: pyiqa's without padding tokens, and for images of several shapes at once.

Weights are standardised once, tokens are embedded some at a time, attention never makes a matrix of
all pairs of tokens, and its last layer asks for the one token that is read. Images of unlike shapes
share a batch in which attention is kept from the tokens that fill up the shorter ones.
Source: pyiqa 0.1.16, archs/musiq_arch.py and data/multiscale_trans_util.py.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pyiqa.archs.arch_util import dist_to_mos
from pyiqa.data.multiscale_trans_util import (
    get_hashed_spatial_pos_emb_index,
    resize_preserve_aspect_ratio,
)
from torch import nn
from torch.nn import functional

from iqray.metrics.precision import PreciseForward
from iqray.metrics.strips import choose_strip_px

_STANDARD_EPS = 1e-5  # what pyiqa adds to the deviation of a filter's weights

# Tokens embedded at a time: 64 maps of 16 x 16 px for each, 64 KiB in float32.
_CPU_TOKENS = 64
_ACCELERATOR_TOKENS = 2**13


class MusiqForward(PreciseForward):
    """MUSIQ on any number of images of any shapes.

    Args:
        network: pyiqa's MUSIQ, in eval mode.
        precision: one of `iqray.metrics.precision.PRECISIONS`. In bfloat16, normalisations, the
            residual stream and the head are still in float32.
    """

    def __init__(self, network: Any, precision: str = "fp32") -> None:
        super().__init__(precision)
        options = network.data_preprocess_opts
        self._patch_px, self._grid_size = options["patch_size"], options["hse_grid_size"]
        self._longer_sides = sorted(options["longer_side_lengths"])
        self.embedding = PatchEmbedding(network)
        encoder = network.transformer_encoder
        self.positions, self.scales = encoder.posembed_input, encoder.scaleembed_input
        self.first_token = encoder.cls
        self.blocks = nn.ModuleList(EncoderBlock(each) for each in encoder.transformer.values())
        self.norm, self.head = encoder.encoder_norm, network.head
        self._store_weights(self.embedding, self.blocks)

    def forward(self, images: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """Scores (num_images, 1) of images (3, height, width) each."""
        with self._compute_heavy_part(images[0].device):
            sequences = [self._embed(image[None]) for image in images]
            tokens = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
            is_real = _mark_tokens([len(sequence) for sequence in sequences], tokens)
            for block in self.blocks[:-1]:
                tokens = block(tokens, is_real)
            read = self.blocks[-1](tokens, is_real, num_queries=1)[:, 0]
        return dist_to_mos(self.head(self.norm(read.float())))

    def _embed(self, image: torch.Tensor) -> torch.Tensor:
        """Tokens (1 + num_patches, dim) of an image (1, 3, height, width) at all its scales."""
        image = (image - 0.5).mul_(2)
        height, width = image.shape[-2:]
        embedded = [self.first_token[0]]
        for scale, longer_side in enumerate([*self._longer_sides, None]):
            scaled = image
            if longer_side is not None:
                scaled, *_ = resize_preserve_aspect_ratio(image, height, width, longer_side)
            embedded.append(self._embed_scale(scaled, scale))
        return torch.cat(embedded)

    def _embed_scale(self, image: torch.Tensor, scale: int) -> torch.Tensor:
        patches, num_rows, num_columns = cut_patches(image, self._patch_px)
        if scale < len(self._longer_sides):
            # pyiqa reserves a square of tokens for a resized image and cuts off what exceeds it.
            limit = (-(-self._longer_sides[scale] // self._patch_px)) ** 2
            patches = patches[:limit]
        positions = get_hashed_spatial_pos_emb_index(self._grid_size, num_rows, num_columns)
        embedded = self.embedding(patches)
        places = positions[0, : len(embedded)].long().to(embedded.device)
        return embedded + self.positions.position_emb[0, places] + self.scales.scale_emb[scale]


class PatchEmbedding(nn.Module):
    """From patches to tokens: a small ResNet with standardised weights, and a linear map."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.root, self.root_norm = _standardize(network.conv_root), network.gn_root
        block = network.block1
        self.narrow, self.narrow_norm = _standardize(block.conv1), block.gn1
        self.middle, self.middle_norm = _standardize(block.conv2), block.gn2
        self.widen, self.widen_norm = _standardize(block.conv3), block.gn3
        self.shortcut, self.shortcut_norm = _standardize(block.conv_proj), block.gn_proj
        self.linear = network.embedding
        self.num_tokens: int | None = None

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Tokens (num_patches, dim) of patches (num_patches, 3, side, side)."""
        step = self.num_tokens or choose_strip_px(patches, _CPU_TOKENS, _ACCELERATOR_TOKENS)
        return torch.cat([self._embed(part) for part in patches.split(step)]).float()

    def _embed(self, patches: torch.Tensor) -> torch.Tensor:
        maps = self.root_norm(self.root(_pad_same(patches, 7))).relu_()
        # Behind a ReLU, zeros around a map never win in max pooling.
        maps = functional.max_pool2d(_pad_same(maps, 3), 3, 2)
        shortcut = self.shortcut_norm(self.shortcut(maps))
        maps = self.narrow_norm(self.narrow(maps)).relu_()
        maps = self.middle_norm(self.middle(maps)).relu_()
        maps = self.widen_norm(self.widen(maps)).add_(shortcut).relu_()
        return self.linear(maps.permute(0, 2, 3, 1).flatten(1))  # TensorFlow's order of channels


class EncoderBlock(nn.Module):
    """A layer of the transformer, with queries, keys and values from one matrix product."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention = block.attention
        self.num_heads = attention.num_heads
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.project = _join_linear(attention.query, attention.key, attention.value)
        self.output = attention.out

    def forward(
        self, tokens: torch.Tensor, is_real: torch.Tensor | None, num_queries: int | None = None
    ) -> torch.Tensor:
        """Tokens (num_images, num_queries or all, dim).

        Args:
            tokens: (num_images, num_tokens, dim).
            is_real: (num_images, 1, 1, num_tokens) bool, whether to attend to a token; None: all.
            num_queries: how many of the first tokens are asked for; all if None.
        """
        projected = self.project(self.norm1(tokens)).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        queries = queries[:, :, :num_queries]
        attended = functional.scaled_dot_product_attention(queries, keys, values, is_real)
        tokens = tokens[:, :num_queries] + self.output(attended.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm2(tokens))


def cut_patches(image: torch.Tensor, side: int) -> tuple[torch.Tensor, int, int]:
    """Cut an image into square patches, with zeros around it as in TensorFlow's padding `SAME`.

    Args:
        image: (1, channels, height, width).
        side: of a patch, pixels.

    Returns:
        Patches (rows * columns, channels, side, side) with channels last, rows, columns.
    """
    height, width = image.shape[-2:]
    num_rows, num_columns = -(-height // side), -(-width // side)
    below, right = num_rows * side - height, num_columns * side - width
    borders = (right // 2, right - right // 2, below // 2, below - below // 2)
    padded = functional.pad(image, borders)[0].permute(1, 2, 0)
    tiles = padded.unflatten(0, (num_rows, side)).unflatten(2, (num_columns, side))
    patches = tiles.transpose(1, 2).flatten(0, 1)
    return patches.permute(0, 3, 1, 2), num_rows, num_columns


def _pad_same(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Zeros for a window with stride 2 over maps of even sides, as in TensorFlow's `SAME`."""
    total = size - 2
    return functional.pad(maps, (total // 2, total - total // 2) * 2)


def _standardize(convolution: Any) -> nn.Conv2d:
    """A convolution with weights standardised per filter, as pyiqa's StdConv does on every call."""
    weight = convolution.weight
    weight = weight - weight.mean((1, 2, 3), keepdim=True)
    weight = weight / (weight.std((1, 2, 3), keepdim=True) + _STANDARD_EPS)
    size = convolution.kernel_size
    padding = size[0] // 2 if convolution.stride == (1, 1) else 0
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        size,
        convolution.stride,
        padding,
        bias=False,
    )
    plain.weight.data = weight.contiguous(memory_format=torch.channels_last)
    return plain.eval().requires_grad_(False)


def _join_linear(*layers: nn.Linear) -> nn.Linear:
    """One layer with the outputs of several, one behind another."""
    joined = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers))
    joined.weight.data = torch.cat([layer.weight for layer in layers])
    joined.bias.data = torch.cat([layer.bias for layer in layers])
    return joined.requires_grad_(False)


def _mark_tokens(lengths: Sequence[int], tokens: torch.Tensor) -> torch.Tensor | None:
    """Which tokens are an image's own, (num_images, 1, 1, num_tokens) bool; None if all are."""
    if min(lengths) == tokens.shape[1]:
        return None
    own = torch.tensor(lengths, device=tokens.device)
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return (places < own[:, None])[:, None, None]
