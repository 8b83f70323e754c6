"""Layout `parquet`: encoded images in a column, the form of Hugging Face image datasets.

The image column holds bytes, or structs of `bytes` and `path`. The category column holds text, or
integers, which the file's Hugging Face metadata (a ClassLabel) turns into names where it is there.
"""

import functools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.identity import find_repeats
from iqray.inputs.image_root import FoundFile, ImageRoot, map_in_threads
from iqray.inputs.images import ImageFailure
from iqray.inputs.layouts.base import FOUND, SEPARATOR, describe_file

_NUM_OPEN_FILES = 8

# Rows and bytes read at once: bounds memory whatever the size of a row group. A page is read whole.
_BATCH_ROWS = 64
_BUFFER_BYTES = 8 * 2**20


def list_split(dataset: Dataset, root: ImageRoot, pattern: str) -> pa.Table:
    """Images of one split, by file and row: a table of `FOUND`.

    Only the category, and the key or the image's own path, are read.

    Raises:
        StudyError: a file is broken, lacks a column, or has an image without category or key.
    """
    files = find_containers(root, pattern)
    tables = map_in_threads(lambda file: _list_file(dataset, root, file), files)
    return pa.concat_tables([FOUND.empty_table(), *tables])


def find_containers(root: ImageRoot, pattern: str) -> list[FoundFile]:
    """The files that `list_split` opens, sorted by path."""
    return root.find_files(pattern, (".parquet",))


def identify(dataset: Dataset, images: pa.Table) -> pa.ChunkedArray:
    """The path of every image: its key; else its own path; else `<file>#<row>`.

    The key is the value of `key_column`, where the dataset names one. The path within the image
    column is taken where every image of the dataset has one and none repeats.

    Raises:
        StudyError: a key repeats.
    """
    names = images["name"]
    repeats = find_repeats(names)
    if dataset.key_column is not None and repeats.any():
        first = names[int(np.flatnonzero(repeats)[0])].as_py()
        holders = images.filter(pc.equal(names, first))["container"].unique().to_pylist()
        raise StudyError(
            f"dataset '{dataset.name}': key_column '{dataset.key_column}' holds '{first}' more "
            f"than once (in {', '.join(holders[:3])}); name a column whose values are unique in "
            "the dataset, or leave key_column out"
        )
    if names.null_count == 0 and not repeats.any():
        return names
    rows = pc.cast(images["position"], pa.string())
    return pc.binary_join_element_wise(images["container"], rows, SEPARATOR)


class ParquetReader:
    """Reads rows; each row group that holds some of them is read once.

    Args:
        root: of the dataset.
        image_column: holds bytes, or structs with a field `bytes`.
        rows: that will be asked for; those of a row group are kept until then.
    """

    can_read_ahead = False

    def __init__(self, root: ImageRoot, image_column: str, rows: pa.Table) -> None:
        self._root = root
        self._image_column = image_column
        self._open = functools.lru_cache(_NUM_OPEN_FILES)(self._open_file)
        self._held: dict[tuple[str, int], bytes | ImageFailure] = {}
        self._wanted: dict[str, np.ndarray] = {}
        for name in rows["container"].unique().to_pylist():
            positions = rows.filter(pc.equal(rows["container"], name))["position"]
            self._wanted[name] = np.sort(positions.to_numpy())

    def read(self, row: dict[str, Any]) -> bytes | ImageFailure:
        """Image of a row."""
        key = row["container"], row["position"]
        if key not in self._held:
            self._read_row_group(*key)
        return self._held.pop(key)

    def _read_row_group(self, name: str, position: int) -> None:
        try:
            file, starts = self._open(name)
            group = int(np.searchsorted(starts, position, side="right")) - 1
            if group >= file.num_row_groups:
                raise StudyError(
                    f"Parquet file '{self._root.describe(name)}' has changed since its images "
                    "were listed; run the study again, which starts with the manifest"
                )
            self._hold(name, file, group, int(starts[group]), int(starts[group + 1]))
        except pa.ArrowException as error:
            raise _describe_broken(self._root.describe(name), error) from error

    def _hold(self, name: str, file: pq.ParquetFile, group: int, start: int, end: int) -> None:
        """Keep the wanted images of a row group."""
        wanted = self._wanted[name]
        wanted = wanted[(wanted >= start) & (wanted < end)]
        column = _get_bytes_column(file.schema_arrow, self._image_column)
        batches = file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column])
        for batch in batches:
            own = wanted[(wanted >= start) & (wanted < start + len(batch))]
            for position in own.tolist():
                self._held[name, position] = _take_bytes(batch.column(0)[position - start])
            start += len(batch)
            if not wanted.size or start > wanted[-1]:
                return

    def _open_file(self, name: str) -> tuple[pq.ParquetFile, np.ndarray]:
        """A file with the first row of each row group, and its number of rows at the end."""
        handle = self._root.open_file(name)
        file = pq.ParquetFile(handle, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        metadata = file.metadata
        counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        return file, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _take_bytes(value: pa.Scalar) -> bytes | ImageFailure:
    content = value.as_py()
    if isinstance(content, dict):
        content = content["bytes"]
    return ImageFailure("missing", "the row holds no image bytes") if content is None else content


def _get_bytes_column(schema: pa.Schema, image_column: str) -> str:
    """Name of the column that holds encoded bytes; within a struct only that is read."""
    is_struct = pa.types.is_struct(schema.field(image_column).type)
    return f"{image_column}.bytes" if is_struct else image_column


def _list_file(dataset: Dataset, root: ImageRoot, file: FoundFile) -> pa.Table:
    where = root.describe(file.path)
    try:
        with root.open_file(file.path) as handle, pq.ParquetFile(handle) as parquet:
            schema = parquet.schema_arrow
            name_column = _check_columns(dataset, schema, where)
            columns = [str(dataset.category_column), *([name_column] if name_column else [])]
            rows = parquet.read(columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise _describe_broken(where, error) from error
    count = rows.num_rows
    found = {
        "category": _name_categories(dataset, rows[str(dataset.category_column)], schema, where),
        "name": _take_names(dataset, rows, name_column, where),
        "num_bytes": pa.nulls(count, pa.int64()),
        **describe_file(file, count),
        "position": pa.array(range(count), pa.int64()),
    }
    return pa.table(found, schema=FOUND)


def _describe_broken(where: str, error: BaseException) -> StudyError:
    return StudyError(f"Parquet file '{where}' cannot be read ({error}); repair it, or remove it")


def _check_columns(dataset: Dataset, schema: pa.Schema, where: str) -> str | None:
    """Check that the columns are there; which column names the images, if any."""
    for key in ("image_column", "category_column", "key_column"):
        column = getattr(dataset, key)
        if column is not None and column not in schema.names:
            raise StudyError(
                f"Parquet file '{where}' has no column '{column}'; it has "
                f"{', '.join(schema.names)}: correct {key} of dataset '{dataset.name}'"
            )
    image_type = schema.field(dataset.image_column).type
    fields = _list_fields(image_type)
    if not _is_binary(image_type) and not _is_binary(fields.get("bytes")):
        raise StudyError(
            f"column '{dataset.image_column}' of Parquet file '{where}' is {image_type}; it must "
            "hold encoded images: bytes, or structs with a field 'bytes'"
        )
    if dataset.key_column is not None:
        return dataset.key_column
    return f"{dataset.image_column}.path" if "path" in fields else None


def _list_fields(kind: pa.DataType) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}


def _is_binary(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _take_names(
    dataset: Dataset, rows: pa.Table, name_column: str | None, where: str
) -> pa.ChunkedArray | pa.Array:
    if name_column is None:
        return pa.nulls(rows.num_rows, pa.string())
    if dataset.key_column is None:
        paths = pc.struct_field(rows[str(dataset.image_column)], "path")
        return pc.cast(paths, pa.string())
    return _to_text(rows[dataset.key_column], "key_column", dataset.key_column, where)


def _name_categories(
    dataset: Dataset, column: pa.ChunkedArray, schema: pa.Schema, where: str
) -> pa.ChunkedArray:
    name = str(dataset.category_column)
    names = _read_class_names(schema, name)
    if names is None or not pa.types.is_integer(column.type):
        return _to_text(column, "category_column", name, where)
    if len(set(names)) < len(names):
        raise StudyError(f"the ClassLabel of column '{name}' in '{where}' has a name twice")
    bounds = pc.min_max(column).as_py()
    if column.null_count or (len(column) and not 0 <= bounds["min"] <= bounds["max"] < len(names)):
        raise StudyError(
            f"column '{name}' of Parquet file '{where}' has images without a category (nulls, or "
            f"values from {bounds['min']} to {bounds['max']} where 0 to {len(names) - 1} have "
            "names); leave files without labels out of the dataset"
        )
    return pa.chunked_array([pa.array(names, pa.string()).take(column.combine_chunks())])


def _to_text(column: pa.ChunkedArray, key: str, name: str, where: str) -> pa.ChunkedArray:
    """Text of a column of text or integers."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if not (_is_text(kind) or pa.types.is_integer(kind)):
        raise StudyError(
            f"{key} '{name}' of Parquet file '{where}' is {kind}; it must hold text or integers"
        )
    if column.null_count:
        row = pc.index(pc.is_null(column), value=True).as_py()
        raise StudyError(f"{key} '{name}' of Parquet file '{where}' is empty in row {row}")
    return pc.cast(column, pa.string())


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def _read_class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Names of a Hugging Face ClassLabel, by their integer; none where there is no such label."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return None
    try:
        feature: Any = json.loads(text)["info"]["features"][column]
        names: Iterable[str] = feature["names"]
    except (ValueError, KeyError, TypeError):
        return None
    return [str(name) for name in names]
