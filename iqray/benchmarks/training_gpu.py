"""How fast each architecture trains on a device, and what the paper's study costs at that speed.

Three loops take the same steps in bf16: iqray's, with its images in the device's memory;
torchvision's reference loop, which decodes files in a DataLoader; and one that trains on one batch
again and again, which no way of loading can be faster than. Takes a torch device, so that all but
the speed can be had on a CPU as well.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from iqray.benchmarks.arithmetic import synchronize
from iqray.benchmarks.loaders import write_files
from iqray.packs.packing import Pack, concatenate
from iqray.recipes import RECIPES, Recipe
from iqray.training.architectures import choose_memory_format, create_model
from iqray.training.batches import MEAN, STD
from iqray.training.loop import train

# Images a second on one H200 at batch 256: what is asked of iqray.
TARGETS = {"alexnet": 30_000, "inception_v3": 2_500, "resnet50": 5_000, "vgg16": 2_400}

# Training images of a median subset of the paper, epochs, and cells of each architecture in a
# dataset: 50 ImageNet categories of 1,281 images, 28 of EcoSet of 2,557.
_SUBSET_IMAGES = (64_100, 71_600)
_EPOCHS = 90
_CELLS = 24

BATCH_SIZE = 256
_NUM_CATEGORIES = 50
_STORED_PX = 8 / 7  # short side of the images, in inputs

_COLUMNS = "{:<14} {:>11} {:>11} {:>11} {:>8} {:>10} {:>8}  {}"

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class TrainingSpeed:
    """One architecture on one device.

    Attributes:
        name: the architecture.
        images_per_s: of iqray's training loop.
        peer_images_per_s: of torchvision's reference loop.
        synthetic_images_per_s: of a loop on one batch.
        ratio: of iqray's speed to torchvision's.
        first_step_s: from the call of the training loop to the end of its first step, copying
            images and choosing kernels included.
        target: images a second asked for on one H200.
        holds: whether iqray reaches it; None on another device.
    """

    name: str
    images_per_s: float
    peer_images_per_s: float
    synthetic_images_per_s: float
    ratio: float
    first_step_s: float
    target: float
    holds: bool | None


@dataclass(frozen=True)
class TrainingSuite:
    """What all architectures share.

    Attributes:
        images: encoded, for torchvision's loop.
        folder: empty, for files.
        device: to be measured.
        num_workers: processes of the DataLoader.
        batch_size: of every loop.
        num_steps: that are timed.
        num_images: decoded ones in the device's memory.
        recipe: sides and rates of the inputs.
    """

    images: Sequence[bytes]
    folder: Path
    device: torch.device
    num_workers: int
    batch_size: int = BATCH_SIZE
    num_steps: int = 40
    num_images: int = 2048
    recipe: Recipe = RECIPES["paper"]

    def run(self, architectures: Sequence[str]) -> Iterator[TrainingSpeed]:
        """Measure one architecture after another."""
        write_files(self.folder, self.images)
        for architecture in architectures:
            yield self._measure(architecture)

    def _measure(self, architecture: str) -> TrainingSpeed:
        ours, first_step_s = self._time_training(architecture)
        synthetic = self._time_loop(architecture, lambda: cycle([self._draw_batch(architecture)]))
        theirs = self._time_loop(architecture, lambda: self._load_files(architecture))
        is_h200 = self.device.type == "cuda" and "H200" in torch.cuda.get_device_name(self.device)
        target = TARGETS[architecture]
        return TrainingSpeed(
            name=architecture,
            images_per_s=ours,
            peer_images_per_s=theirs,
            synthetic_images_per_s=synthetic,
            ratio=ours / theirs,
            first_step_s=first_step_s,
            target=target,
            holds=ours >= target if is_h200 else None,
        )

    def _time_training(self, architecture: str) -> tuple[float, float]:
        """Images a second of iqray's loop, median of its epochs, and seconds to the first step."""
        recipe = self.recipe.model_copy(
            update={"precision": "bf16", "batch_size": self.batch_size, "watch_from": None}
        )
        input_px = recipe.architectures[architecture].input_px
        data = _draw_images(self.num_images, round(input_px * _STORED_PX))
        num_steps = self.num_steps + self.num_images // self.batch_size
        seconds: list[float] = []
        rows: list[dict[str, float]] = []
        began = time.perf_counter()

        def note_first(step: int, _capture: Callable[[], Any]) -> None:
            if step == 1:
                synchronize(self.device)
                seconds.append(time.perf_counter() - began)

        model = create_model(architecture, _NUM_CATEGORIES, input_px, seed=0)
        began = time.perf_counter()
        train(
            *(model, data, recipe, architecture, num_steps, 0, self.device, rows.append),
            after_step=note_first,
        )
        # The first epoch warms up.
        return statistics.median(row["images_per_s"] for row in rows[1:]), seconds[0]

    def _time_loop(self, architecture: str, make_batches: Callable[[], Iterator[Batch]]) -> float:
        """Images a second of a plain loop in bf16, as torchvision's references have it."""
        own = self.recipe.architectures[architecture]
        memory_format = choose_memory_format(architecture, self.device)
        model = create_model(architecture, _NUM_CATEGORIES, own.input_px, seed=0)
        model = model.to(self.device, memory_format=memory_format).train()  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
        num_warm_up = max(1, self.num_steps // 4)
        began = 0.0
        for step, (images, targets) in enumerate(
            islice(make_batches(), num_warm_up + self.num_steps)
        ):
            if step == num_warm_up:
                synchronize(self.device)
                began = time.perf_counter()
            images = images.to(self.device, non_blocking=True, memory_format=memory_format)
            _take_step(model, optimizer, images, targets.to(self.device, non_blocking=True))
        synchronize(self.device)
        return self.num_steps * self.batch_size / (time.perf_counter() - began)

    def _draw_batch(self, architecture: str) -> Batch:
        input_px = self.recipe.architectures[architecture].input_px
        images = torch.randn(self.batch_size, 3, input_px, input_px, device=self.device)
        targets = torch.randint(_NUM_CATEGORIES, (self.batch_size,), device=self.device)
        memory_format = choose_memory_format(architecture, self.device)
        return images.contiguous(memory_format=memory_format), targets

    def _load_files(self, architecture: str) -> Iterator[Batch]:
        """Torchvision's training batches, epoch after epoch."""
        input_px = self.recipe.architectures[architecture].input_px
        transform = v2.Compose(
            [
                v2.PILToTensor(),
                v2.RandomResizedCrop(input_px, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )
        dataset = ImageFolder(str(self.folder), transform)
        loader = DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=torch.utils.data.RandomSampler(
                dataset, replacement=True, num_samples=2 * self.num_steps * self.batch_size
            ),
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)


def count_study_hours(speeds: Sequence[TrainingSpeed]) -> float:
    """GPU-hours of the paper's 192 trainings at the measured speeds, evaluation left out."""
    images = sum(_SUBSET_IMAGES) * _EPOCHS * _CELLS
    return sum(images / speed.images_per_s for speed in speeds) / 3600


def format_speed_header() -> str:
    """Heading of the table of speeds; images a second."""
    names = ("architecture", "iqray", "torchvision", "one batch", "ratio", "first step", "target")
    return _COLUMNS.format(*names, "holds")


def format_speed(speed: TrainingSpeed) -> str:
    """One line of the table."""
    return _COLUMNS.format(
        speed.name,
        f"{speed.images_per_s:,.0f}",
        f"{speed.peer_images_per_s:,.0f}",
        f"{speed.synthetic_images_per_s:,.0f}",
        f"{speed.ratio:.2f}",
        f"{speed.first_step_s:.2f} s",
        f"{speed.target:,.0f}",
        {True: "yes", False: "NO", None: "no H200"}[speed.holds],
    )


def _draw_images(num_images: int, short_px: int) -> Any:
    """Packed noise with the shape of photographs: 4 to 3."""
    generator = np.random.default_rng(0)
    shape = (short_px, round(short_px * 4 / 3))
    packs = []
    for part in np.array_split(np.arange(num_images), _NUM_CATEGORIES):
        pixels = generator.integers(0, 256, (len(part), *shape, 3), dtype=np.uint8)
        packs.append(Pack(pixels.reshape(-1), np.full((len(part), 2), shape, dtype=np.int64)))
    return concatenate(packs)


def _take_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, targets: torch.Tensor
) -> None:
    optimizer.zero_grad()
    with torch.autocast(images.device.type, torch.bfloat16):
        output = model(images)
        logits, auxiliary = output if isinstance(output, tuple) else (output, None)
        loss = functional.cross_entropy(logits, targets)
        if auxiliary is not None:
            loss = loss + 0.4 * functional.cross_entropy(auxiliary, targets)
    loss.backward()
    optimizer.step()
