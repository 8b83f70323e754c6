"""Inspect images: what a manifest says of each, and their pixels for whoever scores them at once.

Every image is decoded once, so that a row with status ok is an image that scoring, training and
testing can all use.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from iqray import schemas
from iqray.attempts import Attempt, Step, Watchdog, begin_attempt, end_process_on
from iqray.errors import StudyError
from iqray.identity import hash_strings
from iqray.inputs.decoding import CHUNK_PIXELS, Encoded, Loaded, decode, make_ahead
from iqray.inputs.images import ImageFailure, read_header
from iqray.inputs.sources import ImageSource
from iqray.pools import Written
from iqray.storage import Storage

# An image that takes longer to decode is recorded as crashed.
_MAX_IMAGE_S = 600

# A row of `schemas.MANIFEST`.
Record = dict[str, Any]


class ImageInspector:
    """Reads and decodes the images of a shard and writes their manifest rows.

    Args:
        storage: the output root.
        sources: of the images, by dataset.
        attempts: folder under the output root for notes on shards that have been begun.
    """

    def __init__(self, storage: Storage, sources: Mapping[str, ImageSource], attempts: str) -> None:
        self._storage = storage
        self._sources = sources
        self._attempts = attempts
        self._watchdog = Watchdog(_MAX_IMAGE_S)

    def work(self, rows: pa.Table, path: str, dataset: str) -> list[Written]:
        """Inspect images and write their rows to `path`."""
        images = self._sources[dataset].read(rows)
        folder = f"{self._attempts}/{hash_strings([path])[:16]}"
        with begin_attempt(self._storage, folder) as attempt:
            if attempt.is_first:
                with end_process_on((MemoryError,)):
                    records = list(map(self._inspect, rows.to_pylist(), images))
            else:
                records = self._inspect_step_by_step(rows, self._sources[dataset], attempt)
            self._watchdog.disarm()
            self._storage.write_table(path, pa.Table.from_pylist(records, schema=schemas.MANIFEST))
        num_failed = sum(record["status"] != "ok" for record in records)
        return [Written(dataset, len(records), num_failed)]

    def _inspect(self, row: Record, data: Encoded) -> Record:
        self._watchdog.rearm()
        record, encoded = _begin_record(row, data)
        return _end_record(record, decode(encoded))

    def _inspect_step_by_step(
        self, rows: pa.Table, source: ImageSource, attempt: Attempt
    ) -> list[Record]:
        """Note each image before it is read: a process has died on the shard before."""
        records: dict[int, Record] = {}
        for index in attempt.order(rows.num_rows):
            step = Step(index, "decoding")
            row = rows.slice(index, 1)
            if attempt.enter(step):
                with end_process_on((MemoryError,), attempt, step):
                    [data] = source.read(row)
                    records[index] = self._inspect(row.to_pylist()[0], data)
            else:
                given_up = ImageFailure("crashed", attempt.explain(step))
                record, _ = _begin_record(row.to_pylist()[0], given_up)
                records[index] = record
        return [records[index] for index in range(rows.num_rows)]


def inspect_in_chunks(
    rows: pa.Table, source: ImageSource, num_threads: int
) -> Iterator[tuple[list[Record], list[Loaded]]]:
    """Inspect images chunk by chunk, in order, and keep their pixels until the next chunk.

    Args:
        rows: of a listing.
        source: of the dataset.
        num_threads: that decode.

    Raises:
        StudyError: an image that was listed cannot be found or read.
    """
    with ThreadPoolExecutor(num_threads) as decoders:
        yield from make_ahead(_inspect_chunks(rows, source, decoders))


def _inspect_chunks(
    rows: pa.Table, source: ImageSource, decoders: ThreadPoolExecutor
) -> Iterator[tuple[list[Record], list[Loaded]]]:
    for chunk in _read_chunks(rows, source):
        loaded = list(decoders.map(decode, (encoded for _, encoded in chunk)))
        records = [_end_record(record, own) for (record, _), own in zip(chunk, loaded, strict=True)]
        yield records, loaded


def _read_chunks(rows: pa.Table, source: ImageSource) -> Iterator[list[tuple[Record, Encoded]]]:
    """Encoded images until their headers tell of enough pixels to fill a chunk."""
    chunk: list[tuple[Record, Encoded]] = []
    num_pixels = 0
    for row, data in zip(rows.to_pylist(), source.read(rows), strict=True):
        record, encoded = _begin_record(row, data)
        chunk.append((record, encoded))
        if isinstance(encoded, bytes):
            num_pixels += record["width"] * record["height"]
        if num_pixels >= CHUNK_PIXELS:
            yield chunk
            chunk, num_pixels = [], 0
    if chunk:
        yield chunk


def _begin_record(row: Record, data: Encoded) -> tuple[Record, Encoded]:
    """What an image's bytes and header say; then the bytes, unless there is nothing to decode."""
    record = {**row, "status": "ok", "reason": "", "sha256": ""}
    if isinstance(data, ImageFailure):
        _check_missing(row, data)
        return _end_record(record, data), data
    record |= {"sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}
    header = read_header(data)
    if isinstance(header, ImageFailure):
        return _end_record(record, header), header
    return record | {"width": header.width, "height": header.height, "mode": header.mode}, data


def _end_record(record: Record, loaded: Loaded) -> Record:
    """Add what decoding has ended with."""
    if isinstance(loaded, ImageFailure):
        return {**record, "status": loaded.status, "reason": loaded.reason}
    return record


def _check_missing(row: Record, failure: ImageFailure) -> None:
    """Accept that a file is missing only where its listing saw a link to nowhere.

    Raises:
        StudyError: the file was there a moment ago. A disk that comes back must not leave rows
            that say for ever that it has nothing.
    """
    if failure.status == "missing" and (row["num_bytes"] or row["modified_ns"]):
        raise StudyError(
            f"image '{row['path']}' was listed but cannot be found ({failure.reason}); when its "
            "disk is back, or the file is gone on purpose, run the study again"
        )
