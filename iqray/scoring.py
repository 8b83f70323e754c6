"""Score every training image with every metric: one row per image and metric, failures included.

Reads manifests and image files, writes `scores/<dataset>/<metric>/<shard>.parquet` and, last,
`scores/<dataset>/<metric>/_complete.json`. Pools differ in which metrics they hold: a shared pool
decodes an image once for all its metrics, pools per metric are independent of each other.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from iqray.errors import StudyError
from iqray.score_worker import ScoreJob, ScoreWorker
from iqray.shards import PoolSize, Report, Shard, run_shards
from iqray.storage import Storage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScorePlan:
    """A score job, its shards and the files that hold or will hold their rows."""

    job: ScoreJob
    shards: tuple[Shard, ...]
    names: tuple[str, ...]
    finished: frozenset[str]

    @property
    def num_images(self) -> int:
        """Images of the job."""
        return sum(shard.rows.num_rows for shard in self.shards)

    @property
    def num_finished(self) -> int:
        """Images whose rows are written."""
        return sum(
            shard.rows.num_rows
            for shard, name in zip(self.shards, self.names, strict=True)
            if name in self.finished
        )

    @property
    def missing(self) -> list[tuple[Shard, str]]:
        """Shards without a finished file, with the file's name."""
        pairs = zip(self.shards, self.names, strict=True)
        return [(shard, name) for shard, name in pairs if name not in self.finished]


def plan_scores(
    storage: Storage, jobs: Iterable[ScoreJob], shards: Mapping[str, tuple[Shard, ...]]
) -> list[ScorePlan]:
    """Which shards, by dataset, every job has and which of them are finished."""
    plans = []
    for job in jobs:
        key = job.key
        names = tuple(shard.name_file(key) for shard in shards[job.dataset])
        finished = frozenset(storage.list_names(job.directory) & set(names))
        plans.append(ScorePlan(job, shards[job.dataset], names, finished))
    return plans


def score_images(
    storage: Storage, plans: Sequence[ScorePlan], pool: PoolSize, report: Report
) -> None:
    """Score what is missing of several jobs in one pool whose workers hold all their metrics."""
    metrics = sorted({plan.job.metric for plan in plans if plan.missing})
    run_shards(
        _group_by_shard(plans),
        worker=ScoreWorker,
        worker_arguments={
            "storage": storage,
            "jobs": {f"{plan.job.dataset}/{plan.job.metric}": plan.job for plan in plans},
            "device": "cuda" if pool.num_gpus else "cpu",
            "num_threads": max(1, int(pool.num_cpus)),
        },
        pool=pool,
        name="Score_" + "_".join(metrics),
        report=report,
    )


def complete_scores(storage: Storage, plan: ScorePlan, max_failed_share: float) -> None:
    """Check a finished job, drop rows of other keys, and write its completion record.

    Raises:
        StudyError: more images than allowed could not be scored.
    """
    record_path = f"{plan.job.directory}/_complete.json"
    for name in storage.list_names(plan.job.directory) - {*plan.names, "_complete.json"}:
        storage.delete(f"{plan.job.directory}/{name}")
    if storage.exists(record_path) and storage.read_json(record_path)["files"] == list(plan.names):
        return
    tables = [storage.read_table(f"{plan.job.directory}/{name}") for name in plan.names]
    table = pa.concat_tables(tables)
    assert table.num_rows == plan.num_images, (table.num_rows, plan.num_images)
    _check_failures(table, plan.job, max_failed_share)
    storage.write_json(
        record_path,
        {
            "dataset": plan.job.dataset,
            "metric": plan.job.metric,
            "key": plan.job.key,
            "weights": plan.job.weights.provenance,
            "weights_sha256": dict(
                zip(plan.job.weights.names, plan.job.weights.sha256s, strict=True)
            ),
            "num_images": table.num_rows,
            "status": dict(Counter(table.column("status").to_pylist())),
            "files": list(plan.names),
        },
    )


def read_scores(storage: Storage, dataset: str, metric: str) -> pa.Table:
    """All score rows of a finished job."""
    directory = f"scores/{dataset}/{metric}"
    names = storage.read_json(f"{directory}/_complete.json")["files"]
    return pa.concat_tables(storage.read_table(f"{directory}/{name}") for name in names)


def _group_by_shard(plans: Sequence[ScorePlan]) -> Iterator[tuple[Shard, dict[str, Any]]]:
    """Each shard once, with the file to write for every metric that misses it."""
    grouped: dict[tuple[str, int], tuple[Shard, dict[str, str]]] = {}
    for plan in plans:
        for shard, name in plan.missing:
            _, files = grouped.setdefault((plan.job.dataset, shard.index), (shard, {}))
            files[f"{plan.job.dataset}/{plan.job.metric}"] = f"{plan.job.directory}/{name}"
    for shard, files in grouped.values():
        yield shard, {"files": json.dumps(files)}


def _check_failures(table: pa.Table, job: ScoreJob, max_failed_share: float) -> None:
    failed = table.filter(pa.compute.not_equal(table["status"], "ok"))
    share = failed.num_rows / max(1, table.num_rows)
    if share <= max_failed_share:
        return
    categories = Counter(failed["category"].to_pylist()).most_common(3)
    reasons = Counter(zip(failed["status"].to_pylist(), failed["reason"].to_pylist(), strict=True))
    (status, reason), _ = reasons.most_common(1)[0]
    raise StudyError(
        f"{failed.num_rows} of {table.num_rows} images of '{job.dataset}' have no {job.metric} "
        f"score ({share:.1%}; scoring.max_failed_share is {max_failed_share:.1%}), most in "
        + ", ".join(f"'{name}' ({count})" for name, count in categories)
        + f"; most often {status}: {reason}. Repair or remove the images (all are listed in "
        f"{job.directory}), or raise scoring.max_failed_share"
    )
