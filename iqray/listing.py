"""Which images a dataset has: files in, paths and categories out. Reads no image's bytes.

The identity of an image is the user's own path or key: with layout `folders` the path relative to
the dataset's root; with `parquet` the value of `key_column`, else the image's own path where every
image of the dataset has one and none repeats, else `<file>#<row>`; with `webdataset` the member's
name, `<shard>#<name>` where the name repeats in the dataset.
"""

from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqray.errors import StudyError
from iqray.identity import hash_rows, hash_strings, make_image_id
from iqray.image_root import ImageRoot
from iqray.images import IMAGE_SUFFIXES
from iqray.layouts import folders, parquet, webdataset
from iqray.layouts.base import describe_layout
from iqray.study import Dataset

# One row per image before it has been opened, training images first, in the order in which
# reading them is cheap. Millions of rows fit into a driver's memory as Arrow columns.
LISTING = pa.schema(
    [
        ("split", pa.string()),  # train or test
        ("category", pa.string()),
        ("path", pa.string()),  # the user's own path or key
        ("image_id", pa.int64()),  # 63-bit hash of the path
        ("num_bytes", pa.int64()),  # encoded; null where only reading tells (parquet)
        ("modified_ns", pa.int64()),  # of the file that holds the image
        ("container", pa.string()),  # that file, relative to the root; empty with layout folders
        ("position", pa.int64()),  # row (parquet) or byte offset of the data (webdataset)
    ]
)

_LAYOUTS: dict[str, ModuleType] = {
    "folders": folders,
    "parquet": parquet,
    "webdataset": webdataset,
}

# The sizes of containers are not in the rows, but belong to a listing's fingerprint.
_CONTAINERS_FIELD = b"iqray_containers"

_HASHED_ROWS = 65_536


def list_images(dataset: Dataset, root: ImageRoot) -> pa.Table:
    """All images of a dataset: a table of `LISTING`.

    Raises:
        StudyError: a split has no image, a file is broken, or two images have the same path.
    """
    layout = _LAYOUTS[dataset.layout]
    splits = {"train": dataset.train, "test": dataset.test}
    found = {
        split: _list_split(dataset, root, layout, folder)
        for split, folder in splits.items()
        if folder is not None
    }
    splits_column = pa.concat_arrays(
        [pa.repeat(split, table.num_rows) for split, table in found.items()]
    )
    images = pa.concat_tables(found.values()).combine_chunks()
    paths = layout.identify(dataset, images)
    image_ids = _make_image_ids(paths)
    _check_ids(dataset, images, paths, image_ids)
    columns = {
        **{name: images[name] for name in images.column_names},
        "split": splits_column,
        "path": paths,
        "image_id": pa.array(image_ids),
    }
    listing = pa.table({name: columns[name] for name in LISTING.names}, schema=LISTING)
    return listing.replace_schema_metadata({_CONTAINERS_FIELD: _hash_containers(images)})


def fingerprint_listing(listing: pa.Table) -> str:
    """Key of a listing: changes when a file is added, removed, resized or touched."""
    rows = listing.select(LISTING.names)
    parts = (rows.slice(start, _HASHED_ROWS) for start in range(0, rows.num_rows, _HASHED_ROWS))
    return hash_strings([*map(hash_rows, parts), get_containers_key(listing)])


def get_containers_key(listing: pa.Table) -> str:
    """Key of the files that hold a listing's images: their names, sizes and times."""
    return bytes((listing.schema.metadata or {}).get(_CONTAINERS_FIELD, b"")).decode()


def _list_split(dataset: Dataset, root: ImageRoot, layout: ModuleType, folder: str) -> pa.Table:
    found = layout.list_split(dataset, root, folder)
    if found.num_rows:
        return found
    where = root.describe(folder)
    if not any(character in folder for character in "*?[") and not root.is_folder(folder):
        raise StudyError(
            f"dataset '{dataset.name}' has no folder '{where}'; {describe_layout(dataset)}: "
            "correct root, layout, train or test of the dataset"
        )
    raise StudyError(
        f"dataset '{dataset.name}' has no image in '{where}'; {describe_layout(dataset)}, with "
        f"images of {', '.join(IMAGE_SUFFIXES)}: correct layout, train or test of the dataset"
    )


def _hash_containers(images: pa.Table) -> str:
    held = images.filter(pc.not_equal(images["container"], ""))
    columns = ["container", "file_bytes", "modified_ns"]
    files = held.group_by(columns).aggregate([]).sort_by("container")
    return hash_strings("\t".join(map(str, file.values())) for file in files.to_pylist())


def _make_image_ids(paths: pa.ChunkedArray) -> np.ndarray:
    """Ids by path: (num_images,) int64; the paths become Python objects a chunk at a time."""
    chunks = (paths.slice(start, _HASHED_ROWS) for start in range(0, len(paths), _HASHED_ROWS))
    ids = (make_image_id(path) for chunk in chunks for path in chunk.to_pylist())
    return np.fromiter(ids, np.int64, count=len(paths))


def _check_ids(
    dataset: Dataset, images: pa.Table, paths: pa.ChunkedArray, image_ids: np.ndarray
) -> None:
    order = np.argsort(image_ids, kind="stable")
    equal = np.flatnonzero(np.diff(image_ids[order]) == 0)
    if not equal.size:
        return
    first, second = (int(order[equal[0] + offset]) for offset in (0, 1))
    path, other = paths[first].as_py(), paths[second].as_py()
    if path == other:
        holders = {images["container"][index].as_py() for index in (first, second)} - {""}
        where = f" (in {', '.join(sorted(holders))})" if holders else ""
        raise StudyError(
            f"dataset '{dataset.name}' holds '{path}' twice{where}; train and test must not "
            "overlap, and a tar file must hold a name once"
        )
    raise StudyError(
        f"dataset '{dataset.name}': '{path}' and '{other}' have the same image_id "
        f"{image_ids[first]}; rename one of them"
    )
