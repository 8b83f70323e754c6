"""The manifest: one row per image, with its size, mode and checksum, unreadable ones included.

Reads images in any layout, writes `manifest/<dataset>.parquet`: plans it, hands out what is missing
of it, and joins what `iqray.inputs.inspection` has found.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from iqray.identity import hash_strings
from iqray.inputs.inspection import ImageInspector
from iqray.inputs.listing import fingerprint_listing, get_containers_key
from iqray.inputs.sources import ImageSource
from iqray.pools import Pool, PoolSize, Report, Written, run_pools
from iqray.shards import Shard, split_into_shards
from iqray.storage import Storage

# Raise when a row's content would differ for the same file.
MANIFEST_VERSION = 2

_SHARD_SIZE = 1024

_ATTEMPTS = "attempts/manifest"


def get_manifest_path(dataset: str) -> str:
    """Where a dataset's manifest lies under the output root."""
    return f"manifest/{dataset}.parquet"


def get_listing_path(dataset: str) -> str:
    """Where a dataset's listing lies while its manifest is being built."""
    return f"manifest/{dataset}.listing.parquet"


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
    listing: pa.Table
    containers: str  # key of the files that hold the images
    shards: tuple[Shard, ...]

    @property
    def directory(self) -> str:
        """Where finished shards lie until the manifest is whole."""
        return f"manifest/{self.dataset}.parts"

    @property
    def listing_path(self) -> str:
        """Where workers find the listing until the manifest is whole."""
        return get_listing_path(self.dataset)

    @property
    def names(self) -> tuple[str, ...]:
        """File names of the shards' rows."""
        content = f"manifest {MANIFEST_VERSION} {self.source.key} {self.containers}"
        return tuple(shard.name_file(content) for shard in self.shards)

    def count_found(self, missing: Sequence[tuple[Shard, str]]) -> int:
        """Images whose rows an interrupted run has left, given the shards that are missing."""
        return self.listing.num_rows - sum(shard.num_rows for shard, _ in missing)


def plan_manifest(
    dataset: str, source: ImageSource, listing: pa.Table, train_shard_size: int = _SHARD_SIZE
) -> ManifestPlan:
    """Cut a dataset's listing into shards, training images first.

    Args:
        dataset: its name.
        source: of the images.
        listing: table of `listing.LISTING`.
        train_shard_size: images of a shard of the training split. Cut as they are scored, images
            can be inspected and scored at once.
    """
    rows = listing.append_column("dataset", pa.repeat(dataset, listing.num_rows))
    start, train = select_train(rows)
    assert start == 0, "training images are listed first"
    path = get_listing_path(dataset)
    shards = split_into_shards(train, train_shard_size, path)
    others = split_into_shards(rows.slice(train.num_rows), _SHARD_SIZE, path, train.num_rows)
    # Numbered on, as a file is named after its shard's number and content.
    shards += [replace(shard, index=len(shards) + shard.index) for shard in others]
    key = make_manifest_key(source, listing)
    return ManifestPlan(dataset, source, key, rows, get_containers_key(listing), tuple(shards))


def build_manifests(
    storage: Storage, plans: Sequence[ManifestPlan], size: PoolSize, report: Report
) -> None:
    """Read every image of the planned datasets once and write their manifests.

    Shards that an interrupted run has finished are kept.
    """
    tasks = []
    for plan in plans:
        missing = list_missing(storage, plan)
        report(Written(plan.dataset, plan.count_found(missing), 0))
        tasks += [(shard, {"path": path, "dataset": plan.dataset}) for shard, path in missing]
    arguments = {
        "storage": storage,
        "sources": {plan.dataset: plan.source for plan in plans},
        "attempts": f"{_ATTEMPTS}/{uuid.uuid4().hex}",
    }
    storage.delete_folder(_ATTEMPTS)  # of runs that were killed
    run_pools([Pool("InspectImages", size, storage, ImageInspector, arguments, tasks)], report)
    storage.delete_folder(_ATTEMPTS)
    for plan in plans:
        finish_manifest(storage, plan)


def list_missing(storage: Storage, plan: ManifestPlan) -> list[tuple[Shard, str]]:
    """Shards that are still to be inspected, with the file for their rows.

    Puts the listing where workers find it.
    """
    storage.write_table(plan.listing_path, plan.listing)
    finished = storage.list_names(plan.directory)
    return [
        (shard, f"{plan.directory}/{name}")
        for shard, name in zip(plan.shards, plan.names, strict=True)
        if name not in finished
    ]


def finish_manifest(storage: Storage, plan: ManifestPlan) -> None:
    """Join the shards of a plan, which are all there, to its manifest; they are removed."""
    table = storage.read_tables([f"{plan.directory}/{name}" for name in plan.names])
    # What the listing was made from, so that it can be taken from the manifest next time.
    table = table.replace_schema_metadata(plan.listing.schema.metadata)
    storage.write_table(get_manifest_path(plan.dataset), table, key=plan.key)
    storage.delete_folder(plan.directory)
    storage.delete(plan.listing_path)
    # Arrow keeps what this took, as much again as the table, for tables to come.
    del table
    pa.default_memory_pool().release_unused()


def read_manifest(storage: Storage, dataset: str) -> pa.Table:
    """The dataset's manifest, training images first, in reading order."""
    return storage.read_table(get_manifest_path(dataset))


def select_train(manifest: pa.Table) -> tuple[int, pa.Table]:
    """Where the rows of the training split begin, and these rows, which stand side by side."""
    is_train = pc.equal(manifest["split"], "train")
    start = max(0, pc.index(is_train, True).as_py())
    rows = manifest.slice(start, pc.sum(is_train).as_py() or 0)
    assert pc.all(pc.equal(rows["split"], "train")).as_py() is not False
    return start, rows
