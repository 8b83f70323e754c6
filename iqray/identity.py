"""Content keys: equal content gives an equal key, on any machine and in any process."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

_HASHED_VALUES = 16_384


def hash_content(value: object) -> str:
    """SHA-256 (hex) of a value made of JSON types; mappings are taken in sorted order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_strings(values: Iterable[str]) -> str:
    """SHA-256 (hex) of a sequence of strings; order and borders between strings count."""
    digest = hashlib.sha256()
    for value in values:
        encoded = value.encode("utf-8", "surrogateescape")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def hash_rows(rows: pa.Table) -> str:
    """SHA-256 (hex) of a table of strings and integers, taken column by column.

    Order, nulls and the borders between values count; how the table is cut into chunks does not.
    Makes no Python object of a value.
    """
    digest = hashlib.sha256(rows.num_rows.to_bytes(8, "big"))
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        digest.update(f"{name}\t{column.type}\t{column.null_count}\n".encode())
        values = column.combine_chunks()
        if values.null_count:
            digest.update(values.is_null().cast(pa.uint8()).to_numpy().tobytes())
            values = values.fill_null("" if pa.types.is_string(values.type) else 0)
        if pa.types.is_string(values.type):
            lengths, text = _take_text(values)
            digest.update(lengths)
            digest.update(text)
        else:
            assert pa.types.is_integer(values.type), (name, values.type)
            digest.update(values.to_numpy().astype("<i8", copy=False).tobytes())
    return digest.hexdigest()


def _take_text(values: pa.StringArray) -> tuple[bytes, memoryview]:
    """Byte lengths of strings without nulls, and their UTF-8 side by side."""
    if not len(values):
        return b"", memoryview(b"")
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, "<i4")[values.offset : values.offset + len(values) + 1]
    text = memoryview(data if data is not None else b"")[ends[0] : ends[-1]]
    return (ends[1:] - ends[:-1]).tobytes(), text


def find_repeats(values: pa.ChunkedArray) -> np.ndarray:
    """Which values occur more than once: (len(values),) bool; nulls do not count.

    Hashes of 8 bytes tell which values may repeat; only these are compared whole, so that millions
    of different ones are not copied into a dictionary.
    """
    repeats = _find_equal(_hash_values(values))
    encoded = values.filter(pa.array(repeats)).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    indices = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    counts = np.bincount(indices, minlength=len(encoded.dictionary) + 1)
    counts[-1] = 0
    repeats[repeats] = counts[indices] > 1
    return repeats


def compute_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_image_id(path: str) -> int:
    """63-bit id of an image: the first bits of the SHA-256 of its path in the dataset.

    Among 2.7 million images a collision has a chance of about 4e-7; the manifest checks for one.
    """
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _hash_values(values: pa.ChunkedArray) -> np.ndarray:
    """Hashes (len(values),) uint64; values become Python objects a chunk at a time."""
    from pandas.util import hash_array  # takes half a second to import, and few need it

    hashes = np.empty(len(values), np.uint64)
    for start in range(0, len(values), _HASHED_VALUES):
        chunk = values.slice(start, _HASHED_VALUES).to_numpy(zero_copy_only=False)
        hashes[start : start + len(chunk)] = hash_array(chunk)
    return hashes


def _find_equal(numbers: np.ndarray) -> np.ndarray:
    """Which numbers another one equals: (len(numbers),) bool."""
    order = np.argsort(numbers)
    equals_next = np.zeros(len(numbers), bool)
    equals_next[:-1] = numbers[order[1:]] == numbers[order[:-1]]
    found = np.zeros(len(numbers), bool)
    found[order] = equals_next | np.roll(equals_next, 1)
    return found
