"""Scores images with one metric, in batches of one shape; one row comes back for every image.

Reads RGB pixels, gives results in the order of the images. An image's result depends neither on its
neighbours nor on how images were batched, and an image that fails does so alone.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from iqray.metrics.forwards import build_forward, build_image_scorer
from iqray.metrics.networks import load_network
from iqray.metrics.registry import find_metric
from iqray.metrics.weights import MetricWeights

logger = logging.getLogger(__name__)

# Pixels of a batch. CPU: measured on one core, larger batches gain nothing and fall out of cache.
# Elsewhere an estimate: DBCNN's largest maps are 64 channels of float32, 1 GiB at 4 Mpx.
_CPU_BATCH_PX = 2**18
_ACCELERATOR_BATCH_PX = 2**22

# MUSIQ also looks at the image at 224 and 384 px: up to 7 x 7 and 12 x 12 patches of 32 x 32.
_ADDED_PX = {"musiq": (7 * 7 + 12 * 12) * 32 * 32}

# Networks whose score does not change with the batch. BRISQUE's does: its regression adds 774
# terms that nearly cancel, in float32, and a batch adds them in another order (seen: 1e-2
# relative). For metrics that iqray does not know, nothing is promised.
_BATCHED_METRICS = frozenset({"clipiqa", "cnniqa", "dbcnn", "musiq", "niqe"})

_MAX_REASON_LENGTH = 200

# What says something of the process, not of the image: no row may be made of it.
PROCESS_ERRORS = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)


@dataclass(frozen=True)
class ScoreResult:
    """One image's outcome.

    Attributes:
        score: raw value as the metric defines it; None unless status is ok.
        status: ok, too_small, not_finite or crashed (a part of `schemas.IMAGE_STATUSES`).
        reason: why, when status is not ok; else empty.
    """

    score: float | None
    status: str
    reason: str


class Scorer:
    """One metric, loaded and ready.

    Args:
        weights: from `iqray.metrics.weights.find_weights`.
        device: torch's name of the device, such as `cpu` or `cuda`.

    Raises:
        StudyError: the weights cannot be loaded.
    """

    def __init__(self, weights: MetricWeights, device: str = "cpu") -> None:
        self.info = find_metric(weights.metric)
        self._device = torch.device(device)
        network = load_network(weights)
        on_cpu = self._device.type == "cpu"
        self._score_image = build_image_scorer(weights.metric, network) if on_cpu else None
        self._forward = build_forward(weights.metric, network).to(self._device)

    def score(self, images: Sequence[np.ndarray]) -> list[ScoreResult]:
        """Score images of any mix of shapes.

        Args:
            images: each (height, width, 3) uint8, RGB.

        Returns:
            One result per image, in the order given. Images below the metric's smallest side are
            too_small; scores that are NaN or infinite are not_finite; images that the metric fails
            on are crashed.

        Raises:
            ValueError: an image has another shape or type.
        """
        results: dict[int, ScoreResult] = {}
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            _check_image(image)
            if min(image.shape[:2]) < self.info.min_side_px:
                results[index] = self._refuse(image)
            else:
                by_shape[image.shape].append(index)
        for indices in by_shape.values():
            for batch in self._split(indices, images[indices[0]]):
                scored = self._score_batch([images[index] for index in batch])
                results.update(zip(batch, scored, strict=True))
        return [results[index] for index in range(len(images))]

    def _refuse(self, image: np.ndarray) -> ScoreResult:
        height, width = image.shape[:2]
        reason = f"{width} x {height} px; {self.info.name} needs {self.info.min_side_px} px"
        return ScoreResult(None, "too_small", reason)

    def _split(self, indices: list[int], image: np.ndarray) -> Iterator[list[int]]:
        """Cut the indices of images that share the shape of `image` into batches."""
        size = 1
        if self.info.name in _BATCHED_METRICS and self._score_image is None:
            budget = _CPU_BATCH_PX if self._device.type == "cpu" else _ACCELERATOR_BATCH_PX
            pixels = image.shape[0] * image.shape[1] + _ADDED_PX.get(self.info.name, 0)
            size = max(1, budget // pixels)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]

    def _score_batch(self, images: list[np.ndarray]) -> list[ScoreResult]:
        """Score images of one shape; those without a finite score again alone, to tell why."""
        scores = [math.nan] * len(images)
        if len(images) > 1:
            try:
                scores = self._run(images)
            except PROCESS_ERRORS:
                raise
            except Exception as error:  # one image may fail all; each gets its turn below
                logger.debug("%s: a batch of %d failed: %s", self.info.name, len(images), error)
        return [
            ScoreResult(score, "ok", "") if math.isfinite(score) else self._score_alone(image)
            for score, image in zip(scores, images, strict=True)
        ]

    def _score_alone(self, image: np.ndarray) -> ScoreResult:
        try:
            [score] = self._run([image])
        except PROCESS_ERRORS:
            raise
        except Exception as error:  # whatever a metric raises is this image's outcome
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return ScoreResult(None, "crashed", reason[:_MAX_REASON_LENGTH])
        if not math.isfinite(score):
            return ScoreResult(None, "not_finite", f"{self.info.name} gave {score}")
        return ScoreResult(score, "ok", "")

    def _run(self, images: list[np.ndarray]) -> list[float]:
        """Raw scores of images of one shape, in one forward pass, as pyiqa scales pixels."""
        if self._score_image is not None:
            return [self._score_image(image) for image in images]
        pixels = torch.from_numpy(np.stack(images)).to(self._device)
        inputs = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255)
        # As pyiqa sets cuDNN, but without TF32, which would cut precision on GPUs.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), exact:
            scores = self._forward(inputs)
        return scores.double().reshape(len(images)).tolist()


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image of shape {image.shape} and type {image.dtype}; it must be "
            "(height, width, 3) uint8 RGB"
        )
