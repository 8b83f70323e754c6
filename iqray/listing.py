"""Which image files a dataset has: folders in, paths and categories out. Reads names, not bytes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iqray.errors import StudyError
from iqray.identity import hash_strings, make_image_id
from iqray.images import IMAGE_SUFFIXES
from iqray.study import Dataset


@dataclass(frozen=True)
class ListedImage:
    """An image file before it has been opened."""

    split: str  # train or test
    category: str  # name of the first folder below the split's folder
    path: str  # relative to the dataset's root, with '/'
    num_bytes: int
    modified_ns: int

    @property
    def image_id(self) -> int:
        """63-bit hash of the path."""
        return make_image_id(self.path)


def list_images(dataset: Dataset, root: Path) -> list[ListedImage]:
    """All image files of a dataset, sorted by split and path.

    Every file below `<root>/<split>/<category>/`, at any depth, that has an image suffix and does
    not start with a dot. The path is kept as the user wrote it.

    Raises:
        StudyError: a split's folder is missing, or holds no image in any category.
    """
    images: list[ListedImage] = []
    for split, folder in (("train", dataset.train), ("test", dataset.test)):
        directory = root / folder
        if not directory.is_dir():
            raise StudyError(
                f"dataset '{dataset.name}' has no folder '{directory}'; layout folders needs "
                f"<root>/{dataset.train}/<category>/ and <root>/{dataset.test}/<category>/: "
                "correct root, train or test of the dataset"
            )
        found = sorted(_walk_split(directory, split, root), key=lambda image: image.path)
        if not found:
            raise StudyError(
                f"dataset '{dataset.name}' has no image in '{directory}'; images "
                f"({', '.join(IMAGE_SUFFIXES)}) must lie in one folder per category"
            )
        images.extend(found)
    _check_ids(dataset, images)
    return images


def fingerprint_listing(images: list[ListedImage]) -> str:
    """Key of a listing: changes when a file is added, removed, resized or touched."""
    return hash_strings(
        f"{image.split}\t{image.path}\t{image.num_bytes}\t{image.modified_ns}" for image in images
    )


def _walk_split(directory: Path, split: str, root: Path) -> Iterator[ListedImage]:
    with os.scandir(directory) as entries:
        categories = [entry for entry in entries if entry.is_dir() and entry.name[0] != "."]
    for category in categories:
        for entry in _walk_files(category.path):
            path = Path(entry.path).relative_to(root).as_posix()
            _check_text(path, root)
            num_bytes, modified_ns = _read_stat(entry)
            yield ListedImage(split, category.name, path, num_bytes, modified_ns)


def _read_stat(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Bytes and modification time; zeros for a link to nowhere, which the manifest will name."""
    try:
        stat = entry.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _check_text(path: str, root: Path) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise StudyError(
            f"the name of file {path!r} below '{root}' is not UTF-8; rename it"
        ) from error


def _walk_files(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk_files(entry.path)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                yield entry


def _check_ids(dataset: Dataset, images: list[ListedImage]) -> None:
    paths: dict[int, str] = {}
    for image in images:
        other = paths.setdefault(image.image_id, image.path)
        if other != image.path:
            raise StudyError(
                f"dataset '{dataset.name}': '{image.path}' and '{other}' have the same image_id "
                f"{image.image_id}; rename one of them"
            )
