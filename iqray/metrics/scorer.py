"""Scores images with one metric, in batches; one row comes back for every image.

Reads RGB pixels, gives results in the order of the images. An image's result depends neither on its
neighbours nor on how images were batched, and an image that fails does so alone.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from iqray.metrics.batches import plan_batches
from iqray.metrics.image_scorers import load_image_scorer
from iqray.metrics.precision import check_precision, use_precision
from iqray.metrics.registry import FULL_PRECISION, METRICS_WITH_PRECISIONS, find_metric
from iqray.metrics.weights import MetricWeights

logger = logging.getLogger(__name__)

# MUSIQ also looks at the image at 224 and 384 px: up to 7 x 7 and 12 x 12 patches of 32 x 32.
_ADDED_PX = {"musiq": (7 * 7 + 12 * 12) * 32 * 32}

# Networks whose score does not change with the batch. For metrics that iqray does not know,
# nothing is promised.
_BATCHED_METRICS = METRICS_WITH_PRECISIONS

# Those that take images of unlike shapes at once. On CPUs that saves nothing and costs padding.
_MIXED_METRICS = frozenset({"musiq"})

_MAX_REASON_LENGTH = 200

# In the message of torch's allocator.
_NO_CPU_MEMORY = "DefaultCPUAllocator: can't allocate memory"

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
        precision: `fp32` (pyiqa's scores), `tf32` (CUDA's matrix products and convolutions) or
            `bf16` (the heavy part of networks, on any device). BRISQUE and NIQE, and
            metrics that iqray does not know, are always in their full precision.

    Raises:
        StudyError: the weights cannot be loaded.
        ValueError: there is no such precision.
    """

    def __init__(
        self, weights: MetricWeights, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        check_precision(precision)
        self.info = find_metric(weights.metric)
        self._precision = precision if weights.metric in METRICS_WITH_PRECISIONS else FULL_PRECISION
        self._score_image = load_image_scorer(weights)
        self._device = torch.device("cpu" if self._score_image else device)
        self._threads: ThreadPoolExecutor | None = None
        if not self._score_image:
            # Imported here, as pyiqa takes seconds, which BRISQUE and NIQE need not wait for.
            from iqray.metrics.forwards import build_forward
            from iqray.metrics.networks import load_network

            forward = build_forward(weights.metric, load_network(weights), self._precision)
            self._forward = forward.to(self._device)

    @property
    def device(self) -> str:
        """Torch's name of what computes: BRISQUE and NIQE always run on the CPU."""
        return self._device.type

    def score(
        self, images: Sequence[np.ndarray], report: Callable[[], None] = lambda: None
    ) -> list[ScoreResult]:
        """Score images of any mix of shapes.

        Args:
            images: each (height, width, 3) uint8, RGB.
            report: called before each batch, so that a caller can tell slow from stuck.

        Returns:
            One result per image, in the order given. Images below the metric's smallest side are
            too_small; scores that are NaN or infinite are not_finite; images that the metric fails
            on are crashed.

        Raises:
            ValueError: an image has another shape or type.
        """
        results: dict[int, ScoreResult] = {}
        for index, image in enumerate(images):
            _check_image(image)
            if min(image.shape[:2]) < self.info.min_side_px:
                results[index] = self._refuse(image)
        accepted = [index for index in range(len(images)) if index not in results]
        if self._score_image is not None:
            scored = self._score_in_threads([images[index] for index in accepted])
            for index in accepted:
                report()
                results[index] = next(scored)
        else:
            for batch in self._plan([images[index].shape for index in accepted]):
                report()
                indices = [accepted[position] for position in batch]
                own = self._score_batch([images[index] for index in indices])
                results.update(zip(indices, own, strict=True))
        return [results[index] for index in range(len(images))]

    def _score_in_threads(self, images: list[np.ndarray]) -> Iterator[ScoreResult]:
        """Score images one by one, as many at a time as torch has threads.

        Each with one thread of torch: BRISQUE's sums, split between threads, round otherwise (seen:
        2e-3 relative).
        """
        if torch.get_num_threads() == 1:
            return map(self._score_alone, images)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(torch.get_num_threads(), initializer=_use_one_thread)
        return self._threads.map(self._score_alone, images)

    def _refuse(self, image: np.ndarray) -> ScoreResult:
        height, width = image.shape[:2]
        reason = f"{width} x {height} px; {self.info.name} needs {self.info.min_side_px} px"
        return ScoreResult(None, "too_small", reason)

    def _plan(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Batches of positions among the images with these shapes."""
        if self.info.name not in _BATCHED_METRICS:
            return [[position] for position in range(len(shapes))]
        return plan_batches(
            shapes,
            on_cpu=self._device.type == "cpu",
            added_px=_ADDED_PX.get(self.info.name, 0),
            mixes_shapes=self._device.type != "cpu" and self.info.name in _MIXED_METRICS,
        )

    def _score_batch(self, images: list[np.ndarray]) -> list[ScoreResult]:
        """Score a batch; images without a finite score again alone, to tell why."""
        scores = [math.nan] * len(images)
        if len(images) > 1:
            try:
                scores = self._run_within_memory(images)
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

    def _run_within_memory(self, images: list[np.ndarray]) -> list[float]:
        """Raw scores; a batch that the accelerator's memory is too small for goes in halves."""
        try:
            return self._run(images)
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
            logger.warning("%s: no memory for a batch of %d", self.info.name, len(images))
        # Here, as the error held on to the batch's tensors.
        middle = len(images) // 2
        halves = (images[:middle], images[middle:])
        return [score for half in halves for score in self._run_within_memory(half)]

    def _run(self, images: list[np.ndarray]) -> list[float]:
        """Raw scores of the images of a batch, in one forward pass.

        Raises:
            MemoryError: also where torch has none on the CPU, which it calls a RuntimeError.
        """
        try:
            return self._compute(images)
        except RuntimeError as error:
            if _NO_CPU_MEMORY in str(error):
                raise MemoryError(str(error)) from error
            raise

    def _compute(self, images: list[np.ndarray]) -> list[float]:
        if self._score_image is not None:
            return [self._score_image(image) for image in images]
        with torch.inference_mode(), use_precision(self._precision):
            if len({image.shape for image in images}) == 1:
                scores = self._forward(self._scale(np.stack(images)))
            else:
                scores = self._forward([self._scale(image[None])[0] for image in images])
        return scores.double().reshape(len(images)).tolist()

    def _scale(self, pixels: np.ndarray) -> torch.Tensor:
        """Pixels (num_images, height, width, 3) as pyiqa scales them, (num_images, 3, ...).

        iqray's forwards take them with channels last, as they come; others as pyiqa lays them out.
        """
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        if self.info.name not in METRICS_WITH_PRECISIONS:
            images = images.contiguous()
        return images.to(torch.float32).div_(255)


def _use_one_thread() -> None:
    """Give this thread of Python one thread of torch."""
    torch.get_num_threads()  # a thread takes the process's number the first time it asks
    torch.set_num_threads(1)


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image of shape {image.shape} and type {image.dtype}; it must be "
            "(height, width, 3) uint8 RGB"
        )
