"""The manifest: one row per image file, with its size, mode and checksum, unreadable ones included.

Reads folders of images, writes `manifest/<dataset>.parquet`. Every file is decoded once, so that a
row with status ok is an image that scoring, training and testing can all use.
"""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iqray import schemas
from iqray.attempts import Step, Watchdog, begin_attempt
from iqray.errors import StudyError
from iqray.identity import hash_strings
from iqray.images import ImageFailure, decode_image, read_header
from iqray.listing import ListedImage, fingerprint_listing
from iqray.pools import Pool, PoolSize, Report, Written, run_pools
from iqray.shards import Shard, split_into_shards
from iqray.storage import Storage

# Raise when a row's content would differ for the same file.
MANIFEST_VERSION = 1

_SHARD_SIZE = 1024

# An image that takes longer to decode is recorded as crashed.
_MAX_IMAGE_S = 600

_ATTEMPTS = "manifest/attempts"

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


def get_listing_path(dataset: str) -> str:
    """Where a dataset's listing lies while its manifest is being built."""
    return f"manifest/{dataset}.listing.parquet"


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
    listing: pa.Table
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
        content = f"manifest {MANIFEST_VERSION} {self.root}"
        return tuple(shard.name_file(content) for shard in self.shards)


def plan_manifest(dataset: str, root: Path, listing: list[ListedImage]) -> ManifestPlan:
    """Cut a dataset's listing into shards."""
    table = _tabulate(dataset, listing)
    shards = split_into_shards(table, _SHARD_SIZE, get_listing_path(dataset))
    return ManifestPlan(dataset, root, make_manifest_key(root, listing), table, tuple(shards))


def build_manifests(
    storage: Storage, plans: Sequence[ManifestPlan], size: PoolSize, report: Report
) -> None:
    """Read every file of the planned datasets once and write their manifests.

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
                tasks.append((shard, {"path": path, "root": str(plan.root)}))
        storage.write_table(plan.listing_path, plan.listing)
    attempts = f"{_ATTEMPTS}/{uuid.uuid4().hex}"
    storage.delete_folder(_ATTEMPTS)  # of runs that were killed
    arguments = {"storage": storage, "attempts": attempts}
    run_pools([Pool("InspectImages", size, storage, ImageInspector, arguments, tasks)], report)
    storage.delete_folder(_ATTEMPTS)
    for plan in plans:
        table = storage.read_tables([f"{plan.directory}/{name}" for name in plan.names])
        storage.write_table(get_manifest_path(plan.dataset), table, key=plan.key)
        storage.delete_folder(plan.directory)
        storage.delete(plan.listing_path)


def read_manifest(storage: Storage, dataset: str) -> pa.Table:
    """The dataset's manifest, sorted by split and path."""
    return storage.read_table(get_manifest_path(dataset))


def select_train(manifest: pa.Table) -> tuple[int, pa.Table]:
    """Where the rows of the training split begin, and these rows, which stand side by side."""
    is_train = pc.equal(manifest["split"], "train")
    start = max(0, pc.index(is_train, True).as_py())
    rows = manifest.slice(start, pc.sum(is_train).as_py() or 0)
    assert pc.all(pc.equal(rows["split"], "train")).as_py() is not False
    return start, rows


def _tabulate(dataset: str, listing: list[ListedImage]) -> pa.Table:
    columns = [
        pa.array([getattr(image, field.name) for image in listing], field.type)
        for field in _LISTING
    ]
    table = pa.Table.from_arrays(columns, schema=_LISTING)
    return table.append_column("dataset", pa.array([dataset] * len(listing), pa.string()))


class ImageInspector:
    """Reads and decodes the files of a shard and writes their manifest rows.

    Args:
        storage: the output root.
        attempts: folder under it for notes on shards that have been begun.
    """

    def __init__(self, storage: Storage, attempts: str) -> None:
        self._storage = storage
        self._attempts = attempts
        self._watchdog = Watchdog(_MAX_IMAGE_S)

    def work(self, rows: pa.Table, path: str, root: str) -> list[Written]:
        """Inspect files and write their rows to `path`."""
        listed = rows.to_pylist()
        records: dict[int, dict[str, Any]] = {}
        folder = f"{self._attempts}/{hash_strings([path])[:16]}"
        with begin_attempt(self._storage, folder) as attempt:
            for index in attempt.order(len(listed)):
                self._watchdog.rearm()
                step = Step(index, "decoding")
                if attempt.is_first or attempt.enter(step):
                    records[index] = _describe_image(listed[index], Path(root))
                else:
                    failure = {"status": "crashed", "reason": attempt.explain(step), "sha256": ""}
                    records[index] = {**listed[index], **failure}
            self._watchdog.disarm()
            table = pa.Table.from_pylist(
                [records[index] for index in range(len(listed))], schema=schemas.MANIFEST
            )
            self._storage.write_table(path, table)
        num_failed = sum(record["status"] != "ok" for record in records.values())
        return [Written(listed[0]["dataset"], len(listed), num_failed)]


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
