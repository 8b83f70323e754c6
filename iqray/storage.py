"""Where each artifact lives under one root, written whole or not at all.

The root is a local folder or a URI that pyarrow knows (s3://, gs://, file://). A write goes to a
hidden temporary name and is renamed, or, on object stores, becomes visible when it is complete. A
file that exists is therefore finished; nothing else marks progress.
"""

import contextlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from iqray.errors import StudyError
from iqray.filesystems import KNOWN_URIS, describe_uri, open_filesystem, write_local_file

logger = logging.getLogger(__name__)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_KEY_FIELD = b"iqray_key"

# What a worker reads to get at the rows of a shard. Smaller groups make the file's footer longer,
# which every reader parses: 2.7 million rows have 330 groups.
_ROW_GROUP_ROWS = 8192

# Small files at once: an object store answers each after tens of milliseconds.
_NUM_READERS = 16

# Large files are copied in pieces of this many bytes, so that their size does not count in memory.
_PIECE_BYTES = 2**22

# Seconds before a read from an object store is tried again.
_PAUSES_S = (0.5, 2.0, 8.0)


def _retry_read(
    read: Callable[Concatenate["Storage", _Arguments], _Result],
) -> Callable[Concatenate["Storage", _Arguments], _Result]:
    """Repeat what an object store has failed to answer, unless it refuses.

    pyarrow's S3 client tries failed requests again, but not a read of fewer bytes than the server's
    error has: it takes that for an answer too long.
    """

    @wraps(read)
    def retry(storage: "Storage", *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        for pause_s in () if storage.is_local else _PAUSES_S:
            try:
                return read(storage, *args, **kwargs)
            except FileNotFoundError:
                raise
            except OSError as error:
                if "ACCESS_DENIED" in str(error):
                    raise
                logger.warning("a read from %s failed: %s", storage.describe(""), error)
                time.sleep(pause_s)
        return read(storage, *args, **kwargs)

    return retry


@dataclass(frozen=True)
class Storage:
    """Read and write artifacts by their path relative to the root. Cheap to pickle."""

    root: str

    @cached_property
    def _filesystem(self) -> tuple[pafs.FileSystem, str]:
        if "://" in self.root:
            return open_filesystem(self.root)
        return pafs.LocalFileSystem(), str(Path(self.root).expanduser().absolute())

    def __getstate__(self) -> dict[str, str]:
        return {"root": self.root}

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of a mounted file system."""
        return isinstance(self._filesystem[0], pafs.LocalFileSystem)

    def get_local_path(self, path: str) -> Path:
        """Local path of an artifact.

        Raises:
            ValueError: the root is on an object store.
        """
        if not self.is_local:
            raise ValueError(f"'{self.describe(path)}' is not on a local file system")
        return Path(self._full(path))

    def describe(self, path: str) -> str:
        """Full path or URI of an artifact, for messages."""
        if "://" in self.root and not self.root.startswith("file://"):
            return describe_uri(self.root, path)  # without asking the store for anything
        return self._full(path)

    def below(self, path: str) -> "Storage":
        """The storage whose root is a folder of this one."""
        base, mark, query = self.root.partition("?") if "://" in self.root else (self.root, "", "")
        return Storage(f"{base.rstrip('/')}/{path}{mark}{query}")

    @_retry_read
    def exists(self, path: str) -> bool:
        """Whether the artifact exists, which means that it is finished."""
        info = self._filesystem[0].get_file_info(self._full(path))
        return bool(info.type != pafs.FileType.NotFound)

    @_retry_read
    def list_names(self, directory: str) -> set[str]:
        """Names of the finished entries in a directory; empty when there is none."""
        selector = pafs.FileSelector(self._full(directory), allow_not_found=True)
        infos = self._filesystem[0].get_file_info(selector)
        return {info.base_name for info in infos if not info.base_name.startswith(".")}

    @_retry_read
    def read_bytes(self, path: str) -> bytes:
        """Content of a file."""
        with self._filesystem[0].open_input_stream(self._full(path)) as stream:
            return bytes(stream.read())

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file whole or not at all, replacing an older one.

        Raises:
            StudyError: the root is full, or refuses.
        """
        with self._explain_refusal(path):
            if self.is_local:
                write_local_file(Path(self._full(path)), lambda file: file.write(data))
                return
            # The whole content goes in one call: a stream closed by an exception would leave a
            # shorter object behind.
            with self._filesystem[0].open_output_stream(self._full(path)) as stream:
                stream.write(data)

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless there is one; of several writers one succeeds.

        Only on a local root: pyarrow has no such request to an object store. Whoever reads it at
        that moment may find less than the whole.

        Raises:
            StudyError: the root is full, or refuses.
        """
        with self._explain_refusal(path):
            target = self.get_local_path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = target.open("xb")
            except FileExistsError:
                return False
            try:
                with file:
                    file.write(data)
            except BaseException:
                target.unlink()
                raise
            return True

    @_retry_read
    def copy_to_local(self, path: str, target: Path) -> None:
        """Copy a file's content to a local path, in pieces."""
        with (
            self._filesystem[0].open_input_stream(self._full(path)) as source,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, _PIECE_BYTES)

    def copy_from_local(self, source: Path, path: str) -> None:
        """Write a file with a local file's content, in pieces, whole or not at all.

        Raises:
            StudyError: the root is full, or refuses.
        """
        with self._explain_refusal(path), source.open("rb") as file:
            if self.is_local:
                write_local_file(
                    Path(self._full(path)),
                    lambda target: shutil.copyfileobj(file, target, _PIECE_BYTES),
                )
                return
            filesystem, _ = self._filesystem
            stream = filesystem.open_output_stream(self._full(path))
            try:
                shutil.copyfileobj(file, stream, _PIECE_BYTES)
            except BaseException:
                stream.close()  # raises where the store has refused, and then leaves nothing
                filesystem.delete_file(self._full(path))  # the shorter object that it has left
                raise
            stream.close()

    def read_json(self, path: str) -> Any:
        """Content of a JSON file."""
        return json.loads(self.read_bytes(path))

    def write_json(self, path: str, value: object) -> None:
        """Write a value as indented JSON."""
        self.write_bytes(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")

    @_retry_read
    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Content of a Parquet file."""
        filesystem, _ = self._filesystem
        return pq.read_table(
            self._full(path), columns=columns, filesystem=filesystem, partitioning=None
        )

    def read_tables(self, paths: Sequence[str], columns: list[str] | None = None) -> pa.Table:
        """Content of several Parquet files of one schema, one after the other."""
        with ThreadPoolExecutor(_NUM_READERS) as readers:
            return pa.concat_tables(readers.map(lambda path: self.read_table(path, columns), paths))

    @_retry_read
    def read_rows(self, path: str, start: int, num_rows: int) -> pa.Table:
        """Some rows of a Parquet file; only the row groups that hold them are read.

        Args:
            path: of the table.
            start: position of the first row.
            num_rows: how many; the table must have them.
        """
        filesystem, _ = self._filesystem
        with filesystem.open_input_file(self._full(path)) as file:
            parquet = pq.ParquetFile(file)
            sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
            ends = np.cumsum(sizes)
            first, last = np.searchsorted(ends, [start, start + num_rows - 1], side="right")
            table = parquet.read_row_groups(list(range(first, last + 1)))
        return table.slice(start - int(ends[first] - sizes[first]), num_rows)

    def write_table(self, path: str, table: pa.Table, key: str = "") -> None:
        """Write a table as Parquet; `key` says which inputs it was made from."""
        sink = pa.BufferOutputStream()
        pq.write_table(
            table.replace_schema_metadata(_add_key(table.schema, key).metadata),
            sink,
            compression="zstd",
            row_group_size=_ROW_GROUP_ROWS,
        )
        self.write_bytes(path, sink.getvalue().to_pybytes())

    def write_batches(
        self, path: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], key: str = ""
    ) -> None:
        """Write a table as Parquet, a row group for each batch; memory holds one at a time."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table.parquet"
            with pq.ParquetWriter(file, _add_key(schema, key), compression="zstd") as writer:
                for batch in batches:
                    writer.write_batch(batch.replace_schema_metadata(writer.schema.metadata))
            self.copy_from_local(file, path)

    def read_key(self, path: str) -> str | None:
        """The key a table was written with; none when the table does not exist."""
        return self.read_metadata(path, _KEY_FIELD)

    def read_metadata(self, path: str, field: bytes) -> str | None:
        """A field of a table's metadata, empty where it lacks; none without the table."""
        return self._read_field(path, field) if self.exists(path) else None

    @_retry_read
    def _read_field(self, path: str, field: bytes) -> str:
        filesystem, _ = self._filesystem
        metadata = pq.read_schema(self._full(path), filesystem=filesystem).metadata or {}
        return bytes(metadata.get(field, b"")).decode()

    def delete(self, path: str) -> None:
        """Delete a file."""
        self._filesystem[0].delete_file(self._full(path))

    def delete_folder(self, path: str) -> None:
        """Delete a folder with everything in it; nothing happens where there is none."""
        if self.exists(path):
            self._filesystem[0].delete_dir(self._full(path))

    @contextlib.contextmanager
    def _explain_refusal(self, path: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise StudyError(
                f"'{self.describe(path)}' cannot be written ({error}); make room, or have writing "
                "allowed, and run the same command again: it continues with what is missing"
            ) from error

    def _full(self, path: str) -> str:
        return f"{self._filesystem[1]}/{path}" if path else self._filesystem[1]


def open_root(root: str, what: str, probe: str) -> Storage:
    """Storage of a root that can be read, whether or not there is something yet.

    Args:
        root: an absolute path or a URI.
        what: the root is, for messages.
        probe: a path below it to ask for, as a user may be allowed no others.

    Raises:
        StudyError: the URI is of a kind that is not known, or cannot be reached.
    """
    storage = Storage(root)
    try:
        storage.exists(probe)
    except (OSError, pa.ArrowException) as error:
        raise StudyError(
            f"{what} '{storage.describe('')}' cannot be read ({error}); give a folder, or a URI "
            f"such as {KNOWN_URIS} that this machine may read"
        ) from error
    return storage


def _add_key(schema: pa.Schema, key: str) -> pa.Schema:
    return schema.with_metadata({**(schema.metadata or {}), _KEY_FIELD: key.encode()})
