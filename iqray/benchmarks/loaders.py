"""Benchmarks of training batches: iqray's from packs beside torchvision's from image files.

Both make the batches of some epochs, with the crops and flips of `iqray.training.augment`. The
images are packed at native size, so that both start from the same pixels and their results can be
compared. Packing, which a node does once for all its trials, is timed apart and not part of a
ratio.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as transforms

from iqray.benchmarks.harness import Benchmark, Fidelity
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.images import ImageHeader, read_header
from iqray.inputs.sources import ImageSource
from iqray.packs.cache import PackCache
from iqray.packs.packing import PackedImages, concatenate
from iqray.recipes import RECIPES
from iqray.schemas import MANIFEST
from iqray.training.augment import BatchStream
from iqray.training.batches import MEAN, STD
from iqray.training.loading import BatchLoader, BatchPlan, BatchPlanner

INPUT_PX = 224
BATCH_SIZE = 32
NUM_EPOCHS = 3  # so that a run of iqray's takes longer than a hiccup of the machine

_CATEGORY = "images"  # one is enough: no speed depends on targets


@dataclass(frozen=True)
class LoaderGoal:
    """A way to crop and what it has to reach.

    Attributes:
        crop: as in a recipe.
        words: what torchvision calls it.
        target: smallest ratio of torchvision's time to iqray's.
    """

    crop: str
    words: str
    target: float


LOADER_GOALS = {
    "loader": LoaderGoal("random_resized", "RandomResizedCrop(antialias)", 3),
    "loader_crop": LoaderGoal("random", "RandomCrop", 8),
}

Batch = tuple[torch.Tensor, torch.Tensor]


def build_loader_benchmark(
    name: str, images: Sequence[bytes], folder: Path, num_threads: int
) -> Benchmark[int]:
    """Write and pack images, and start the workers, so that only the loading is left to time.

    Args:
        name: one of `LOADER_GOALS`.
        images: encoded.
        folder: for files and packs.
        num_threads: threads of iqray, and worker processes of torchvision's loader.

    Raises:
        StudyError: there are fewer images than a batch takes.
    """
    if len(images) < BATCH_SIZE:
        raise StudyError(
            f"{len(images)} images are less than a batch of {BATCH_SIZE}; raise num-images, or "
            "name a folder with more of them"
        )
    goal = LOADER_GOALS[name]
    write_files(folder / "files", images)
    began = time.perf_counter()
    data = pack_files(folder, num_threads)
    pack_s = time.perf_counter() - began
    recipe = RECIPES["paper"].model_copy(update={"crop": goal.crop})
    planner = BatchPlanner(
        BatchStream(len(data), BATCH_SIZE, seed=0), data.shapes, recipe, INPUT_PX
    )
    plans = [planner.plan(step) for step in range(NUM_EPOCHS * len(data) // BATCH_SIZE)]
    theirs = make_peer_loader(folder / "files", plans, goal.crop, num_threads)
    ours = OurLoader(data, planner, len(plans))
    return Benchmark(
        name=name,
        peer=f"torchvision {version('torchvision')} ImageFolder, {goal.words}, flip, normalise; "
        f"DataLoader with {num_threads} workers; iqray reads packs of native size that took "
        f"{pack_s:.2f} s to make, which is in no ratio",
        target=goal.target,
        run_peer=lambda: count_images(theirs),
        run_ours=lambda: count_images(ours),
        # Apart from what is timed, in which a batch is let go as a training lets it go.
        compare=lambda *_: compare_batches(ours, theirs),
    )


def write_files(root: Path, images: Sequence[bytes]) -> None:
    """Write image files as torchvision's ImageFolder wants them; in the order of their names."""
    (root / _CATEGORY).mkdir(parents=True)
    for number, data in enumerate(images):
        # Pillow knows the format by the bytes, whatever the suffix says.
        (root / _CATEGORY / f"{number:06d}.jpg").write_bytes(data)


def pack_files(folder: Path, num_threads: int) -> PackedImages:
    """Pack the files below `files` at native size."""
    root = folder / "files"
    rows = []
    for file in sorted((root / _CATEGORY).iterdir()):
        data = file.read_bytes()
        header = read_header(data)
        assert isinstance(header, ImageHeader), "images of benchmarks can be read"
        rows.append(
            {
                "path": file.relative_to(root).as_posix(),
                "category": _CATEGORY,
                "container": "",
                "position": 0,
                "width": header.width,
                "height": header.height,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
    table = pa.Table.from_pylist(rows, schema=MANIFEST)
    cache = PackCache(folder / "packs")
    source = ImageSource(ImageRoot(str(root)))
    return concatenate(cache.open(source, table, [_CATEGORY], "native", num_threads))


class GivenCrops(ImageFolder):
    """torchvision's ImageFolder and transforms, with crops and flips given instead of drawn.

    As in torchvision's references with tensors, in their second version: on uint8 tensors, the
    faster of what it offers.

    Args:
        root: of the images.
        resizes: whether crops are resized to the input.
    """

    def __init__(self, root: Path, resizes: bool) -> None:
        super().__init__(str(root))
        self._resizes = resizes

    def __getitem__(self, key: Any) -> tuple[torch.Tensor, int]:
        index, box, flips = key
        path, target = self.samples[index]
        image = transforms.pil_to_tensor(self.loader(path))
        if self._resizes:
            image = transforms.resized_crop(image, *box, [INPUT_PX, INPUT_PX], antialias=True)
        else:
            image = transforms.crop(image, *box)
        if flips:
            image = transforms.horizontal_flip(image)
        image = transforms.to_dtype(image, torch.float32, scale=True)
        return transforms.normalize(image, MEAN, STD), target


def make_peer_loader(
    root: Path, plans: Sequence[BatchPlan], crop: str, num_workers: int
) -> "DataLoader[Any]":
    """Torchvision's loader of the planned batches; its workers live as long as it does."""
    keys = [
        list(zip(plan.indices.tolist(), plan.boxes.tolist(), plan.flips.tolist(), strict=True))
        for plan in plans
    ]
    return DataLoader(
        GivenCrops(root, resizes=crop != "random"),
        batch_sampler=keys,
        num_workers=num_workers,
        persistent_workers=True,
    )


class OurLoader:
    """iqray's batches of the same epochs."""

    def __init__(self, data: PackedImages, planner: BatchPlanner, num_steps: int) -> None:
        self._data = data
        self._planner = planner
        self._num_steps = num_steps

    def __iter__(self) -> Iterator[Batch]:
        with BatchLoader(self._data, self._planner, torch.device("cpu")) as loader:
            for step in range(self._num_steps):
                yield loader.take(step)


def count_images(loader: Iterable[Batch]) -> int:
    """Load all images and count them."""
    return sum(len(images) for images, _ in loader)


def compare_batches(ours: Iterable[Batch], theirs: Iterable[Batch]) -> Fidelity:
    """Judge batches by the largest difference of a value, in levels of 256."""
    deviation = torch.tensor(STD).view(3, 1, 1) * 255
    num_images, largest = 0, 0.0
    for (images, targets), (their_images, their_targets) in zip(ours, theirs, strict=True):
        if not torch.equal(targets, their_targets):
            return Fidelity(False, "TARGETS DIFFER")
        num_images += len(images)
        largest = max(largest, float(((images - their_images).abs() * deviation).max()))
    # Normalised values carry rounding errors of about 1e-5 levels.
    words = f"{num_images} images, same boxes, {largest:.3f} levels apart, 1 allowed"
    return Fidelity(largest < 1.001, words)
