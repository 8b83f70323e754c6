"""Decoded images on local disk: decoded once, memory-mapped, shared by all trials of a node.

Reads the images of categories (of one dataset, split and resolution); writes a pack for each: a
folder with `pixels.npy`, the images one after the other as raw RGB, and `shapes.npy`, their heights
and widths. Images keep their aspect ratio, so a pack is ragged.
"""

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.lib.format import open_memmap
from PIL import Image

from iqray.errors import StudyError
from iqray.inputs.images import ImageFailure, check_unchanged, decode_image
from iqray.inputs.sources import ImageSource

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

    @property
    def num_bytes(self) -> int:
        """Of all pixels."""
        return 3 * int(self.shapes.prod(axis=1).sum())

    def image(self, index: int) -> np.ndarray:
        """Image as a (height, width, 3) uint8 RGB view; no pixel is copied."""
        target = self.targets[index]
        return self.packs[target].image(index - self._first[target])


def pack_images(
    source: ImageSource, images: pa.Table, short_side_px: int, targets: Mapping[str, Path]
) -> None:
    """Decode images, resize them and write one pack per category; packs that exist are kept.

    Each image is decoded as `iqray.inputs.images` does (8-bit RGB, no EXIF rotation) and resized,
    up or down, so that its short side is `short_side_px`: Pillow's bilinear filter, whose support
    grows with the scale (antialiased), on full-size pixels (no `reducing_gap`, no JPEG draft mode).
    The long side is truncated to whole pixels, as in torchvision's `Resize`.

    A pack is written to a hidden folder beside its target and renamed: a pack that exists is
    whole, and of several processes that write the same one, the first wins. All are written in
    one pass over the images as they lie in the dataset, which reads a Parquet file's row groups
    once, however many categories they hold.

    Args:
        source: of the dataset.
        images: rows of the manifest that are ok; a category's order is kept.
        short_side_px: of the stored images, pixels.
        targets: folder of each category's pack.

    Raises:
        StudyError: an image cannot be read or decoded, or has changed; the message names it.
    """
    missing = {category: target for category, target in targets.items() if not target.exists()}
    with contextlib.ExitStack() as stack:
        writers = {}
        for category, target in missing.items():
            own = images.filter(pc.equal(images["category"], category))
            shapes = _compute_stored_shapes(own, short_side_px)
            writers[category] = stack.enter_context(_PackWriter(shapes, target))
        for row, index, data in _read_in_place(source, images, missing):
            stored_height, stored_width = writers[row["category"]].shapes[index].tolist()
            pixels = _decode_resized(source, row, data, stored_height, stored_width)
            writers[row["category"]].write(index, pixels)
        for writer in writers.values():
            writer.finish()


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


class _PackWriter:
    """Writes one pack, images in any order; without `finish` nothing of it stays."""

    def __init__(self, shapes: np.ndarray, target: Path) -> None:
        self.shapes = shapes
        self._target = target
        self._starts = _compute_starts(shapes)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        np.save(self._folder / _SHAPES_FILE, shapes)
        # An empty file cannot be mapped, so an empty pack keeps one unused byte.
        self._pixels = open_memmap(
            self._folder / _PIXELS_FILE,
            mode="w+",
            dtype=np.uint8,
            shape=(max(1, int(self._starts[-1])),),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, index: int, pixels: np.ndarray) -> None:
        """Store image `index`: (height, width, 3) uint8 of its stored shape."""
        self._pixels[self._starts[index] : self._starts[index + 1]] = pixels.reshape(-1)

    def finish(self) -> None:
        """Give the pack its name."""
        self._pixels.flush()
        # A rename onto a folder that holds files fails: another process was first, with the
        # same content.
        with contextlib.suppress(OSError):
            self._folder.rename(self._target)
        if not self._target.exists():
            raise OSError(f"cannot rename {self._folder} to {self._target}")


def _read_in_place(
    source: ImageSource, images: pa.Table, categories: Collection[str]
) -> Iterator[tuple[dict[str, Any], int, bytes | ImageFailure]]:
    """Images as they lie in the dataset: row, position in its category, encoded bytes."""
    chosen = images.filter(
        pc.is_in(images["category"], value_set=pa.array(categories, pa.string()))
    )
    counts: Counter[str] = Counter()
    positions = []
    for category in chosen["category"].to_pylist():
        positions.append(counts[category])
        counts[category] += 1
    chosen = chosen.append_column("index", pa.array(positions, pa.int64()))
    chosen = chosen.sort_by([("container", "ascending"), ("position", "ascending")])
    rows = chosen.select(["path", "category", "container", "sha256", "index"]).to_pylist()
    for row, data in zip(rows, source.read(chosen), strict=True):
        yield row, row["index"], data


def _compute_starts(shapes: np.ndarray) -> np.ndarray:
    """Offsets of the images in the flat pixels: (num_images + 1,) int64."""
    return np.concatenate([[0], np.cumsum(shapes[:, 0] * shapes[:, 1] * 3)]).astype(np.int64)


def _compute_stored_shapes(images: pa.Table, short_side_px: int) -> np.ndarray:
    """Height and width as stored: (num_images, 2) int64, pixels."""
    native = np.stack([images[name].to_numpy() for name in ("height", "width")], axis=1)
    native = native.astype(np.int64)
    short, long = native.min(axis=1), native.max(axis=1)
    stored_long = (short_side_px * long / short).astype(np.int64)
    return np.where(native == short[:, None], short_side_px, stored_long[:, None])


def _decode_resized(
    source: ImageSource, row: dict[str, Any], data: bytes | ImageFailure, height: int, width: int
) -> np.ndarray:
    if isinstance(data, ImageFailure):
        raise _describe_failure(source.describe(row), data)
    check_unchanged(source.describe(row), data, row["sha256"])
    decoded = decode_image(data)
    if isinstance(decoded, ImageFailure):
        raise _describe_failure(source.describe(row), decoded)
    image = Image.fromarray(decoded.pixels)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _describe_failure(name: str, failure: ImageFailure) -> StudyError:
    return StudyError(
        f"cannot pack '{name}': {failure.reason}. Every image trained or tested on must be "
        "readable; has the file changed since the manifest was made? Make the manifest anew, or "
        "remove the file from the dataset"
    )
