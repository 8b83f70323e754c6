"""Layout `folders`: `<root>/<split>/<category>/.../<image>`, local or at a URI.

Images that lie in the split's folder itself belong to the category of that folder's name.
"""

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot, map_in_threads
from iqray.inputs.images import IMAGE_SUFFIXES
from iqray.inputs.layouts.base import FOUND

# Path relative to the root, bytes, modification time in nanoseconds.
_File = tuple[str, int, int]


def list_split(dataset: Dataset, root: ImageRoot, folder: str) -> pa.Table:
    """Images of one split, sorted by path: a table of `FOUND`.

    Every file below `<root>/<split>/`, at any depth, that has an image suffix; names that start
    with a dot are passed over. The path is kept as the user wrote it. Images in the split's folder
    itself come first.

    Raises:
        StudyError: a name is not UTF-8, or a folder cannot be read.
    """
    del dataset  # other layouts need its columns
    if not root.is_folder(folder):
        return FOUND.empty_table()
    try:
        categories, files = _list_entries(root, folder)
        tables = map_in_threads(lambda category: _list_category(root, folder, category), categories)
        return pa.concat_tables([_tabulate(name_own_category(root, folder), files), *tables])
    except OSError as error:
        raise StudyError(
            f"'{root.describe(folder)}' cannot be listed ({error}); check its permissions and links"
        ) from error


def name_own_category(root: ImageRoot, folder: str) -> str:
    """Category of the images that lie in a split's folder itself: the name of that folder."""
    path = posixpath.normpath(folder)
    where = root.describe("" if path == "." else path)
    return posixpath.basename(where) or where


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


def _list_entries(root: ImageRoot, folder: str) -> tuple[list[str], list[_File]]:
    """Names of a split's categories, and the images beside them, in the order of whole paths."""
    list_in_store = _list_local if root.is_local else _list_remote
    categories, files = list_in_store(root, folder)
    # The order of whole paths: 'a-b/1' comes before 'a/1'.
    return sorted(categories, key=lambda name: f"{name}/"), sorted(files)


def _list_local(root: ImageRoot, folder: str) -> tuple[list[str], list[_File]]:
    categories, files = [], []
    with os.scandir(root.get_full_path(folder)) as entries:
        for entry in filter(_is_shown, entries):
            if entry.is_dir():
                categories.append(entry.name)
            elif _is_image(entry.name):
                files.append(_describe_entry(root, entry))
    return categories, files


def _list_remote(root: ImageRoot, folder: str) -> tuple[list[str], list[_File]]:
    categories, files = [], []
    for info in root.list_entries(folder):
        if info.type == info.type.Directory:
            categories.append(info.base_name)
        elif info.is_file and _is_image(info.base_name):
            files.append(_describe_info(root, info))
    return categories, files


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
        if info.is_file and _is_image(info.base_name):
            yield _describe_info(root, info)


def _walk_local(root: ImageRoot, folder: str) -> Iterator[_File]:
    """Walk a local folder; faster than pyarrow's, and keeps links to nowhere."""
    for entry in _walk_entries(root.get_full_path(folder)):
        yield _describe_entry(root, entry)


def _walk_entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _is_shown(entry):
                continue
            if entry.is_dir():
                yield from _walk_entries(entry.path)
            elif _is_image(entry.name):
                yield entry


def _describe_info(root: ImageRoot, info: pafs.FileInfo) -> _File:
    return root.get_relative_path(info.path), info.size or 0, info.mtime_ns or 0


def _describe_entry(root: ImageRoot, entry: os.DirEntry[str]) -> _File:
    path = root.get_relative_path(entry.path)
    _check_text(path, root)
    return path, *_read_stat(entry)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


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
