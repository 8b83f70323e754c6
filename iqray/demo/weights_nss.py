"""Fits the demo's NIQE and BRISQUE: natural-scene statistics of generated images.

Writes `niqe_modelparameters.mat` and `brisque_svm_weights.pth` as pyiqa reads them. The statistics
come from pyiqa's own code, so that fit and score agree.
"""

from pathlib import Path

import numpy as np
import scipy.io
import torch
from pyiqa.archs.brisque_arch import natural_scene_statistics, scale_features
from pyiqa.archs.func_util import normalize_img_with_gauss
from pyiqa.archs.niqe_arch import compute_feature
from pyiqa.matlab_utils import blockproc, imresize
from pyiqa.utils.color_util import to_y_channel
from scipy.ndimage import gaussian_filter

from iqray.demo.backbones import to_tensor
from iqray.demo.fit_images import draw_clean_images, draw_fit_images
from iqray.demo.solvers import solve_kernel_ridge
from iqray.demo.weight_files import write_weight_file
from iqray.distortions import Pixels

NUM_BRISQUE_IMAGES = 200
# pyiqa's BRISQUE has the kernel width and the offset of the published model built in:
# score = sum of coefficients * exp(-gamma * distance^2) - rho.
BRISQUE_GAMMA = 0.05
BRISQUE_RHO = -153.591
BRISQUE_PENALTY = 0.1  # keeps coefficients in the hundreds: pyiqa sums them in float32

NUM_NIQE_IMAGES = 80
NIQE_IMAGE_PX = (192, 192)  # four blocks
NIQE_BLOCK_PX = 96
# Blocks are kept that are sharper than this share of the sharpest (Mittal et al. 2013, section 2B).
NIQE_SHARPNESS_SHARE = 0.75
NSS_WINDOW_SD_PX = 7 / 6  # of the local mean and deviation, in both metrics


@torch.no_grad()
def fit_brisque(directory: Path, seed: int) -> None:
    """Fit support-vector coefficients: the score estimates 100 x severity, lower is better.

    Every fit image is a support vector; the coefficients follow in closed form (kernel ridge
    regression) in place of the published model's support-vector regression.

    Args:
        directory: where `brisque_svm_weights.pth` goes.
        seed: of the fit images.
    """
    fit = draw_fit_images(NUM_BRISQUE_IMAGES, seed)
    statistics = np.stack([compute_brisque_statistics(image) for image in fit.images])
    targets = 100 * fit.severities + BRISQUE_RHO
    coefficients = solve_kernel_ridge(statistics, targets, BRISQUE_GAMMA, BRISQUE_PENALTY)
    content = (
        torch.from_numpy(coefficients.astype(np.float32)),
        torch.from_numpy(statistics.astype(np.float32)),
    )
    write_weight_file(directory, "brisque", lambda file: torch.save(content, file))


@torch.no_grad()
def fit_niqe(directory: Path, seed: int) -> None:
    """Fit the pristine multivariate Gaussian: mean and covariance over sharp blocks.

    Mittal, Soundararajan and Bovik 2013 ("Making a completely blind image quality analyzer"), with
    clean generated images in place of 125 photographs. The score is a distance, lower is better.

    Args:
        directory: where `niqe_modelparameters.mat` goes.
        seed: of the fit images.
    """
    clean = draw_clean_images(NUM_NIQE_IMAGES, seed, (NIQE_IMAGE_PX,))
    statistics = np.concatenate([_compute_sharp_statistics(image) for image in clean.images])
    content = {
        "mu_prisparam": statistics.mean(axis=0, keepdims=True),
        "cov_prisparam": np.cov(statistics, rowvar=False),
    }
    write_weight_file(directory, "niqe", lambda file: scipy.io.savemat(file, content))


def compute_brisque_statistics(image: Pixels) -> np.ndarray:
    """BRISQUE's 36 statistics at two scales, brought to about [-1, 1] by its published ranges.

    Args:
        image: (H, W, 3) uint8, RGB.

    Returns:
        (36,) float64.
    """
    luma = to_y_channel(to_tensor(image), 255.0)
    scales = (luma, imresize(luma, scale=0.5, antialiasing=True))
    statistics = torch.cat([natural_scene_statistics(scale) for scale in scales], dim=-1)
    return scale_features(statistics)[0].double().numpy()


def _compute_sharp_statistics(image: Pixels) -> np.ndarray:
    """NIQE's statistics of the image's sharp blocks, (num_blocks, 36) float64."""
    luma = to_y_channel(to_tensor(image), 255.0).round().double()
    half = 255.0 * imresize(luma / 255.0, scale=0.5, antialiasing=True)
    statistics = torch.cat(
        [_compute_block_statistics(luma, 1), _compute_block_statistics(half, 2)], dim=-1
    )
    sharpness = _compute_block_sharpness(luma)
    return statistics[0].numpy()[sharpness > NIQE_SHARPNESS_SHARE * sharpness.max()]


def _compute_block_statistics(luma: torch.Tensor, scale: int) -> torch.Tensor:
    normalized = normalize_img_with_gauss(luma, padding="replicate")
    return blockproc(normalized, [NIQE_BLOCK_PX // scale] * 2, fun=compute_feature)


def _compute_block_sharpness(luma: torch.Tensor) -> np.ndarray:
    """Mean local standard deviation of each block, row by row, (num_blocks,)."""
    plane = luma[0, 0].numpy()
    mean = gaussian_filter(plane, NSS_WINDOW_SD_PX)
    variance = gaussian_filter(plane**2, NSS_WINDOW_SD_PX) - mean**2
    deviation = torch.from_numpy(np.sqrt(variance.clip(min=0)))
    return torch.nn.functional.avg_pool2d(deviation[None], NIQE_BLOCK_PX).flatten().numpy()
