"""The manifest: one row per image file, with its size, mode and checksum, unreadable ones included.

Reads folders of images, writes `manifest/<dataset>.parquet`. Every file is decoded once, so that a
row with status ok is an image that scoring, training and testing can all use.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iqray import schemas
from iqray.errors import StudyError
from iqray.identity import hash_strings
from iqray.images import ImageFailure, decode_image, read_header
from iqray.listing import ListedImage, fingerprint_listing
from iqray.shards import PoolSize, Report, Shard, run_shards, split_into_shards
from iqray.storage import Storage

# Raise when a row's content would differ for the same file.
MANIFEST_VERSION = 1

_SHARD_SIZE = 1024

_LISTING = pa.schema(
    [
        ("split", pa.string()),
        ("category", pa.string()),
        ("path", pa.string()),
        ("image_id", pa.int64()),
        ("num_bytes", pa.int64()),
        ("modified_ns", pa.int64()),
    ]
)


def get_manifest_path(dataset: str) -> str:
    """Where a dataset's manifest lies under the output root."""
    return f"manifest/{dataset}.parquet"


def make_manifest_key(root: Path, listing: list[ListedImage]) -> str:
    """Key of a manifest: changes with any file of the dataset."""
    return hash_strings([str(MANIFEST_VERSION), str(root), fingerprint_listing(listing)])


def is_manifest_current(storage: Storage, dataset: str, key: str) -> bool:
    """Whether the dataset's manifest exists and was made from these files."""
    return storage.read_key(get_manifest_path(dataset)) == key


@dataclass(frozen=True)
class ManifestPlan:
    """A dataset whose manifest is to be built: its shards and the files for their rows."""

    dataset: str
    root: Path
    key: str
    shards: tuple[Shard, ...]

    @property
    def directory(self) -> str:
        """Where finished shards lie until the manifest is whole."""
        return f"manifest/{self.dataset}.parts"

    @property
    def names(self) -> tuple[str, ...]:
        """File names of the shards' rows."""
        content = f"manifest {MANIFEST_VERSION} {self.root}"
        return tuple(shard.name_file(content) for shard in self.shards)


def plan_manifest(dataset: str, root: Path, listing: list[ListedImage]) -> ManifestPlan:
    """Cut a dataset's listing into shards."""
    shards = split_into_shards(_tabulate(dataset, listing), _SHARD_SIZE)
    return ManifestPlan(dataset, root, make_manifest_key(root, listing), tuple(shards))


def build_manifests(
    storage: Storage, plans: Sequence[ManifestPlan], pool: PoolSize, report: Report
) -> None:
    """Read every file of the planned datasets once and write their manifests.

    Shards that an interrupted run has finished are kept.
    """
    tasks = []
    for plan in plans:
        finished = storage.list_names(plan.directory)
        for shard, name in zip(plan.shards, plan.names, strict=True):
            if name in finished:
                report(shard.rows.num_rows)
            else:
                instructions = {"path": f"{plan.directory}/{name}", "root": str(plan.root)}
                tasks.append((shard, instructions))
    run_shards(tasks, _ImageInspector, {"storage": storage}, pool, "InspectImages", report)
    for plan in plans:
        table = pa.concat_tables(
            storage.read_table(f"{plan.directory}/{name}") for name in plan.names
        )
        storage.write_table(get_manifest_path(plan.dataset), table, key=plan.key)
        for name in storage.list_names(plan.directory):
            storage.delete(f"{plan.directory}/{name}")


def read_manifest(storage: Storage, dataset: str) -> pa.Table:
    """The dataset's manifest, sorted by split and path."""
    return storage.read_table(get_manifest_path(dataset))


def select_train(manifest: pa.Table) -> pa.Table:
    """Rows of the training split."""
    return manifest.filter(pc.equal(manifest["split"], "train"))


def _tabulate(dataset: str, listing: list[ListedImage]) -> pa.Table:
    columns = [
        pa.array([getattr(image, field.name) for image in listing], field.type)
        for field in _LISTING
    ]
    table = pa.Table.from_arrays(columns, schema=_LISTING)
    return table.append_column("dataset", pa.array([dataset] * len(listing), pa.string()))


class _ImageInspector:
    """Reads and decodes the files of a shard and writes their manifest rows."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def work(self, rows: pa.Table, path: str, root: str) -> int:
        records = [_describe_image(row, Path(root)) for row in rows.to_pylist()]
        self._storage.write_table(path, pa.Table.from_pylist(records, schema=schemas.MANIFEST))
        return len(records)


def _describe_image(row: dict[str, Any], root: Path) -> dict[str, Any]:
    record = {**row, "status": "ok", "reason": "", "sha256": ""}
    try:
        data = (root / row["path"]).read_bytes()
    except FileNotFoundError:
        return {**record, "status": "missing", "reason": "no such file"}
    except OSError as error:  # may be mended, so it must not be recorded as final
        raise StudyError(f"image '{root / row['path']}' cannot be read: {error}") from error
    record |= {"sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}
    header = read_header(data)
    if isinstance(header, ImageFailure):
        return {**record, "status": header.status, "reason": header.reason}
    record |= {"width": header.width, "height": header.height, "mode": header.mode}
    decoded = decode_image(data)
    if isinstance(decoded, ImageFailure):
        return {**record, "status": decoded.status, "reason": decoded.reason}
    return record
