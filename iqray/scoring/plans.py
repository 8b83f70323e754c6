"""Score every training image with every metric: one row per image and metric, failures included.

Reads manifests and image files, writes `scores/<dataset>/<metric>/<shard>.parquet` and, last,
`scores/<dataset>/<metric>/_complete.json`. Pools differ in which metrics they hold: a shared pool
decodes an image once for all its metrics, pools per metric are independent of each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from iqray.pools import Pool, PoolSize
from iqray.scoring.failures import check_failures
from iqray.scoring.jobs import ScoreJob
from iqray.scoring.worker import ScoreWorker
from iqray.shards import Shard, parse_index
from iqray.storage import Storage


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
        return sum(shard.num_rows for shard in self.shards)

    @property
    def num_finished(self) -> int:
        """Images whose rows are written."""
        return sum(
            shard.num_rows
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


def build_score_pool(
    storage: Storage,
    plans: Sequence[ScorePlan],
    size: PoolSize,
    attempts: str,
    max_image_s: float,
) -> Pool:
    """A pool whose actors hold the metrics of several jobs, for what is missing of these.

    Args:
        storage: the output root.
        plans: of the jobs.
        size: of the pool.
        attempts: folder under the output root for notes on shards that have been begun.
        max_image_s: how long an image may take with a metric.
    """
    unfinished = [plan for plan in plans if plan.missing]
    metrics = sorted({plan.job.metric for plan in unfinished})
    return Pool(
        name="Score_" + "_".join(metrics),
        size=size,
        storage=storage,
        worker=ScoreWorker,
        worker_arguments={
            "storage": storage,
            "jobs": {plan.job.name: plan.job for plan in unfinished},
            "device": size.device,
            "num_threads": size.num_threads,
            "attempts": attempts,
            "max_image_s": max_image_s,
        },
        tasks=_group_by_shard(unfinished),
    )


def complete_scores(storage: Storage, plan: ScorePlan, max_failed_share: float) -> None:
    """Check a finished job, drop rows of other keys, and write its completion record.

    Raises:
        StudyError: more images than allowed could not be scored.
    """
    record_path = f"{plan.job.directory}/_complete.json"
    for name in storage.list_names(plan.job.directory) - set(plan.names):
        if parse_index(name) is not None:  # what a person has put there stays
            storage.delete(f"{plan.job.directory}/{name}")
    if _is_complete(storage, plan, max_failed_share):
        return
    paths = [f"{plan.job.directory}/{name}" for name in plan.names]
    rows = storage.read_tables(paths, ["category", "status", "reason"])
    assert rows.num_rows == plan.num_images, (rows.num_rows, plan.num_images)
    check_failures(rows, plan.job, plan.num_images, max_failed_share)
    weights = plan.job.weights
    gate = {"gate": storage.read_json(get_record_path(plan.job))} if plan.job.gate else {}
    storage.write_json(
        record_path,
        {
            "dataset": plan.job.dataset,
            "metric": plan.job.metric,
            "key": plan.job.key,
            "weights": weights.provenance,
            "weights_sha256": dict(zip(weights.names, weights.sha256s, strict=True)),
            "num_images": rows.num_rows,
            "status": _count_values(rows["status"]),
            "precision": plan.job.precision,
            **gate,
            "files": list(plan.names),
        },
    )


def get_record_path(job: ScoreJob) -> str:
    """Where the rank gate says what it has found."""
    return f"gate/records/{job.name}.json"


def _is_complete(storage: Storage, plan: ScorePlan, max_failed_share: float) -> bool:
    path = f"{plan.job.directory}/_complete.json"
    if not storage.exists(path):
        return False
    record = storage.read_json(path)
    num_failed = record["num_images"] - record["status"].get("ok", 0)
    is_allowed = num_failed <= max_failed_share * record["num_images"]
    return record["files"] == list(plan.names) and is_allowed


def _count_values(values: pa.ChunkedArray) -> dict[str, int]:
    counts = values.value_counts()
    return dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))


def read_scores(
    storage: Storage, dataset: str, metric: str, columns: list[str] | None = None
) -> pa.Table:
    """All score rows of a finished job, with some or all columns."""
    directory = f"scores/{dataset}/{metric}"
    names = storage.read_json(f"{directory}/_complete.json")["files"]
    return storage.read_tables([f"{directory}/{name}" for name in names], columns)


def summarise_scores(storage: Storage, plans: Sequence[ScorePlan]) -> str:
    """How many images of each finished job have a score, a line each."""
    lines = [f"{'dataset':<16} {'metric':<12} {'images':>10} {'scored':>10}  not scored"]
    for plan in plans:
        record = storage.read_json(f"{plan.job.directory}/_complete.json")
        failed = {name: count for name, count in record["status"].items() if name != "ok"}
        reasons = ", ".join(f"{count:,} {name}" for name, count in sorted(failed.items()))
        num_scored = record["status"].get("ok", 0)
        lines.append(
            f"{plan.job.dataset:<16} {plan.job.metric:<12} {record['num_images']:>10,} "
            f"{num_scored:>10,}  {reasons or 'none'}"
        )
    return "\n".join(lines)


def _group_by_shard(plans: Sequence[ScorePlan]) -> list[tuple[Shard, dict[str, Any]]]:
    """Each shard once, with the file to write for every job that misses it."""
    grouped: dict[tuple[str, int], tuple[Shard, dict[str, str]]] = {}
    for plan in plans:
        for shard, name in plan.missing:
            _, files = grouped.setdefault((plan.job.dataset, shard.index), (shard, {}))
            files[plan.job.name] = f"{plan.job.directory}/{name}"
    return [(shard, {"files": files}) for shard, files in grouped.values()]
