"""Benchmarks of scoring: iqray's scorers beside pyiqa's own networks, and decoding beside Pillow.

Each takes the same decoded pixels, or the same encoded bytes, and the same weights on both sides.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import to_tensor

from iqray.benchmarks.harness import Benchmark, Fidelity, compare_scores
from iqray.benchmarks.inputs import provide_weights
from iqray.errors import StudyError
from iqray.inputs.images import DecodedImage, decode_image
from iqray.metrics.networks import load_network
from iqray.metrics.scorer import Scorer
from iqray.metrics.weights import MetricWeights


@dataclass(frozen=True)
class MetricGoal:
    """What a metric's scorer has to reach.

    Attributes:
        target: smallest ratio of pyiqa's time to iqray's.
        tolerance: largest difference of a score, relative to pyiqa's.
        same_order: whether images must also sort as they do by pyiqa's scores.
    """

    target: float
    tolerance: float
    same_order: bool = False


METRIC_GOALS = {
    "niqe": MetricGoal(20, 1e-5, same_order=True),
    "brisque": MetricGoal(8, 1e-4, same_order=True),
    "clipiqa": MetricGoal(2.5, 1e-5),
    "cnniqa": MetricGoal(1.3, 1e-6),
    "musiq": MetricGoal(1.1, 1e-5),
    "dbcnn": MetricGoal(1.2, 1e-5),
}

DECODE_ONCE = "decode_once"
DECODE_TARGET = 5
NUM_DECODES = 6  # one for each metric of the paper, as pyiqa's command line does

KERNEL_BENCHMARKS = (*METRIC_GOALS, DECODE_ONCE)


def build_benchmark(
    name: str, images: Sequence[bytes], weights_folder: Path | None, spare: Path
) -> Benchmark:
    """Load what a benchmark needs, so that only the work itself is left to time.

    Args:
        name: one of `KERNEL_BENCHMARKS`.
        images: encoded.
        weights_folder: of the user's weight files.
        spare: where random weights are written for metrics that have no file there.
    """
    if name == DECODE_ONCE:
        return _build_decode_once(images)
    return _build_metric(name, images, provide_weights(name, weights_folder, spare))


def _build_metric(
    metric: str, images: Sequence[bytes], weights: MetricWeights
) -> Benchmark[list[float]]:
    goal = METRIC_GOALS[metric]
    # Copies, since torch warns about arrays that cannot be written, as Pillow's are.
    pixels = [decode_pixels(data).copy() for data in images]
    # Each side loads for itself: iqray takes networks apart.
    return Benchmark(
        name=metric,
        peer=f"pyiqa {version('pyiqa')}, one image a call ({weights.provenance})",
        target=goal.target,
        run_peer=partial(_score_theirs, load_network(weights), pixels),
        run_ours=partial(_score_ours, Scorer(weights), pixels),
        compare=partial(compare_scores, tolerance=goal.tolerance, same_order=goal.same_order),
    )


def _build_decode_once(images: Sequence[bytes]) -> Benchmark[list[np.ndarray]]:
    return Benchmark(
        name=DECODE_ONCE,
        peer=f"Pillow {version('pillow')}, {NUM_DECODES} decodes of each image",
        target=DECODE_TARGET,
        run_peer=lambda: _decode_repeatedly(images),
        run_ours=lambda: [decode_pixels(data) for data in images],
        compare=_compare_pixels,
    )


@torch.inference_mode()
def _score_theirs(network: nn.Module, images: Sequence[np.ndarray]) -> list[float]:
    """Score as pyiqa's own loop does: one image a call, scaled by torchvision's `to_tensor`."""
    return [network(to_tensor(image)[None]).item() for image in images]


def _score_ours(scorer: Scorer, images: Sequence[np.ndarray]) -> list[float]:
    results = scorer.score(images)
    return [math.nan if result.score is None else result.score for result in results]


def _decode_repeatedly(images: Sequence[bytes]) -> list[np.ndarray]:
    """Pixels of the last of several decodes of each image, in the order of the images."""
    for _ in range(NUM_DECODES):
        decoded = [_decode_theirs(data) for data in images]
    return decoded


def _decode_theirs(data: bytes) -> np.ndarray:
    """Decode as pyiqa does (utils/img_util.py)."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def decode_pixels(data: bytes) -> np.ndarray:
    """Decode an image of a benchmark.

    Raises:
        StudyError: it cannot be read.
    """
    image = decode_image(data)
    if not isinstance(image, DecodedImage):
        raise StudyError(
            f"an image cannot be read ({image.status}: {image.reason}); take it out of --images"
        )
    return image.pixels


def _compare_pixels(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Fidelity:
    pairs = zip(ours, theirs, strict=True)
    num_equal = sum(np.array_equal(our, their) for our, their in pairs)
    return Fidelity(num_equal == len(theirs), f"{num_equal} of {len(theirs)} images identical")
