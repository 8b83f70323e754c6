"""What benchmarks of scoring run on: image files and weights, the user's or seeded ones.

Reads image files and weight files. Writes seeded random weights, of the published sizes, for
metrics whose file is absent: speed does not depend on what weights hold.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy.io
import torch
from torch import nn

from iqray.demo.backbones import seed_torch
from iqray.demo.textures import COLOURS, PATTERNS, Texture, draw_image
from iqray.demo.weight_files import write_weight_file
from iqray.distortions import encode_jpeg
from iqray.errors import StudyError
from iqray.inputs.images import IMAGE_SUFFIXES, ImageFailure, read_header
from iqray.metrics.networks import create_network
from iqray.metrics.registry import METRICS_WITH_FILES, find_metric
from iqray.metrics.weights import MetricWeights, find_weights, write_weights_manifest

_Write = Callable[[IO[bytes]], object]

RANDOM_WEIGHTS = "seeded random weights"

# Width and height of generated images, in turn: common sizes of ImageNet. 500 x 375 is 21 % of its
# images, the five commonest sizes are 44 % (counted over 1,000 of its images).
SIZES_PX = (
    (500, 375),
    (500, 333),
    (375, 500),
    (500, 375),
    (333, 500),
    (640, 480),
)

# How most photographs on the web are saved.
_JPEG_QUALITY = 92
_JPEG_CHROMA = "4:2:0"

# Smallest side that all six metrics take.
_MIN_SIDE_PX = max(find_metric(metric).min_side_px for metric in METRICS_WITH_FILES)

# BRISQUE's published regression has 774 support vectors of 36 statistics scaled to [-1, 1].
_NUM_VECTORS = 774
_NUM_STATISTICS = 36

# Networks whose score, untrained, would lie around 0, where relative differences mean little: the
# bias of the last layer moves it into the metric's usual range.
_LAST_BIASES = {
    "cnniqa": ("fc3.bias", 0.5),
    "dbcnn": ("fc.bias", 0.5),
    "musiq": ("head.bias", 50.0),
}


# By what their last layer's weights are multiplied for scores that differ by about a tenth.
_LAST_SCALES = {"cnniqa": 5.0, "dbcnn": 100.0, "musiq": 10.0}


def read_images(folder: Path, num_images: int) -> list[bytes]:
    """Read image files of a folder and its subfolders, spread evenly over their sorted paths.

    Files that are no images, or are too small for one of the metrics, are passed over.

    Returns:
        Encoded images, at most `num_images`.

    Raises:
        StudyError: there is no usable image.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    step = max(1, len(paths) // num_images)
    # Those in between are spares for the ones that cannot be used.
    spread = [path for start in range(step) for path in paths[start::step]]
    images: list[bytes] = []
    for path in spread:
        if len(images) == num_images:
            break
        data = path.read_bytes()
        if _is_usable(data):
            images.append(data)
    if not images:
        raise StudyError(
            f"no image of at least {_MIN_SIDE_PX} px a side in '{folder}'; name another folder, or "
            "leave --images out for generated ones"
        )
    return images


def generate_images(num_images: int, seed: int = 0) -> list[bytes]:
    """Draw textures in common sizes of ImageNet.

    Returns:
        Encoded images (JPEG).
    """
    generator = np.random.default_rng(seed)
    images = []
    for number in range(num_images):
        pattern = list(PATTERNS)[number % len(PATTERNS)]
        colour = list(COLOURS)[number % len(COLOURS)]
        width, height = SIZES_PX[number % len(SIZES_PX)]
        pixels = draw_image(Texture(pattern, colour), height, width, generator)
        images.append(encode_jpeg(pixels, _JPEG_QUALITY, _JPEG_CHROMA))
    return images


def provide_weights(metric: str, folder: Path | None, spare: Path) -> MetricWeights:
    """Weights of a metric: the user's where its file is there, else seeded random ones.

    Args:
        metric: one of the paper's six.
        folder: of the user's weight files.
        spare: where random weights are written.

    Raises:
        StudyError: the file there is damaged or has a wrong sum.
    """
    [file_name] = find_metric(metric).weight_files
    if folder is not None and (folder / file_name).is_file():
        return find_weights(folder, metric)
    directory = spare / metric
    write_random_weights(directory, metric)
    return find_weights(directory, metric)


def write_random_weights(directory: Path, metric: str, seed: int = 0) -> None:
    """Write a metric's weight file with random content, and the folder's manifest."""
    with seed_torch(seed):
        write = _WRITERS[metric]()
    write_weight_file(directory, metric, write)
    write_weights_manifest(directory, RANDOM_WEIGHTS)


def _is_usable(data: bytes) -> bool:
    header = read_header(data)
    return not isinstance(header, ImageFailure) and min(header.width, header.height) >= _MIN_SIDE_PX


def _draw_brisque() -> _Write:
    coefficients = 4 * torch.randn(_NUM_VECTORS)
    vectors = 2 * torch.rand(_NUM_VECTORS, _NUM_STATISTICS) - 1
    return lambda file: torch.save((coefficients, vectors), file)


def _draw_clipiqa() -> _Write:
    network: Any = create_network("clipiqa")
    [model] = network.clip_model
    nn.init.constant_(model.logit_scale, math.log(100))  # as published
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # drawn as 0, which would switch off every block
            nn.init.constant_(parameter, 0.5)
    return lambda file: torch.save(model.state_dict(), file)


def _draw_niqe() -> _Write:
    spread = torch.randn(_NUM_STATISTICS, _NUM_STATISTICS).double().numpy()
    covariance = spread @ spread.T + np.eye(_NUM_STATISTICS)
    gaussian = {"mu_prisparam": np.ones((1, _NUM_STATISTICS)), "cov_prisparam": covariance}
    return lambda file: scipy.io.savemat(file, gaussian)


def _draw_network(metric: str) -> _Write:
    state = create_network(metric).state_dict()
    bias, value = _LAST_BIASES[metric]
    state[bias].fill_(value)
    # Scores then differ between images in more than their last digits.
    state[bias.replace("bias", "weight")].mul_(_LAST_SCALES[metric])
    return lambda file: torch.save(state, file)


_WRITERS: dict[str, Callable[[], _Write]] = {
    "brisque": _draw_brisque,
    "clipiqa": _draw_clipiqa,
    "cnniqa": lambda: _draw_network("cnniqa"),
    "dbcnn": lambda: _draw_network("dbcnn"),
    "musiq": lambda: _draw_network("musiq"),
    "niqe": _draw_niqe,
}
