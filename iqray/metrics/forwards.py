"""Each metric's way from pixels to score: pyiqa's, without work that cannot change the score.

CLIP-IQA encodes its ten prompts once instead of for every image, CNN-IQA takes global extrema
instead of pooling with a window as large as the image, MUSIQ leaves out padding tokens, which
attention ignores, BRISQUE and NIQE run as compiled kernels on CPUs. Scores stay those of pyiqa's
own forward, to 1e-5 relative (CNN-IQA 1e-6).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pyiqa.data.multiscale_trans_util import get_multiscale_patches
from torch import nn
from torch.nn import functional


def build_forward(metric: str, network: nn.Module) -> nn.Module:
    """Build the fastest exact forward pass of a metric.

    Args:
        metric: pyiqa's name.
        network: from `iqray.metrics.networks.load_network`, on the CPU; not to be used any more.

    Returns:
        A module from (num_images, 3, height, width) float32 RGB in [0, 1] to num_images scores.
    """
    return _FORWARDS[metric](network) if metric in _FORWARDS else network


def build_image_scorer(metric: str, network: nn.Module) -> Callable[[np.ndarray], float] | None:
    """Build a metric's score of one image at a time on the CPU, where that beats its network.

    Args:
        metric: pyiqa's name.
        network: from `iqray.metrics.networks.load_network`, on the CPU.

    Returns:
        A function from (height, width, 3) uint8 RGB to the score, which is NaN or raises where
        pyiqa's is or does; None for metrics that have no such function.
    """
    # Imported here, since numba takes half a second.
    if metric == "brisque":
        from iqray.metrics.brisque import BrisqueScorer

        return BrisqueScorer(network)
    if metric == "niqe":
        from iqray.metrics.niqe import NiqeScorer

        return NiqeScorer(network)
    return None


class ClipiqaForward(nn.Module):
    """CLIP-IQA with its prompts encoded beforehand; the text tower (250 MB) is not kept."""

    text: torch.Tensor  # (10, dim), of length 1
    scale: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        [model] = network.clip_model
        self.visual = model.visual
        with torch.inference_mode():
            text = model.encode_text(network.prompt_pairs)
            self.register_buffer("text", text / text.norm(dim=-1, keepdim=True))
            self.register_buffer("scale", model.logit_scale.exp())
        self.register_buffer("mean", network.default_mean)
        self.register_buffer("std", network.default_std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mean over five pairs of prompts of the probability of the good one, in [0, 1]."""
        embeddings = self.visual((images - self.mean) / self.std, pos_embedding=False)
        embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
        logits = self.scale * embeddings @ self.text.t()  # (num_images, 10): good, bad, good, ...
        return logits.reshape(len(images), -1, 2).softmax(dim=-1)[..., 0].mean(dim=1)


class CnniqaForward(nn.Module):
    """CNN-IQA with global extrema by reduction."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (num_images, 1)."""
        maps = self.network.conv1(images)
        extrema = torch.cat((maps.amax(dim=(-2, -1)), maps.amin(dim=(-2, -1))), dim=1)
        hidden = functional.relu(self.network.fc1(extrema))
        return self.network.fc3(functional.relu(self.network.fc2(hidden)))


class MusiqForward(nn.Module):
    """MUSIQ without its padding tokens."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        # With its own flag set, MUSIQ takes tokens in place of images; its parts stay in eval mode.
        network.training = True

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (num_images, 1)."""
        options = self.network.data_preprocess_opts
        tokens = get_multiscale_patches((images - 0.5) * 2, **options)
        is_real = tokens[0, :, -1].bool()  # images of one shape are padded alike
        return self.network(tokens[:, is_real])


_FORWARDS: dict[str, Callable[[Any], nn.Module]] = {
    "clipiqa": ClipiqaForward,
    "cnniqa": CnniqaForward,
    "musiq": MusiqForward,
}
