"""Decode the images of categories into packs, in threads.

Reads encoded images from a dataset; writes a pack (`iqray.packs.packing`) for each category.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from iqray.errors import StudyError
from iqray.inputs.images import ImageFailure, check_unchanged, decode_image
from iqray.inputs.sources import ImageSource
from iqray.packs.packing import PackWriter
from iqray.recipes import StoredSide


def write_packs(
    source: ImageSource, images: pa.Table, writers: Mapping[str, PackWriter], num_threads: int
) -> None:
    """Decode images, resize them to the shapes that their writers have, and finish the packs.

    Each image is decoded as `iqray.inputs.images` does (8-bit RGB, no EXIF rotation) and resized,
    up or down, with Pillow's bilinear filter, whose support grows with the scale (antialiased), on
    full-size pixels (no `reducing_gap`, no JPEG draft mode). One of its stored shape keeps its
    pixels.

    All packs are written in one pass over the images as they lie in the dataset, which reads a
    Parquet file's row groups once, however many categories they hold. Decoding and resizing
    release the GIL, so threads share them.

    Args:
        source: of the dataset.
        images: rows of the manifest that are ok; those of other categories are passed over.
        writers: by category.
        num_threads: that decode.

    Raises:
        StudyError: an image cannot be read or decoded, or has changed; the message names it.
    """

    def pack(image: tuple[dict[str, Any], int, bytes | ImageFailure]) -> None:
        row, index, data = image
        writer = writers[row["category"]]
        height, width = writer.shapes[index].tolist()
        writer.write(index, _decode_resized(source, row, data, height, width))

    _spread(pack, _read_in_place(source, images, writers), num_threads)
    for writer in writers.values():
        writer.finish()


def select_category(images: pa.Table, category: str) -> pa.Table:
    """Rows of one category, in their order."""
    return images.filter(pc.equal(images["category"], category))


def compute_stored_shapes(images: pa.Table, stored_px: StoredSide) -> np.ndarray:
    """Height and width as stored: (num_images, 2) int64, pixels.

    The long side is truncated to whole pixels, as in torchvision's `Resize`.

    Args:
        images: rows of the manifest that are ok.
        stored_px: short side of the stored images, pixels; `native` keeps their sizes.
    """
    native = np.stack([images[name].to_numpy() for name in ("height", "width")], axis=1)
    native = native.astype(np.int64)
    if stored_px == "native":
        return native
    short, long = native.min(axis=1), native.max(axis=1)
    stored_long = (stored_px * long / short).astype(np.int64)
    return np.where(native == short[:, None], stored_px, stored_long[:, None])


def _spread(work: Callable[[Any], None], items: Iterable[Any], num_threads: int) -> None:
    """Do work on items in threads, with few of them waiting."""
    with ThreadPoolExecutor(num_threads) as executor:
        waiting: deque[Future[None]] = deque()
        for item in items:
            if len(waiting) == 2 * num_threads:
                waiting.popleft().result()
            waiting.append(executor.submit(work, item))
        for future in waiting:
            future.result()


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
