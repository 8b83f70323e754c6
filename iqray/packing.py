"""Decoded images on local disk: decoded once, memory-mapped, shared by all trials of a node.

Reads the image files of one category (and dataset, split, resolution); writes a pack: a folder
with `pixels.npy`, the images one after the other as raw RGB, and `shapes.npy`, their heights and
widths. Images keep their aspect ratio, so a pack is ragged.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image

from iqray.errors import StudyError
from iqray.images import ImageFailure, decode_image, read_header

_PIXELS_FILE = "pixels.npy"
_SHAPES_FILE = "shapes.npy"


@dataclass(frozen=True)
class Pack:
    """Images of one category, in the order of their files.

    Attributes:
        pixels: flat uint8; image i is its (height, width, 3) RGB values in C order.
        shapes: (num_images, 2) int64, height and width in pixels.
    """

    pixels: np.ndarray
    shapes: np.ndarray

    @cached_property
    def _starts(self) -> np.ndarray:
        return _compute_starts(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def image(self, index: int) -> np.ndarray:
        """Image as a (height, width, 3) uint8 RGB view; no pixel is copied."""
        height, width = self.shapes[index]
        flat = self.pixels[self._starts[index] : self._starts[index + 1]]
        return flat.reshape(height, width, 3)


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

    def image(self, index: int) -> np.ndarray:
        """Image as a (height, width, 3) uint8 RGB view; no pixel is copied."""
        target = self.targets[index]
        return self.packs[target].image(index - self._first[target])


def pack_images(files: Sequence[Path], short_side_px: int, target: Path) -> None:
    """Decode images, resize them and write them as a pack; do nothing when the pack exists.

    Each image is decoded as `iqray.images` does (8-bit RGB, no EXIF rotation) and resized, up or
    down, so that its short side is `short_side_px`: Pillow's bilinear filter, whose support grows
    with the scale (antialiased), on full-size pixels (no `reducing_gap`, no JPEG draft mode). The
    long side is truncated to whole pixels, as in torchvision's `Resize`.

    The pack is written to a hidden folder beside `target` and renamed: a pack that exists is
    whole, and of several processes that write the same one, the first wins.

    Args:
        files: image files of one category; their order is kept.
        short_side_px: of the stored images, pixels.
        target: folder of the pack.

    Raises:
        StudyError: a file cannot be decoded; the message names it.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        _write_pack(files, short_side_px, temporary)
        # A rename onto a folder that holds files fails: another process was first, with the
        # same content.
        with contextlib.suppress(OSError):
            temporary.rename(target)
        if not target.exists():
            raise OSError(f"cannot rename {temporary} to {target}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_pack(path: Path) -> Pack:
    """Open a pack through memory maps; nothing done to its arrays reaches the disk."""
    return Pack(
        # Mapped copy-on-write rather than read-only, since torch warns of read-only arrays. As a
        # plain array, because indexing an np.memmap object is several times slower.
        pixels=np.asarray(np.load(path / _PIXELS_FILE, mmap_mode="c")),
        shapes=np.load(path / _SHAPES_FILE),
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


def _write_pack(files: Sequence[Path], short_side_px: int, folder: Path) -> None:
    shapes = np.array(
        [_read_stored_shape(file, short_side_px) for file in files], dtype=np.int64
    ).reshape(len(files), 2)
    starts = _compute_starts(shapes)
    np.save(folder / _SHAPES_FILE, shapes)
    # An empty file cannot be mapped, so an empty pack keeps one unused byte.
    pixels = open_memmap(
        folder / _PIXELS_FILE, mode="w+", dtype=np.uint8, shape=(max(1, int(starts[-1])),)
    )
    for index, file in enumerate(files):
        height, width = shapes[index]
        stored = _decode_resized(file, int(height), int(width))
        pixels[starts[index] : starts[index + 1]] = stored.reshape(-1)
    pixels.flush()


def _compute_starts(shapes: np.ndarray) -> np.ndarray:
    """Offsets of the images in the flat pixels: (num_images + 1,) int64."""
    return np.concatenate([[0], np.cumsum(shapes[:, 0] * shapes[:, 1] * 3)]).astype(np.int64)


def _read_stored_shape(file: Path, short_side_px: int) -> tuple[int, int]:
    header = read_header(file.read_bytes())
    if isinstance(header, ImageFailure):
        raise _describe_failure(file, header)
    short, long = sorted((header.width, header.height))
    stored_long = int(short_side_px * long / short)
    if header.width <= header.height:
        return stored_long, short_side_px
    return short_side_px, stored_long


def _decode_resized(file: Path, height: int, width: int) -> np.ndarray:
    decoded = decode_image(file.read_bytes())
    if isinstance(decoded, ImageFailure):
        raise _describe_failure(file, decoded)
    image = Image.fromarray(decoded.pixels)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _describe_failure(file: Path, failure: ImageFailure) -> StudyError:
    return StudyError(
        f"cannot pack '{file}': {failure.reason}. Every image trained or tested on must be "
        "readable; has the file changed since the manifest was made? Make the manifest anew, or "
        "remove the file from the dataset"
    )
