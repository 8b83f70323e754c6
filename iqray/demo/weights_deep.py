"""Fits the demo's CNN-IQA, DBCNN and MUSIQ: seeded backbones, last linear map in closed form.

Writes `CNNIQA_koniq10k-e6f14c91.pth`, `DBCNN_KonIQ10k-2de81c0a.pth` and
`musiq_koniq_ckpt-e95806b9.pth` as pyiqa reads them. Higher is better for all three.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from iqray.demo.backbones import (
    compute_layer_inputs,
    draw_filters,
    pass_channels,
    round_to_half,
    seed_torch,
    to_tensor,
)
from iqray.demo.fit_images import draw_fit_images
from iqray.demo.solvers import solve_ridge
from iqray.demo.weight_files import halve, write_weight_file
from iqray.distortions import Pixels
from iqray.metrics.networks import create_network

NUM_CNNIQA_IMAGES = 160
NUM_DBCNN_IMAGES = 48
NUM_MUSIQ_IMAGES = 80

# MUSIQ looks at an image at its own size and enlarged to 224 and 384 px, so the share of each in
# its score depends on the longer side: its fit images have the demo's.
MUSIQ_SIZES_PX = ((128, 192), (192, 128))
MUSIQ_SCALE = 100.0  # opinion scores of KonIQ-10k run from 0 to 100; CNN-IQA's and DBCNN's to 1

# MUSIQ divides filters by pairs by their common strength, patch by patch (group normalisation). A
# fine and a coarse filter in a pair leave the ratio of fine to coarse detail: sharpness.
MUSIQ_FILTER_SDS_PX = (0.6, 2.0)


def fit_cnniqa(directory: Path, seed: int) -> None:
    """Fit CNN-IQA: extremes of fine filters, two random layers, and a fitted linear map.

    Args:
        directory: where the file goes.
        seed: of the backbone and the fit images.
    """
    fit = draw_fit_images(NUM_CNNIQA_IMAGES, seed)
    with seed_torch(seed):
        network: Any = create_network("cnniqa")
        draw_filters(network.conv1)
        _draw_random_layers(network, fit.images)
    round_to_half(network)
    _fit_last_layer(network, network.fc3, fit.images, fit.quality)
    state = halve(network.state_dict(), keep=("fc3.weight", "fc3.bias"))
    write_weight_file(directory, "cnniqa", lambda file: torch.save({"params": state}, file))


def fit_dbcnn(directory: Path, seed: int) -> None:
    """Fit DBCNN: the products of two seeded branches' channels, and a fitted linear map.

    Args:
        directory: where the file goes.
        seed: of the backbone and the fit images.
    """
    fit = draw_fit_images(NUM_DBCNN_IMAGES, seed)
    with seed_torch(seed):
        network: Any = create_network("dbcnn")
        for branch in (network.features1, network.features2):
            first, *others = [layer for layer in branch if isinstance(layer, nn.Conv2d)]
            draw_filters(first)
            for convolution in others:
                pass_channels(convolution)
    round_to_half(network)
    _fit_last_layer(network, network.fc, fit.images, fit.quality)
    state = halve(network.state_dict(), keep=("fc.weight", "fc.bias"))
    write_weight_file(directory, "dbcnn", lambda file: torch.save({"params": state}, file))


def fit_musiq(directory: Path, seed: int) -> None:
    """Fit MUSIQ: tokens of detail at three sizes, averaged by attention, and a fitted linear map.

    Args:
        directory: where the file goes.
        seed: of the backbone and the fit images.
    """
    fit = draw_fit_images(NUM_MUSIQ_IMAGES, seed, MUSIQ_SIZES_PX)
    with seed_torch(seed):
        network: Any = create_network("musiq")
        _initialise_musiq(network)
    round_to_half(network)
    encoder = network.transformer_encoder
    blocks = encoder.transformer
    # All blocks but the first add nothing yet, so the fit leaves them out: half the time.
    encoder.transformer = nn.ModuleDict(dict(list(blocks.items())[:1]))
    _fit_last_layer(network, network.head, fit.images, MUSIQ_SCALE * fit.quality)
    encoder.transformer = blocks
    state = halve(network.state_dict(), keep=("head.weight", "head.bias"))
    write_weight_file(directory, "musiq", lambda file: torch.save(state, file))


@torch.no_grad()
def _draw_random_layers(network: Any, images: tuple[Pixels, ...]) -> None:
    """Random ReLU layers of CNN-IQA, the first on inputs of mean 0 and deviation 1 over images."""
    # In float16, as the file will hold them.
    round_to_half(network.conv1)
    extremes = [_compute_extremes(network.conv1, image) for image in images]
    deviation, mean = torch.std_mean(torch.cat(extremes), dim=0)
    for layer in (network.fc1, network.fc2):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.normal_(network.fc1.bias)
    nn.init.zeros_(network.fc2.bias)
    network.fc1.weight.div_(deviation)
    network.fc1.bias.sub_(network.fc1.weight @ mean)


def _compute_extremes(convolution: nn.Module, image: Pixels) -> torch.Tensor:
    """Largest and smallest response of each filter, as CNN-IQA pools, (1, 2 x num_filters)."""
    responses = convolution(to_tensor(image))
    return torch.cat([responses.amax((2, 3)), responses.amin((2, 3))], dim=1)


@torch.no_grad()
def _initialise_musiq(network: Any) -> None:
    """Tokens hold the mean strength of each channel in a patch; one block averages the tokens."""
    draw_filters(network.conv_root, MUSIQ_FILTER_SDS_PX)
    nn.init.zeros_(network.block1.gn3.weight)
    num_channels = network.block1.conv3.out_channels
    num_dims, num_inputs = network.embedding.weight.shape
    num_positions = num_inputs // num_channels  # in a patch; channels vary fastest
    mixing = torch.randn(num_dims, num_channels) / num_channels**0.5
    network.embedding.weight.copy_(mixing.repeat(1, num_positions) / num_positions)
    first, *others = network.transformer_encoder.transformer.values()
    nn.init.orthogonal_(first.attention.value.weight)
    nn.init.orthogonal_(first.attention.out.weight)
    nn.init.kaiming_normal_(first.mlp.fc1.weight, nonlinearity="relu")
    nn.init.kaiming_normal_(first.mlp.fc2.weight, nonlinearity="linear")
    for block in others:
        for layer in (block.attention.out, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


@torch.no_grad()
def _fit_last_layer(
    network: nn.Module,
    layer: nn.Module,
    images: tuple[Pixels, ...],
    targets: npt.NDArray[np.float64],
) -> None:
    """Solve a linear layer with one output so that the network estimates the targets."""
    assert isinstance(layer, nn.Linear)
    weights, bias = solve_ridge(compute_layer_inputs(network, layer, images), targets)
    layer.weight.copy_(torch.from_numpy(weights)[None])
    layer.bias.fill_(bias)
