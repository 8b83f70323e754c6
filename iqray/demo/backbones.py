"""Seeded backbones that let image quality through to the last layer.

A network at its usual random start forgets sharpness and noise within a few layers: a linear map
fitted to its last layer on 96 images orders held-out severity with |Spearman| 0.17 (DBCNN), 0.33
(MUSIQ) and 0.42 (CLIP ResNet-50). What keeps them:

1. the first convolution takes seeded filters of fine scale and zero mean, as the first layers of
   trained networks do;
2. later convolutions pass their channels on (a centre tap: the identity, or random orthogonal
   mixing where the number of channels changes; "delta-orthogonal", Xiao et al. 2018);
3. residual branches start at zero, as OpenAI's CLIP initialises its ResNets.

Nothing in a backbone is fitted to images.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from iqray.distortions import Pixels

FILTER_SD_PX = 0.6  # of the Gaussian window of the first layer's filters
MIXING_BIAS_SD = 0.1  # makes ReLUs switch at various strengths, where a convolution has a bias


@contextmanager
def seed_torch(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def to_tensor(image: Pixels) -> torch.Tensor:
    """(1, 3, H, W) float32 in [0, 1] of an (H, W, 3) uint8 image."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


@torch.no_grad()
def draw_filters(convolution: nn.Conv2d, sds_px: Sequence[float] = (FILTER_SD_PX,)) -> None:
    """Fill a first convolution with noise under Gaussian windows: zero mean, length 1, bias 0.

    Args:
        convolution: changed in place.
        sds_px: standard deviations of the windows; output channels take them in turns.
    """
    num_filters, _, side, _ = convolution.weight.shape
    offset = torch.arange(side) - (side - 1) / 2
    squared_px = (offset[:, None] ** 2 + offset[None, :] ** 2)[None, None]
    sd_px = torch.tensor([sds_px[i % len(sds_px)] for i in range(num_filters)])
    window = torch.exp(-squared_px / (2 * sd_px.reshape(-1, 1, 1, 1) ** 2))
    window = window / window.sum((2, 3), keepdim=True)
    filters = torch.randn(convolution.weight.shape) * window
    filters = filters - window * filters.sum((2, 3), keepdim=True)
    filters = filters / filters.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    convolution.weight.copy_(filters)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


@torch.no_grad()
def pass_channels(convolution: nn.Conv2d) -> None:
    """Make a convolution hand on what it gets, without looking at neighbouring pixels.

    With as many channels out as in it is the identity; else it mixes them by a random orthogonal
    matrix times sqrt(2) (He et al. 2015: a ReLU halves the power) and has small random biases.
    """
    num_out, num_in, side, _ = convolution.weight.shape
    if num_out == num_in:
        nn.init.dirac_(convolution.weight)
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
        return
    nn.init.zeros_(convolution.weight)
    mixing = nn.init.orthogonal_(torch.empty(num_out, num_in), gain=2**0.5)
    convolution.weight[:, :, side // 2, side // 2] = mixing
    if convolution.bias is not None:
        nn.init.normal_(convolution.bias, std=MIXING_BIAS_SD)


@torch.no_grad()
def compute_layer_inputs(
    network: nn.Module, layer: nn.Module, images: Sequence[Pixels]
) -> npt.NDArray[np.float32]:
    """What reaches a layer of a network for each image, (num_images, dim) float32.

    Args:
        network: in eval mode; takes (1, 3, H, W) in [0, 1].
        layer: called once in the network's forward, with (1, dim).
        images: each (H, W, 3) uint8, RGB.
    """
    inputs: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        for image in images:
            network(to_tensor(image))
    finally:
        hook.remove()
    return torch.cat(inputs).numpy()


@torch.no_grad()
def round_to_half(network: torch.nn.Module) -> None:
    """Round all floating-point weights to the nearest float16 value, in place; they stay float32.

    What is fitted on top of them then fits the weights that are read back from the file.
    """
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
