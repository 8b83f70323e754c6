"""Stage `images`: inspect and score what is neither yet, each image read and decoded once.

A short cut through the stages `manifest` and `scores`, which find its files and do what it leaves:
images that are known already, pools that differ in their metrics, scores behind the rank gate.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from iqray.inputs.manifest import (
    ManifestPlan,
    finish_manifest,
    list_missing,
    plan_manifest,
    select_train,
)
from iqray.metrics.registry import FULL_PRECISION
from iqray.pools import Pool, PoolSize, Written, run_pools
from iqray.preflight import check_dataset
from iqray.progress import show_stage
from iqray.run import Run
from iqray.scoring.failures import FailureLimit
from iqray.scoring.jobs import ScoreJob
from iqray.scoring.single_pass import SinglePassWorker
from iqray.shards import Shard, parse_index
from iqray.stages.scores import request_scorers
from iqray.storage import Storage

_ATTEMPTS = "attempts/images"


def inspect_and_score(run: Run) -> None:
    """Inspect every image of datasets without a manifest, and score their training images.

    Raises:
        StudyError: too many images could not be scored.
    """
    plans = list(_plan(run)) if _has_one_pool(run) else []
    if not plans:
        return
    total = sum(plan.listing.num_rows for plan in plans)
    with show_stage("images", total, "images, inspected and scored") as line:
        [request] = request_scorers(run.study)
        size = run.fit_pool(request)  # before anything is written
        jobs = _list_jobs(run, plans)
        limit = _limit_failures(run, plans, jobs)

        def report(written: Written) -> None:
            if written.job in jobs:
                limit(written)
            else:
                line(written.num_rows)

        tasks: list[tuple[Shard, dict[str, Any]]] = []
        for plan in plans:
            missing = list_missing(run.storage, plan)
            line.skip(plan.count_found(missing))
            tasks += describe_tasks(run.storage, plan, missing, jobs)
        run.storage.delete_folder(_ATTEMPTS)  # of runs that were killed
        if tasks:
            run_pools([_build_pool(run, size, plans, jobs, tasks)], report)
        run.storage.delete_folder(_ATTEMPTS)
        for plan in plans:
            finish_manifest(run.storage, plan)
        run.record_seconds(line)


def _has_one_pool(run: Run) -> bool:
    """Whether every scoring actor holds all metrics, and its scores are final."""
    scoring = run.study.scoring
    return scoring.precision == FULL_PRECISION and len(scoring.list_pools(run.study.metrics)) == 1


def _plan(run: Run) -> Iterator[ManifestPlan]:
    """Datasets of the grid whose manifest is to be made, cut as they are scored."""
    for dataset in run.study.datasets:
        listing, source = run.listings[dataset.name], run.open_images(dataset)
        if run.is_inspected(dataset.name):
            continue
        if dataset.test is not None:
            check_dataset(run.study, dataset, listing)
        yield plan_manifest(dataset.name, source, listing, run.study.scoring.shard_size)


def _list_jobs(run: Run, plans: Sequence[ManifestPlan]) -> dict[str, ScoreJob]:
    jobs = [
        ScoreJob(
            plan.dataset, plan.source, metric, run.weights[metric], run.study.scoring.small_images
        )
        for plan in plans
        for metric in run.study.metrics
    ]
    return {job.name: job for job in jobs}


def _limit_failures(
    run: Run, plans: Sequence[ManifestPlan], jobs: Mapping[str, ScoreJob]
) -> FailureLimit:
    num_train = {plan.dataset: _count_train(plan) for plan in plans}
    return FailureLimit(
        run.storage,
        {name: (job, num_train[job.dataset]) for name, job in jobs.items()},
        run.study.scoring.max_failed_share,
    )


def describe_tasks(
    storage: Storage,
    plan: ManifestPlan,
    missing: Sequence[tuple[Shard, str]],
    jobs: Mapping[str, ScoreJob],
) -> Iterator[tuple[Shard, dict[str, Any]]]:
    """Shards to be inspected, with the jobs that have no scores at all of a shard's number.

    Scores that are there may be these images': which, only the inspection tells.
    """
    own = [job for job in jobs.values() if job.dataset == plan.dataset]
    scored = {job.name: _list_indices(storage, job) for job in own}
    num_train = _count_train(plan)
    for shard, path in missing:
        is_train = shard.start < num_train
        names = [job.name for job in own if is_train and shard.index not in scored[job.name]]
        task = {"path": path, "dataset": plan.dataset, "index": shard.index, "jobs": names}
        yield shard, task


def _list_indices(storage: Storage, job: ScoreJob) -> set[int]:
    """Numbers of the shards of which a job has scores, whichever images they are of."""
    indices = map(parse_index, storage.list_names(job.directory))
    return {index for index in indices if index is not None}


def _count_train(plan: ManifestPlan) -> int:
    _, train = select_train(plan.listing)
    return int(train.num_rows)


def _build_pool(
    run: Run,
    size: PoolSize,
    plans: Sequence[ManifestPlan],
    jobs: dict[str, ScoreJob],
    tasks: Sequence[tuple[Shard, dict[str, Any]]],
) -> Pool:
    return Pool(
        name="InspectAndScore_" + "_".join(sorted(run.study.metrics)),
        size=size,
        storage=run.storage,
        worker=SinglePassWorker,
        worker_arguments={
            "storage": run.storage,
            "sources": {plan.dataset: plan.source for plan in plans},
            "jobs": jobs,
            "device": size.device,
            "num_threads": size.num_threads,
            "attempts": f"{_ATTEMPTS}/{uuid.uuid4().hex}",
            "max_image_s": run.study.scoring.max_image_s,
        },
        tasks=tasks,
    )
