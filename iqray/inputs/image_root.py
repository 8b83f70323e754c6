"""Where a dataset's files lie: a local folder or a URI, through pyarrow's file systems.

Reads names, sizes and times, and opens files for reading at any offset; writes nothing.
"""

import fnmatch
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from iqray.errors import StudyError
from iqray.filesystems import KNOWN_URIS, describe_uri, open_filesystem

# Listing waits for the disk or the network, not for the processor.
_NUM_THREADS = 16

_GLOB_CHARACTERS = "*?["

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class FoundFile:
    """A file below a dataset's root."""

    path: str  # relative to the root, with '/'
    num_bytes: int
    modified_ns: int  # 0 where the store does not say


@dataclass(frozen=True)
class ImageRoot:
    """A dataset's root folder. Cheap to pickle: the file system is opened where it is used.

    Attributes:
        uri: an absolute local path, or a URI that pyarrow knows (s3://, gs://), with its query.
    """

    uri: str

    @classmethod
    def parse(cls, text: str) -> "ImageRoot":
        """The root that a study names: relative paths and `~` are resolved, file:// is local.

        Raises:
            StudyError: the URI is of no store that pyarrow knows.
        """
        if "://" not in text:
            return cls(str(Path(text).expanduser().absolute()))
        filesystem, base = _open_filesystem(text)
        return cls(base if isinstance(filesystem, pafs.LocalFileSystem) else text)

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    @cached_property
    def _opened(self) -> tuple[pafs.FileSystem, str]:
        if "://" in self.uri:
            return _open_filesystem(self.uri)
        return pafs.LocalFileSystem(), self.uri

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of a mounted file system."""
        return "://" not in self.uri

    def describe(self, path: str = "") -> str:
        """Full path or URI for messages, without the URI's query and credentials."""
        if self.is_local:
            return posixpath.normpath(f"{self.uri}/{path}")
        return describe_uri(self.uri, path)

    def is_folder(self, path: str) -> bool:
        """Whether a folder of that path exists."""
        [info] = self._ask(path, lambda full: self._opened[0].get_file_info([full]))
        return bool(info.type == pafs.FileType.Directory)

    def list_entries(self, folder: str, *, recursive: bool = False) -> Iterator[pafs.FileInfo]:
        """Entries of a folder whose name does not start with a dot, as the store orders them."""
        selector = pafs.FileSelector(self.get_full_path(folder), recursive=recursive)
        for info in self._ask(folder, lambda _: self._opened[0].get_file_info(selector)):
            below = posixpath.relpath(info.path, selector.base_dir)
            if not any(part.startswith(".") for part in below.split("/")):
                yield info

    def find_files(self, pattern: str, suffixes: tuple[str, ...]) -> list[FoundFile]:
        """Files with one of the suffixes, sorted by path.

        Args:
            pattern: a folder below the root, searched at any depth, or a glob of files: `*`, `?`
                and `[...]` match within a name.
            suffixes: lower case, such as `.parquet`.
        """
        parts = posixpath.normpath(pattern).split("/")
        is_glob = any(character in pattern for character in _GLOB_CHARACTERS)
        folder = "/".join(_take_plain_parts(parts)) if is_glob else pattern
        if not self.is_folder(folder):
            return []
        found = []
        for info in self.list_entries(folder, recursive=True):
            path = self.get_relative_path(info.path)
            wanted = not is_glob or _matches(path.split("/"), parts)
            if wanted and info.is_file and path.lower().endswith(suffixes):
                found.append(FoundFile(path, info.size or 0, info.mtime_ns or 0))
        return sorted(found, key=lambda file: file.path)

    def open_file(self, path: str) -> pa.NativeFile:
        """Open a file for reading at any offset.

        Raises:
            OSError: as pyarrow raises it; FileNotFoundError for a missing file.
        """
        return self._opened[0].open_input_file(self.get_full_path(path))

    def get_full_path(self, path: str) -> str:
        """A relative path as the file system knows it."""
        return posixpath.normpath(_join(self._opened[1], path))

    def get_relative_path(self, full_path: str) -> str:
        """The path relative to the root of one that the file system has given."""
        return posixpath.relpath(full_path, self._opened[1])

    def _ask(self, path: str, ask: Callable[[str], list[pafs.FileInfo]]) -> list[pafs.FileInfo]:
        try:
            return ask(self.get_full_path(path))
        except OSError as error:
            raise StudyError(
                f"'{self.describe(path)}' cannot be listed ({error}); check the dataset's root "
                "and your access to it"
            ) from error


def map_in_threads(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Apply a function that waits for a store to many items; results keep their order."""
    executor = ThreadPoolExecutor(_NUM_THREADS)
    try:
        yield from executor.map(work, items)
    finally:  # after an error the rest is not started
        executor.shutdown(cancel_futures=True)


def _open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    try:
        filesystem, base = open_filesystem(uri)
    except OSError as error:
        raise StudyError(
            f"root '{describe_uri(uri)}' cannot be opened ({error}); give a folder, or a URI such "
            f"as {KNOWN_URIS}"
        ) from error
    return filesystem, base or "/"


def _join(base: str, path: str) -> str:
    return f"{base.rstrip('/')}/{path}" if path else base


def _take_plain_parts(parts: Sequence[str]) -> Iterator[str]:
    """The leading parts of a glob that are plain names: the folder to search."""
    for part in parts:
        if any(character in part for character in _GLOB_CHARACTERS):
            return
        yield part


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))
