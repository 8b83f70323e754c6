"""RDMs as files: a Parquet table, and HDF5 as rsatoolbox 0.3 loads it (`rsatoolbox.rdm.load_rdm`).

The HDF5 file has what `RDMs.to_dict` names: dissimilarities `(1, num_pairs)` float32 in the order
of `scipy.spatial.distance.pdist`, the name of their measure, and descriptors of the whole, of the
RDM and of the conditions.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iqray.schemas import RDM
from iqray.storage import Storage

CONDITION_COLUMNS = ("category", "path", "image_id", "num_images")

# Values that a batch of the Parquet table holds, float32: 16 MB.
_BATCH_VALUES = 4 * 2**20


@dataclass(frozen=True)
class Rdm:
    """An RDM as it was read.

    Attributes:
        names: of its conditions: paths of images, or categories.
        dissimilarities: `(num_pairs,)` float32, condensed.
        measure: of dissimilarity.
    """

    names: tuple[str, ...]
    dissimilarities: NDArray[np.float32]
    measure: str


def write_rdm(
    storage: Storage,
    path: str,
    conditions: pa.Table,
    pieces: Iterable[NDArray[np.float32]],
    measure: str,
    descriptors: Mapping[str, str],
    key: str,
) -> None:
    """Write an RDM as HDF5 and, last, as the Parquet table that says that both are there.

    Args:
        storage: the output root.
        path: of the table; ends in .parquet. The HDF5 file beside it ends in .h5.
        conditions: with `CONDITION_COLUMNS` of `schemas.RDM`, in the order of the RDM.
        pieces: the condensed upper triangle, in order, as `iqray.rdms.blocks` gives it.
        measure: of dissimilarity.
        descriptors: what the RDM is of, for the HDF5 file.
        key: of what it was made from.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rdm.h5"
        with h5py.File(file, "w") as content:
            _write_hdf5(content, conditions, pieces, measure, descriptors)
        storage.copy_from_local(file, path.removesuffix(".parquet") + ".h5")
        with h5py.File(file) as content:
            batches = _slice_rows(content["dissimilarities"], conditions, measure)
            storage.write_batches(path, RDM, batches, key)


def read_rdm(storage: Storage, path: str) -> Rdm:
    """Read an RDM from its Parquet table."""
    table = storage.read_table(path)
    return Rdm(
        names=_name_conditions(table),
        dissimilarities=table["dissimilarities"].combine_chunks().flatten().to_numpy(),
        measure=str(table["measure"][0]),
    )


def read_names(storage: Storage, path: str) -> tuple[str, ...]:
    """The names of an RDM's conditions alone, without its numbers."""
    return _name_conditions(storage.read_table(path, columns=["category", "path"]))


def _name_conditions(table: pa.Table) -> tuple[str, ...]:
    by_image = table["path"].null_count == 0
    return tuple(table["path" if by_image else "category"].to_pylist())


def _write_hdf5(
    file: h5py.File,
    conditions: pa.Table,
    pieces: Iterable[NDArray[np.float32]],
    measure: str,
    descriptors: Mapping[str, str],
) -> None:
    num_conditions = conditions.num_rows
    num_pairs = num_conditions * (num_conditions - 1) // 2
    values = file.create_dataset("dissimilarities", (1, num_pairs), np.float32)
    start = 0
    for piece in pieces:
        values[0, start : start + len(piece)] = piece
        start += len(piece)
    assert start == num_pairs, (start, num_pairs)
    file.attrs["dissimilarity_measure"] = measure
    file.create_group("descriptors").attrs.update(descriptors)
    file.create_group("rdm_descriptors")["index"] = np.arange(1)
    patterns = file.create_group("pattern_descriptors")
    patterns["index"] = np.arange(num_conditions)
    for name in CONDITION_COLUMNS:
        if conditions[name].null_count == 0:
            patterns[name] = _to_array(conditions[name])


def _to_array(column: pa.ChunkedArray) -> NDArray:
    """Integers as they are; text as rsatoolbox writes it, where that can hold it.

    Bytes of one length come back from rsatoolbox as text, but must be ASCII. Other text is written
    as UTF-8 of any length, which rsatoolbox gives as bytes.
    """
    if not pa.types.is_string(column.type):
        return column.to_numpy()
    texts = column.to_pylist()
    if all(text.isascii() for text in texts):
        return np.array(texts, dtype=np.bytes_)
    return np.array(texts, dtype=h5py.string_dtype())


def _slice_rows(
    values: h5py.Dataset, conditions: pa.Table, measure: str
) -> Iterator[pa.RecordBatch]:
    """Rows of `schemas.RDM`, read from the condensed form."""
    num_conditions = conditions.num_rows
    # Where each condition's list begins: row i has num_conditions - 1 - i values.
    starts = np.concatenate([[0], np.cumsum(np.arange(num_conditions)[::-1])])
    rows = max(1, _BATCH_VALUES // max(1, num_conditions))
    for first in range(0, num_conditions, rows):
        own = conditions.slice(first, rows).combine_chunks()
        last = first + own.num_rows
        offsets = starts[first : last + 1]
        flat = pa.array(values[0, offsets[0] : offsets[-1]])
        columns = {
            **{name: own[name].combine_chunks() for name in CONDITION_COLUMNS},
            "measure": pa.repeat(measure, own.num_rows),
            "dissimilarities": pa.ListArray.from_arrays(
                pa.array((offsets - offsets[0]).astype(np.int32)), flat
            ),
        }
        yield pa.RecordBatch.from_pydict({name: columns[name] for name in RDM.names}, schema=RDM)
