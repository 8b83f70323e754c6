"""Packs: decoded images of one category in a folder, written whole or not at all, memory-mapped.

A pack is a folder with `pixels.npy`, the images one after the other as raw RGB, `shapes.npy`, their
heights and widths, and `sums.json`, the SHA-256 of both, written last. Images keep their aspect
ratio, so a pack is ragged.
"""

import contextlib
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.lib.format import open_memmap

from iqray.errors import StudyError
from iqray.identity import compute_sha256

_PIXELS_FILE = "pixels.npy"
_SHAPES_FILE = "shapes.npy"
_SUMS_FILE = "sums.json"


@dataclass(frozen=True)
class Pack:
    """Images of one category, in the order of their files.

    Attributes:
        pixels: flat uint8; image i is its (height, width, 3) RGB values in C order.
        shapes: (num_images, 2) int64, height and width in pixels.
        lease: whatever keeps the files where they are, as long as they are mapped.
        starts: (num_images,) int64, where each image begins in `pixels`; none where one follows
            the other from the first pixel on.
    """

    pixels: np.ndarray
    shapes: np.ndarray
    lease: object = None
    starts: np.ndarray | None = None

    @cached_property
    def _starts(self) -> np.ndarray:
        return compute_starts(self.shapes)[:-1] if self.starts is None else self.starts

    def __len__(self) -> int:
        return len(self.shapes)

    def image(self, index: int) -> np.ndarray:
        """Image as a (height, width, 3) uint8 RGB view; no pixel is copied."""
        height, width = self.shapes[index]
        start = self._starts[index]
        return self.pixels[start : start + 3 * height * width].reshape(height, width, 3)

    def select(self, positions: np.ndarray) -> "Pack":
        """Some of the images, read from the same files; no pixel is copied."""
        return replace(self, shapes=self.shapes[positions], starts=self._starts[positions])

    def flatten(self) -> np.ndarray:
        """Pixels of all images, one after the other: flat uint8, a copy of those of a selection."""
        if self.starts is None:
            return self.pixels[: 3 * int(self.shapes.prod(axis=1).sum())]
        images = [self.image(index).reshape(-1) for index in range(len(self))]
        return np.concatenate([np.empty(0, dtype=np.uint8), *images])


@dataclass(frozen=True)
class PackedImages:
    """Images and targets of several categories, read in place from their packs.

    Attributes:
        packs: one per category; the position of a pack is its images' target.
        targets: (num_images,) int64 in [0, num_categories).
        shapes: (num_images, 2) int64, height and width in pixels.
    """

    packs: tuple[Pack, ...]
    targets: np.ndarray
    shapes: np.ndarray

    @cached_property
    def _first(self) -> np.ndarray:
        """Index of the first image of each target."""
        return np.searchsorted(self.targets, np.arange(len(self.packs)))

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def num_bytes(self) -> int:
        """Of all pixels."""
        return 3 * int(self.shapes.prod(axis=1).sum())

    def image(self, index: int) -> np.ndarray:
        """Image as a (height, width, 3) uint8 RGB view; no pixel is copied."""
        target = self.targets[index]
        return self.packs[target].image(index - self._first[target])

    def select(self, is_chosen: np.ndarray) -> "PackedImages":
        """Some of the images, with the targets that they have here; no pixel is copied.

        Args:
            is_chosen: (num_images,) bool.
        """
        own = (
            np.flatnonzero(is_chosen[self.targets == target]) for target in range(len(self.packs))
        )
        return concatenate(
            [pack.select(positions) for pack, positions in zip(self.packs, own, strict=True)]
        )


def is_whole(path: Path) -> bool:
    """Whether a pack is there and its files have their sums.

    A process reads a file for that once; again only when its inode, size or time has changed.
    """
    try:
        sums = json.loads((path / _SUMS_FILE).read_text())
        return all(_has_sum(path / name, sums[name]) for name in (_PIXELS_FILE, _SHAPES_FILE))
    except (OSError, ValueError, KeyError):
        return False


def open_pack(path: Path, lease: object = None) -> Pack:
    """Open a pack through memory maps; nothing done to its arrays reaches the disk.

    Args:
        path: of the pack's folder.
        lease: kept as long as the pack.
    """
    return Pack(
        # Mapped copy-on-write rather than read-only, since torch warns of read-only arrays. As a
        # plain array, because indexing an np.memmap object is several times slower.
        pixels=np.asarray(np.load(path / _PIXELS_FILE, mmap_mode="c")),
        shapes=np.load(path / _SHAPES_FILE),
        lease=lease,
    )


def concatenate(packs: Sequence[Pack]) -> PackedImages:
    """Put the packs of several categories side by side without copying pixels.

    Args:
        packs: one per category; the images of `packs[t]` get target t.
    """
    return PackedImages(
        packs=tuple(packs),
        targets=np.repeat(np.arange(len(packs)), [len(pack) for pack in packs]),
        shapes=np.concatenate([np.empty((0, 2), dtype=np.int64), *(pack.shapes for pack in packs)]),
    )


class PackWriter:
    """Writes one pack, images in any order; without `finish` nothing of it stays.

    The disk space is taken at once, since a full disk kills a process that writes through a map.

    Args:
        shapes: (num_images, 2) int64, heights and widths of the images, pixels.
        target: folder of the pack. Until it is finished it lies beside that, under a hidden name
            that begins with the target's.

    Raises:
        StudyError: the disk has no room for the pack.
    """

    def __init__(self, shapes: np.ndarray, target: Path) -> None:
        self.shapes = shapes
        self._target = target
        self._starts = compute_starts(shapes)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            np.save(self._folder / _SHAPES_FILE, shapes)
            # An empty file cannot be mapped, so an empty pack keeps one unused byte.
            size = max(1, int(self._starts[-1]))
            self._pixels = open_memmap(
                self._folder / _PIXELS_FILE, mode="w+", dtype=np.uint8, shape=(size,)
            )
            _take_space(self._folder / _PIXELS_FILE)
        except OSError as error:
            self.__exit__()
            raise StudyError(
                f"the disk below {target.parent} has no room for a pack of "
                f"{self._starts[-1] / 2**30:.2f} GiB ({error}); free some, or name a folder on "
                "another disk in IQRAY_CACHE"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, index: int, pixels: np.ndarray) -> None:
        """Store image `index`: (height, width, 3) uint8 of its stored shape; from any thread."""
        self._pixels[self._starts[index] : self._starts[index + 1]] = pixels.reshape(-1)

    def finish(self) -> None:
        """Give the pack its name."""
        self._pixels.flush()
        names = (_PIXELS_FILE, _SHAPES_FILE)
        sums = {name: compute_sha256(self._folder / name) for name in names}
        (self._folder / _SUMS_FILE).write_text(json.dumps(sums))
        # A rename onto a folder that holds files fails: another process was first, with the
        # same content.
        with contextlib.suppress(OSError):
            self._folder.rename(self._target)
        if not self._target.exists():
            raise OSError(f"cannot rename {self._folder} to {self._target}")


def compute_starts(shapes: np.ndarray) -> np.ndarray:
    """Offsets of the images in the flat pixels: (num_images + 1,) int64."""
    return np.concatenate([[0], np.cumsum(shapes[:, 0] * shapes[:, 1] * 3)]).astype(np.int64)


def _has_sum(path: Path, sha256: str) -> bool:
    found = path.stat()
    return _compare_sum(path, sha256, found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=100_000)
def _compare_sum(path: Path, sha256: str, *_signature: int) -> bool:
    return compute_sha256(path) == sha256


def _take_space(path: Path) -> None:
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
