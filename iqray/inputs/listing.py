"""Which images a dataset has: files in, paths and categories out. Reads no image's bytes.

The identity of an image is the user's own path or key: with layout `folders` the path relative to
the dataset's root; with `parquet` the value of `key_column`, else the image's own path where every
image of the dataset has one and none repeats, else `<file>#<row>`; with `webdataset` the member's
name, `<shard>#<name>` where the name repeats in the dataset.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.identity import hash_content, hash_rows, hash_strings, make_image_id
from iqray.inputs.image_root import FoundFile, ImageRoot
from iqray.inputs.images import IMAGE_SUFFIXES
from iqray.inputs.layouts import folders, parquet, webdataset
from iqray.inputs.layouts.base import describe_layout

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

# What a manifest keeps of its listing.
RESTORED_COLUMNS = tuple(name for name in LISTING.names if name != "modified_ns")

_LAYOUTS: dict[str, ModuleType] = {
    "folders": folders,
    "parquet": parquet,
    "webdataset": webdataset,
}

# The sizes of containers are not in the rows, but belong to a listing's fingerprint.
_CONTAINERS_FIELD = b"iqray_containers"

_HASHED_ROWS = 65_536

# In the metadata of a listing, and of the manifest that is made of it.
LISTING_KEY_FIELD = b"iqray_listing"

# Raise when the same files would give another listing.
LISTING_VERSION = 1


def list_images(dataset: Dataset, root: ImageRoot) -> pa.Table:
    """All images of a dataset: a table of `LISTING`.

    Raises:
        StudyError: a split has no image, a file is broken, or two images have the same path.
    """
    layout = _LAYOUTS[dataset.layout]
    # Before any file is opened: one that changes meanwhile makes the key out of date.
    key = make_listing_key(dataset, root, find_containers(dataset, root))
    found = {
        split: _list_split(dataset, root, layout, folder)
        for split, folder in _get_splits(dataset).items()
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
    return listing.replace_schema_metadata(
        {_CONTAINERS_FIELD: _hash_containers(images), LISTING_KEY_FIELD: key}
    )


def find_containers(dataset: Dataset, root: ImageRoot) -> dict[str, list[FoundFile]]:
    """Files that hold many images each, by split; none with layout folders. Opens no file."""
    if dataset.layout == "folders":
        return {}
    layout = _LAYOUTS[dataset.layout]
    return {
        split: layout.find_containers(root, folder)
        for split, folder in _get_splits(dataset).items()
    }


def make_listing_key(
    dataset: Dataset, root: ImageRoot, containers: Mapping[str, Sequence[FoundFile]]
) -> str:
    """Key of what a listing is made from: settings, and the containers' names, sizes and times.

    Returns:
        The key; empty where it cannot vouch for the images: with layout folders, and where a store
        does not say when a file was modified.
    """
    files = [file for found in containers.values() for file in found]
    if not files or any(file.modified_ns == 0 for file in files):
        return ""
    settings = dataset.model_dump(mode="json", exclude={"name", "root", "demo"})
    found = {split: [astuple(file) for file in own] for split, own in containers.items()}
    return hash_content([LISTING_VERSION, root.uri, settings, found])


def restore_listing(
    dataset: Dataset, manifest: pa.Table, containers: Mapping[str, Sequence[FoundFile]], key: str
) -> pa.Table:
    """The listing that a manifest was made of, where its containers have not changed since.

    Args:
        dataset: of layout parquet or webdataset.
        manifest: its rows, with at least `RESTORED_COLUMNS`.
        containers: as they are now.
        key: of the listing, equal to the manifest's.
    """
    files = pa.table(
        list(zip(*(astuple(file) for own in containers.values() for file in own), strict=True)),
        names=["container", "file_bytes", "modified_ns"],
    )
    where = pc.index_in(manifest["container"], value_set=files["container"].combine_chunks())
    columns = {name: manifest[name] for name in RESTORED_COLUMNS}
    for name in ("file_bytes", "modified_ns"):
        columns[name] = files[name].take(where)
    if dataset.layout == "parquet":  # known only since the images were read
        columns["num_bytes"] = pa.nulls(manifest.num_rows, pa.int64())
    listing = pa.table({name: columns[name] for name in LISTING.names}, schema=LISTING)
    return listing.replace_schema_metadata(
        {_CONTAINERS_FIELD: _hash_containers(pa.table(columns)), LISTING_KEY_FIELD: key}
    )


def fingerprint_listing(listing: pa.Table) -> str:
    """Key of a listing: changes when a file is added, removed, resized or touched."""
    rows = listing.select(LISTING.names)
    parts = (rows.slice(start, _HASHED_ROWS) for start in range(0, rows.num_rows, _HASHED_ROWS))
    return hash_strings([*map(hash_rows, parts), get_containers_key(listing)])


def get_containers_key(listing: pa.Table) -> str:
    """Key of the files that hold a listing's images: their names, sizes and times."""
    return bytes((listing.schema.metadata or {}).get(_CONTAINERS_FIELD, b"")).decode()


def _get_splits(dataset: Dataset) -> dict[str, str]:
    splits = {"train": dataset.train, "test": dataset.test}
    return {split: folder for split, folder in splits.items() if folder is not None}


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
