"""Seeded random weights for the six metrics in pyiqa's file formats, and images to score."""

import math
from pathlib import Path

import numpy as np
import scipy.io
import torch
from pyiqa.archs.clip_model import CLIP
from scipy.ndimage import gaussian_filter

from iqray.metrics.networks import create_network
from iqray.metrics.registry import find_metric


def write_random_weights(directory: Path) -> None:
    """Write all six metrics' files; scores lie within the metrics' usual ranges."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _save("brisque", directory, (20 * torch.randn(50), 2 * torch.rand(50, 36) - 1))
        _save("clipiqa", directory, build_small_clip().state_dict())
        _save("cnniqa", directory, {"params": _draw_state("cnniqa", "fc3.bias", 0.5)})
        _save("dbcnn", directory, {"params": _draw_state("dbcnn", "fc.bias", 0.5)})
        _save("musiq", directory, _draw_state("musiq", "head.bias", 50.0))
        spread = torch.randn(36, 36).double().numpy()
    gaussian = {"mu_prisparam": np.ones((1, 36)), "cov_prisparam": spread @ spread.T + np.eye(36)}
    scipy.io.savemat(directory / "niqe_modelparameters.mat", gaussian)


def build_small_clip() -> CLIP:
    """A CLIP ResNet of RN50's form that is small: pyiqa reads its sizes from the state dict."""
    model = CLIP(
        embed_dim=32,
        image_resolution=64,
        vision_layers=(1, 1, 1, 1),
        vision_width=8,
        vision_patch_size=None,
        context_length=77,
        vocab_size=49408,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=1,
    )
    model.logit_scale.data.fill_(math.log(100))  # as published; untrained scores differ little
    return model.eval()


def draw_texture(height: int, width: int, seed: int) -> np.ndarray:
    """A colour image with detail at several scales, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height, width, 3))
    layers = [gaussian_filter(noise, (sigma, sigma, 0)) * sigma for sigma in (0.6, 2.0, 5.0)]
    return np.clip(128 + 60 * sum(layers), 0, 255).astype(np.uint8)


def _save(metric: str, directory: Path, content: object) -> None:
    torch.save(content, directory / find_metric(metric).weight_files[0])


def _draw_state(metric: str, bias: str, value: float) -> dict[str, torch.Tensor]:
    state = create_network(metric).state_dict()
    state[bias].fill_(value)
    return state
