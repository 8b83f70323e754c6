"""Layout `folders`: `<root>/<split>/<category>/.../<image>`, local or at a URI."""

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from iqray.errors import StudyError
from iqray.image_root import ImageRoot, map_in_threads
from iqray.images import IMAGE_SUFFIXES
from iqray.layouts.base import FOUND
from iqray.study import Dataset

# Path relative to the root, bytes, modification time in nanoseconds.
_File = tuple[str, int, int]


def list_split(dataset: Dataset, root: ImageRoot, folder: str) -> pa.Table:
    """Images of one split, sorted by path: a table of `FOUND`.

    Every file below `<root>/<split>/<category>/`, at any depth, that has an image suffix; names
    that start with a dot are passed over. The path is kept as the user wrote it.

    Raises:
        StudyError: a name is not UTF-8, or a folder cannot be read.
    """
    del dataset  # other layouts need its columns
    if not root.is_folder(folder):
        return FOUND.empty_table()
    # The order of whole paths: 'a-b/1' comes before 'a/1'.
    categories = sorted(_list_folders(root, folder), key=lambda name: f"{name}/")
    tables = map_in_threads(lambda category: _list_category(root, folder, category), categories)
    return pa.concat_tables([FOUND.empty_table(), *tables])


def identify(dataset: Dataset, images: pa.Table) -> pa.ChunkedArray:
    """The path of every image: relative to the root."""
    del dataset
    return images["name"]


class FolderReader:
    """Reads whole files."""

    can_read_ahead = True

    def __init__(self, root: ImageRoot) -> None:
        self._root = root

    def read(self, row: dict[str, Any]) -> bytes:
        """Content of the image's file."""
        if self._root.is_local:
            return Path(self._root.get_full_path(row["path"])).read_bytes()
        with self._root.open_file(row["path"]) as file:
            return bytes(file.read())


def _list_folders(root: ImageRoot, folder: str) -> Iterator[str]:
    if root.is_local:
        with os.scandir(root.get_full_path(folder)) as entries:
            yield from (entry.name for entry in entries if _is_shown(entry) and entry.is_dir())
        return
    for info in root.list_entries(folder):
        if info.type == info.type.Directory:
            yield info.base_name


def _list_category(root: ImageRoot, folder: str, category: str) -> pa.Table:
    path = posixpath.normpath(posixpath.join(folder, category))
    files = sorted(_walk_local(root, path) if root.is_local else _walk_remote(root, path))
    return _tabulate(category, files)


def _tabulate(category: str, files: list[_File]) -> pa.Table:
    paths, sizes, times = zip(*files, strict=True) if files else ((), (), ())
    return pa.table(
        {
            "category": pa.repeat(category, len(paths)),
            "name": pa.array(paths, pa.string()),
            "num_bytes": pa.array(sizes, pa.int64()),
            "modified_ns": pa.array(times, pa.int64()),
            "file_bytes": pa.array(sizes, pa.int64()),
            "container": pa.repeat("", len(paths)),
            "position": pa.repeat(pa.scalar(0, pa.int64()), len(paths)),
        },
        schema=FOUND,
    )


def _walk_remote(root: ImageRoot, folder: str) -> Iterator[_File]:
    for info in root.list_entries(folder, recursive=True):
        if info.is_file and info.base_name.lower().endswith(IMAGE_SUFFIXES):
            yield root.get_relative_path(info.path), info.size or 0, info.mtime_ns or 0


def _walk_local(root: ImageRoot, folder: str) -> Iterator[_File]:
    """Walk a local folder; faster than pyarrow's, and keeps links to nowhere."""
    for entry in _walk_entries(root.get_full_path(folder)):
        path = root.get_relative_path(entry.path)
        _check_text(path, root)
        yield path, *_read_stat(entry)


def _walk_entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _is_shown(entry):
                continue
            if entry.is_dir():
                yield from _walk_entries(entry.path)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                yield entry


def _is_shown(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".")


def _read_stat(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Bytes and modification time; zeros for a link to nowhere, which the manifest will name."""
    try:
        stat = entry.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _check_text(path: str, root: ImageRoot) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise StudyError(
            f"the name of file {path!r} below '{root.describe()}' is not UTF-8; rename it"
        ) from error
