"""The manifest: one row per image, with its size, mode and checksum, unreadable ones included.

Reads images in any layout, writes `manifest/<dataset>.parquet`. Every image is decoded once, so
that a row with status ok is an image that scoring, training and testing can all use.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iqray import schemas
from iqray.identity import hash_strings
from iqray.images import ImageFailure, decode_image, read_header
from iqray.listing import fingerprint_listing, get_containers_key
from iqray.shards import PoolSize, Report, Shard, run_shards, split_into_shards
from iqray.sources import ImageSource
from iqray.storage import Storage

# Raise when a row's content would differ for the same file.
MANIFEST_VERSION = 2

_SHARD_SIZE = 1024


def get_manifest_path(dataset: str) -> str:
    """Where a dataset's manifest lies under the output root."""
    return f"manifest/{dataset}.parquet"


def make_manifest_key(source: ImageSource, listing: pa.Table) -> str:
    """Key of a manifest: changes with any file of the dataset."""
    return hash_strings([str(MANIFEST_VERSION), source.key, fingerprint_listing(listing)])


def is_manifest_current(storage: Storage, dataset: str, key: str) -> bool:
    """Whether the dataset's manifest exists and was made from these files."""
    return storage.read_key(get_manifest_path(dataset)) == key


@dataclass(frozen=True)
class ManifestPlan:
    """A dataset whose manifest is to be built: its shards and the files for their rows."""

    dataset: str
    source: ImageSource
    key: str
    containers: str  # key of the files that hold the images
    shards: tuple[Shard, ...]

    @property
    def directory(self) -> str:
        """Where finished shards lie until the manifest is whole."""
        return f"manifest/{self.dataset}.parts"

    @property
    def names(self) -> tuple[str, ...]:
        """File names of the shards' rows."""
        content = f"manifest {MANIFEST_VERSION} {self.source.key} {self.containers}"
        return tuple(shard.name_file(content) for shard in self.shards)


def plan_manifest(dataset: str, source: ImageSource, listing: pa.Table) -> ManifestPlan:
    """Cut a dataset's listing into shards."""
    rows = listing.append_column("dataset", pa.repeat(dataset, listing.num_rows))
    return ManifestPlan(
        dataset,
        source,
        make_manifest_key(source, listing),
        get_containers_key(listing),
        tuple(split_into_shards(rows, _SHARD_SIZE)),
    )


def build_manifests(
    storage: Storage, plans: Sequence[ManifestPlan], pool: PoolSize, report: Report
) -> None:
    """Read every image of the planned datasets once and write their manifests.

    Shards that an interrupted run has finished are kept.
    """
    tasks = []
    for plan in plans:
        finished = storage.list_names(plan.directory)
        for shard, name in zip(plan.shards, plan.names, strict=True):
            if name in finished:
                report(shard.rows.num_rows)
            else:
                instructions = {"path": f"{plan.directory}/{name}", "dataset": plan.dataset}
                tasks.append((shard, instructions))
    arguments = {"storage": storage, "sources": {plan.dataset: plan.source for plan in plans}}
    run_shards(tasks, _ImageInspector, arguments, pool, "InspectImages", report)
    for plan in plans:
        table = pa.concat_tables(
            storage.read_table(f"{plan.directory}/{name}") for name in plan.names
        )
        storage.write_table(get_manifest_path(plan.dataset), table, key=plan.key)
        for name in storage.list_names(plan.directory):
            storage.delete(f"{plan.directory}/{name}")


def read_manifest(storage: Storage, dataset: str) -> pa.Table:
    """The dataset's manifest, training images first, in reading order."""
    return storage.read_table(get_manifest_path(dataset))


def select_train(manifest: pa.Table) -> pa.Table:
    """Rows of the training split."""
    return manifest.filter(pc.equal(manifest["split"], "train"))


class _ImageInspector:
    """Reads and decodes the images of a shard and writes their manifest rows."""

    def __init__(self, storage: Storage, sources: Mapping[str, ImageSource]) -> None:
        self._storage = storage
        self._sources = sources

    def work(self, rows: pa.Table, path: str, dataset: str) -> int:
        images = self._sources[dataset].read(rows)
        records = [
            _describe_image(row, data) for row, data in zip(rows.to_pylist(), images, strict=True)
        ]
        self._storage.write_table(path, pa.Table.from_pylist(records, schema=schemas.MANIFEST))
        return len(records)


def _describe_image(row: dict[str, Any], data: bytes | ImageFailure) -> dict[str, Any]:
    record = {**row, "status": "ok", "reason": "", "sha256": ""}
    if isinstance(data, ImageFailure):
        return {**record, "status": data.status, "reason": data.reason}
    record |= {"sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}
    header = read_header(data)
    if isinstance(header, ImageFailure):
        return {**record, "status": header.status, "reason": header.reason}
    record |= {"width": header.width, "height": header.height, "mode": header.mode}
    decoded = decode_image(data)
    if isinstance(decoded, ImageFailure):
        return {**record, "status": decoded.status, "reason": decoded.reason}
    return record
