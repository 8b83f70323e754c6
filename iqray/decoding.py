"""Decode a shard's images ahead of whoever scores them, each once, in bounded memory.

Reads rows of the manifest and encoded bytes; gives pixels in chunks. Reading and decoding run in
threads (Pillow and file reads release the GIL), one chunk ahead.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from iqray.images import DecodedImage, ImageFailure, decode_image

Row = dict[str, Any]
Loaded = DecodedImage | ImageFailure

# Gives the encoded bytes of rows, in their order, or why there are none.
ReadBytes = Callable[[Sequence[Row]], Iterable[bytes | ImageFailure]]

# Images are held decoded until they have this many pixels together (32 Mpx are 0.1 GB of RGB);
# two chunks are in memory, whatever the shard holds.
_CHUNK_PIXELS = 32_000_000


def decode_in_chunks(
    rows: Sequence[Row], read_bytes: ReadBytes, num_threads: int
) -> Iterator[tuple[range, list[Loaded]]]:
    """Decode images chunk by chunk.

    Args:
        rows: of the manifest. One that could not be decoded there is not tried again.
        read_bytes: of the dataset.
        num_threads: that decode.

    Yields:
        Positions in `rows`, and what was decoded, in order.
    """
    chunks = list(_plan_chunks(rows))
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(num_threads) as decoders:

        def load(chunk: range) -> list[Loaded]:
            return _load([rows[index] for index in chunk], read_bytes, decoders)

        waiting: Future[list[Loaded]] = reader.submit(load, chunks[0])
        for chunk, following in pairwise([*chunks, None]):
            assert chunk is not None
            loaded = waiting.result()
            if following is not None:
                waiting = reader.submit(load, following)
            yield chunk, loaded


def decode_row(row: Row, read_bytes: ReadBytes) -> Loaded:
    """Decode one image, or say why it cannot be."""
    if row["status"] != "ok":
        return ImageFailure(row["status"], row["reason"])
    [data] = read_bytes([row])
    return data if isinstance(data, ImageFailure) else decode_image(data)


def _plan_chunks(rows: Sequence[Row]) -> Iterator[range]:
    """Cut positions where the pixels known from the manifest fill a chunk."""
    start = num_pixels = 0
    for index, row in enumerate(rows):
        num_pixels += (row["width"] or 0) * (row["height"] or 0)
        if num_pixels >= _CHUNK_PIXELS:
            yield range(start, index + 1)
            start, num_pixels = index + 1, 0
    if start < len(rows):
        yield range(start, len(rows))


def _load(rows: list[Row], read_bytes: ReadBytes, decoders: ThreadPoolExecutor) -> list[Loaded]:
    readable = [row for row in rows if row["status"] == "ok"]
    decoded = (
        decoders.submit(_decode, data) for data in (read_bytes(readable) if readable else ())
    )
    results = iter(list(decoded))
    return [
        next(results).result()
        if row["status"] == "ok"
        else ImageFailure(row["status"], row["reason"])
        for row in rows
    ]


def _decode(data: bytes | ImageFailure) -> Loaded:
    return data if isinstance(data, ImageFailure) else decode_image(data)
