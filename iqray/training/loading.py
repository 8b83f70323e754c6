"""The batches of a training: which images a step takes, and where they are made.

On a CPU a batch is made when its step begins, with torch's number of threads. For a GPU either all
images lie in its memory and batches are made there, or a thread makes the next batch on the host
and pins it while the GPU works. Those two ways have not run on a GPU yet, only in tests on the CPU.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch

from iqray.packs.packing import PackedImages
from iqray.recipes import Recipe
from iqray.training.augment import (
    BatchStream,
    compute_centre_boxes,
    draw_crop_boxes,
    draw_flips,
    draw_square_boxes,
)
from iqray.training.batches import make_batch
from iqray.training.resident import ResidentImages, fits_on_device, get_free_bytes

Placement = Literal["direct", "ahead", "resident"]


@dataclass(frozen=True)
class BatchPlan:
    """What a batch is made of; arguments of `iqray.training.batches.make_batch`."""

    indices: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray


@dataclass(frozen=True)
class BatchPlanner:
    """Says what each step's batch is made of; a pure function of seed and step.

    Attributes:
        stream: which images each step takes.
        shapes: (num_images, 2) int64, heights and widths, pixels.
        recipe: how to crop, and whether to flip.
        input_px: side of the network input, pixels.
    """

    stream: BatchStream
    shapes: np.ndarray
    recipe: Recipe
    input_px: int

    def plan(self, step: int) -> BatchPlan:
        """Images, crops and flips of a step."""
        epochs, indices = self.stream.take(step)
        seed, shapes = self.stream.seed, self.shapes[indices]
        if self.recipe.crop == "centre":
            boxes = compute_centre_boxes(shapes)
        elif self.recipe.crop == "random":
            boxes = draw_square_boxes(seed, epochs, indices, shapes, self.input_px)
        else:
            boxes = draw_crop_boxes(seed, epochs, indices, shapes, self.recipe.crop_scale)
        flips = np.zeros(len(indices), dtype=bool)
        if self.recipe.flip:
            flips = draw_flips(seed, epochs, indices)
        return BatchPlan(indices, boxes, flips)


class BatchLoader:
    """Makes the batch of any step; fastest when steps are asked for in turn.

    Seed and step alone decide what a batch holds. Between batches made in host memory and those
    made of resident images a value can differ by one of 256 levels.

    Args:
        data: the trial's training images.
        planner: of the batches.
        device: where batches end up.
        placement: `direct` when asked for, `ahead` in a thread, `resident` on the device; if none,
            what `choose_placement` says.
    """

    def __init__(
        self,
        data: PackedImages,
        planner: BatchPlanner,
        device: torch.device,
        placement: Placement | None = None,
    ) -> None:
        if placement is None:
            placement = choose_placement(data.num_bytes, get_free_bytes(device), device)
        self._data = data
        self._planner = planner
        self._device = device
        self._num_threads = torch.get_num_threads()
        self._resident = ResidentImages.copy(data, device) if placement == "resident" else None
        self._thread = ThreadPoolExecutor(1) if placement == "ahead" else None
        self._ahead: tuple[int, Future[tuple[torch.Tensor, torch.Tensor]]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def follow(self, planner: BatchPlanner) -> None:
        """Make the batches of another plan for the same images from now on."""
        self._planner = planner
        self._ahead = None

    def take(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (N, 3, input_px, input_px) float32 and targets (N,) int64, on the device.

        The images are in channels-last memory order, normalised by `iqray.training.batches.MEAN`
        and `STD`.
        """
        if self._thread is None:
            images, targets = self._make(self._planner, step)
        else:
            images, targets = self._take_ahead(self._thread, step)
        # From pinned memory without waiting; the allocator keeps it until the copy is done.
        return (
            images.to(self._device, non_blocking=True),
            targets.to(self._device, non_blocking=True),
        )

    def _take_ahead(
        self, thread: ThreadPoolExecutor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch that is waiting, or is made now; and a start on the next."""
        if self._ahead is None or self._ahead[0] != step:
            self._ahead = step, thread.submit(self._make, self._planner, step)
        batch = self._ahead[1].result()
        self._ahead = step + 1, thread.submit(self._make, self._planner, step + 1)
        return batch

    def _make(self, planner: BatchPlanner, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        plan = planner.plan(step)
        targets = torch.from_numpy(self._data.targets[plan.indices])
        if self._resident is not None:
            images = self._resident.make_batch(
                plan.indices, plan.boxes, plan.flips, planner.input_px
            )
            return images, targets
        images = make_batch(
            [self._data.image(index) for index in plan.indices],
            plan.boxes,
            plan.flips,
            planner.input_px,
            self._num_threads,
        )
        if self._device.type == "cuda":
            return images.pin_memory(), targets.pin_memory()
        return images, targets


def choose_placement(num_bytes: int, free_bytes: int, device: torch.device) -> Placement:
    """Where the batches of a training are made.

    On a CPU nothing is made ahead: a training that has every thread at work gains nothing from one
    more.

    Args:
        num_bytes: of all decoded images.
        free_bytes: of the device's memory.
        device: that trains.
    """
    if device.type == "cpu":
        return "direct"
    return "resident" if fits_on_device(num_bytes, free_bytes) else "ahead"
