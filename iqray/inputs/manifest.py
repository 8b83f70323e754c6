"""The manifest: one row per image, with its size, mode and checksum, unreadable ones included.

Reads images in any layout, writes `manifest/<dataset>.parquet`. Every image is decoded once, so
that a row with status ok is an image that scoring, training and testing can all use.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iqray import schemas
from iqray.attempts import Attempt, Step, Watchdog, begin_attempt, end_process_on
from iqray.errors import StudyError
from iqray.identity import hash_strings
from iqray.inputs.images import ImageFailure, decode_image, read_header
from iqray.inputs.listing import fingerprint_listing, get_containers_key
from iqray.inputs.sources import ImageSource
from iqray.pools import Pool, PoolSize, Report, Written, run_pools
from iqray.shards import Shard, split_into_shards
from iqray.storage import Storage

# Raise when a row's content would differ for the same file.
MANIFEST_VERSION = 2

_SHARD_SIZE = 1024

# An image that takes longer to decode is recorded as crashed.
_MAX_IMAGE_S = 600

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


def plan_manifest(dataset: str, source: ImageSource, listing: pa.Table) -> ManifestPlan:
    """Cut a dataset's listing into shards."""
    rows = listing.append_column("dataset", pa.repeat(dataset, listing.num_rows))
    return ManifestPlan(
        dataset,
        source,
        make_manifest_key(source, listing),
        rows,
        get_containers_key(listing),
        tuple(split_into_shards(rows, _SHARD_SIZE, get_listing_path(dataset))),
    )


def build_manifests(
    storage: Storage, plans: Sequence[ManifestPlan], size: PoolSize, report: Report
) -> None:
    """Read every image of the planned datasets once and write their manifests.

    Shards that an interrupted run has finished are kept.
    """
    tasks = []
    for plan in plans:
        finished = storage.list_names(plan.directory)
        for shard, name in zip(plan.shards, plan.names, strict=True):
            if name in finished:
                report(Written(plan.dataset, shard.num_rows, 0))
            else:
                path = f"{plan.directory}/{name}"
                tasks.append((shard, {"path": path, "dataset": plan.dataset}))
        storage.write_table(plan.listing_path, plan.listing)
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


def finish_manifest(storage: Storage, plan: ManifestPlan) -> None:
    """Join the shards of a plan, which are all there, to its manifest; they are removed."""
    table = storage.read_tables([f"{plan.directory}/{name}" for name in plan.names])
    # What the listing was made from, so that it can be taken from the manifest next time.
    table = table.replace_schema_metadata(plan.listing.schema.metadata)
    storage.write_table(get_manifest_path(plan.dataset), table, key=plan.key)
    storage.delete_folder(plan.directory)
    storage.delete(plan.listing_path)


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


class ImageInspector:
    """Reads and decodes the images of a shard and writes their manifest rows.

    Args:
        storage: the output root.
        sources: of the images, by dataset.
        attempts: folder under the output root for notes on shards that have been begun.
    """

    def __init__(self, storage: Storage, sources: Mapping[str, ImageSource], attempts: str) -> None:
        self._storage = storage
        self._sources = sources
        self._attempts = attempts
        self._watchdog = Watchdog(_MAX_IMAGE_S)

    def work(self, rows: pa.Table, path: str, dataset: str) -> list[Written]:
        """Inspect images and write their rows to `path`."""
        images = self._sources[dataset].read(rows)
        folder = f"{self._attempts}/{hash_strings([path])[:16]}"
        with begin_attempt(self._storage, folder) as attempt:
            if attempt.is_first:
                with end_process_on((MemoryError,)):
                    records = list(map(self._inspect, rows.to_pylist(), images))
            else:
                records = self._inspect_step_by_step(rows, self._sources[dataset], attempt)
            self._watchdog.disarm()
            self._storage.write_table(path, pa.Table.from_pylist(records, schema=schemas.MANIFEST))
        num_failed = sum(record["status"] != "ok" for record in records)
        return [Written(dataset, len(records), num_failed)]

    def _inspect(self, row: dict[str, Any], data: bytes | ImageFailure) -> dict[str, Any]:
        self._watchdog.rearm()
        return _describe_image(row, data)

    def _inspect_step_by_step(
        self, rows: pa.Table, source: ImageSource, attempt: Attempt
    ) -> list[dict[str, Any]]:
        """Note each image before it is read: a process has died on the shard before."""
        records: dict[int, dict[str, Any]] = {}
        for index in attempt.order(rows.num_rows):
            step = Step(index, "decoding")
            row = rows.slice(index, 1)
            if attempt.enter(step):
                with end_process_on((MemoryError,), attempt, step):
                    [data] = source.read(row)
                    records[index] = self._inspect(row.to_pylist()[0], data)
            else:
                given_up = ImageFailure("crashed", attempt.explain(step))
                records[index] = _describe_image(row.to_pylist()[0], given_up)
        return [records[index] for index in range(rows.num_rows)]


def _describe_image(row: dict[str, Any], data: bytes | ImageFailure) -> dict[str, Any]:
    record = {**row, "status": "ok", "reason": "", "sha256": ""}
    if isinstance(data, ImageFailure):
        _check_missing(row, data)
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


def _check_missing(row: dict[str, Any], failure: ImageFailure) -> None:
    """Accept that a file is missing only where its listing saw a link to nowhere.

    Raises:
        StudyError: the file was there a moment ago. A disk that comes back must not leave rows
            that say for ever that it has nothing.
    """
    if failure.status == "missing" and (row["num_bytes"] or row["modified_ns"]):
        raise StudyError(
            f"image '{row['path']}' was listed but cannot be found ({failure.reason}); when its "
            "disk is back, or the file is gone on purpose, run the study again"
        )
