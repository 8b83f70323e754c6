"""Decode a shard's images ahead of whoever scores them, each once, in bounded memory.

Reads rows of the manifest and encoded bytes; gives pixels in chunks. Reading and decoding run in
threads (Pillow and file reads release the GIL), one chunk ahead.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from iqray.errors import StudyError
from iqray.inputs.images import DecodedImage, ImageFailure, check_unchanged, decode_image
from iqray.inputs.sources import ImageSource

Encoded = bytes | ImageFailure
Loaded = DecodedImage | ImageFailure

_Made = TypeVar("_Made")

# Images are held decoded until they have this many pixels together (32 Mpx are 0.1 GB of RGB);
# two chunks are in memory, whatever the shard holds.
CHUNK_PIXELS = 32_000_000


def decode_in_chunks(
    rows: pa.Table, source: ImageSource, num_threads: int
) -> Iterator[list[Loaded]]:
    """Decode images chunk by chunk, in order.

    Args:
        rows: of the manifest. One that could not be decoded there is not tried again.
        source: of the dataset.
        num_threads: that decode.

    Raises:
        StudyError: an image has changed since the manifest was made, or cannot be read.
    """
    encoded = read_images(rows, source)
    with ThreadPoolExecutor(num_threads) as decoders:
        yield from make_ahead(
            list(decoders.map(decode, islice(encoded, size))) for size in _plan_chunks(rows)
        )


def make_ahead(items: Iterator[_Made]) -> Iterator[_Made]:
    """Make each item in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as maker:
        waiting = maker.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = maker.submit(next, items, None)
            yield item


def read_images(rows: pa.Table, source: ImageSource) -> Iterator[Encoded]:
    """Encoded bytes of images, or why they are known to have none that can be decoded, in order.

    Raises:
        StudyError: an image has changed since the manifest was made, or cannot be read.
    """
    data = source.read(rows.filter(pc.equal(rows["status"], "ok")))
    for row in rows.to_pylist():
        if row["status"] != "ok":
            yield ImageFailure(row["status"], row["reason"])
            continue
        encoded = next(data)
        if isinstance(encoded, ImageFailure):  # it was there when the manifest was made
            raise StudyError(
                f"image '{source.describe(row)}' cannot be found any more ({encoded.reason}); when "
                "its disk is back, or the file is gone on purpose, run the study again"
            )
        check_unchanged(source.describe(row), encoded, row["sha256"])
        yield encoded


def decode(encoded: Encoded) -> Loaded:
    """Decode an image, or pass on why that is not possible."""
    return encoded if isinstance(encoded, ImageFailure) else decode_image(encoded)


def _plan_chunks(rows: pa.Table) -> Iterator[int]:
    """Numbers of images after which the pixels known from the manifest fill a chunk."""
    sizes: Sequence[int] = pc.fill_null(pc.multiply(rows["width"], rows["height"]), 0).to_pylist()
    num_images = num_pixels = 0
    for size in sizes:
        num_images += 1
        num_pixels += size
        if num_pixels >= CHUNK_PIXELS:
            yield num_images
            num_images = num_pixels = 0
    if num_images:
        yield num_images
