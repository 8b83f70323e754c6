"""Stage `scores`: score every training image with every metric."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from iqray.inputs.manifest import select_train
from iqray.metrics.registry import FULL_PRECISION, METRICS_WITH_PRECISIONS
from iqray.pools import Pool, PoolSize, Written, run_pools
from iqray.progress import StageLine, show_line, show_stage
from iqray.resources import WorkerRequest, fit_pools
from iqray.run import Run
from iqray.scoring.failures import FailureLimit, check_failures, predict_failures
from iqray.scoring.gate import NUM_CALIBRATION, make_gate_key
from iqray.scoring.jobs import ScoreJob
from iqray.scoring.plans import (
    ScorePlan,
    build_score_pool,
    complete_scores,
    plan_scores,
)
from iqray.study import Study

if TYPE_CHECKING:
    from iqray.scoring.gated_scores import GatedScores

_ATTEMPTS = "attempts/scores"


def request_scorers(study: Study) -> list[WorkerRequest]:
    """Actors that score: a request for each pool. The pools run at the same time."""
    is_list = not isinstance(study.scoring.pools, str)
    return [
        WorkerRequest(
            what=f"scoring.pools.{index}" if is_list else "scoring",
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            min_workers=pool.min_actors,
            max_workers=pool.max_actors,
        )
        for index, pool in enumerate(study.scoring.list_pools(study.metrics))
    ]


def make_scores(run: Run) -> None:
    """Score every training image with every metric."""
    plans = plan_study_scores(run)
    with show_stage("scores", sum(plan.num_images for plan in plans), "scores") as line:
        if any(plan.missing for plan in plans):
            _check_manifest(run, plans)
            _score_missing(run, plans, line)
        else:
            line.skip(sum(plan.num_images for plan in plans))
        for plan in plan_study_scores(run):
            complete_scores(run.storage, plan, run.study.scoring.max_failed_share)
        run.record_seconds(line)


def plan_study_scores(run: Run) -> list[ScorePlan]:
    """Score plans of every dataset and metric of the study."""
    settings = run.study.scoring
    jobs = []
    for dataset in run.study.datasets:
        pays = settings.precision != FULL_PRECISION and _has_enough_categories(run, dataset.name)
        images = [shard.content for shard in run.shards[dataset.name]]
        for metric in run.study.metrics:
            is_gated = pays and metric in METRICS_WITH_PRECISIONS
            jobs.append(
                ScoreJob(
                    dataset=dataset.name,
                    source=run.open_images(dataset),
                    metric=metric,
                    weights=run.weights[metric],
                    small_images=settings.small_images,
                    precision=settings.precision if is_gated else FULL_PRECISION,
                    gate=make_gate_key(run.study.subsets, images) if is_gated else "",
                )
            )
    return plan_scores(run.storage, jobs, run.shards)


def _has_enough_categories(run: Run, dataset: str) -> bool:
    """Whether the rank gate would leave any category in lower precision."""
    _, rows = select_train(run.manifests[dataset])
    return len(rows["category"].unique()) > NUM_CALIBRATION


def _score_missing(run: Run, plans: Sequence[ScorePlan], line: StageLine) -> None:
    """Score what is missing; jobs of lower precision go through the rank gate afterwards."""
    attempts = f"{_ATTEMPTS}/{uuid.uuid4().hex}"
    run.storage.delete_folder(_ATTEMPTS)  # of runs that were killed
    gated = [plan for plan in plans if plan.job.gate and plan.missing]
    lower = [_plan_lower(run, plan) for plan in gated]
    first = [plan for plan in plans if plan not in gated] + lower
    line.skip(sum(plan.num_finished for plan in first))
    limit = FailureLimit(
        run.storage,
        {plan.job.name: (plan.job, plan.num_images) for plan in first},
        run.study.scoring.max_failed_share,
    )

    def report(written: Written) -> None:
        line(written.num_rows)
        limit(written)

    run_pools(_build_pools(run, first, attempts), report)
    if gated:
        _pass_gates(run, _open_gates(run, gated, lower), attempts)
    run.storage.delete_folder(_ATTEMPTS)


def _plan_lower(run: Run, plan: ScorePlan) -> ScorePlan:
    job = replace(plan.job, folder="gate/lower", gate="")
    [lower] = plan_scores(run.storage, [job], run.shards)
    return lower


def _open_gates(
    run: Run, gated: Sequence[ScorePlan], lower: Sequence[ScorePlan]
) -> "list[GatedScores]":
    # Imported here, as statistics take a second and are needed for lower precision only.
    from iqray.scoring.gated_scores import GatedScores, cut_by_category

    categories = {
        dataset: cut_by_category(run.storage, dataset, select_train(run.manifests[dataset])[1])
        for dataset in {plan.job.dataset for plan in gated}
    }
    return [
        GatedScores(run.storage, plan, own, categories[plan.job.dataset], run.study.subsets)
        for plan, own in zip(gated, lower, strict=True)
    ]


def _pass_gates(run: Run, gates: "Sequence[GatedScores]", attempts: str) -> None:
    """Score categories in full precision until no subset is open, then write the final rows."""
    while True:
        plans = [gate.plan_exact(found) for gate in gates if (found := gate.list_open())]
        if not plans:
            break
        assert all(plan.missing for plan in plans), "an open category has been scored already"
        num_open = sum(len(plan.shards) for plan in plans)
        show_line("rank gate", f"{num_open:,} categories to be scored in {FULL_PRECISION}")
        run_pools(_build_pools(run, plans, attempts), lambda _: None)
    for gate in gates:
        show_line("rank gate", gate.merge())


def _check_manifest(run: Run, plans: Sequence[ScorePlan]) -> None:
    """Stop before any work where the manifest tells that too many images will have no score."""
    limit = run.study.scoring.max_failed_share
    for plan in plans:
        _, rows = select_train(run.manifests[plan.job.dataset])
        check_failures(predict_failures(rows, plan.job), plan.job, plan.num_images, limit)


def _build_pools(run: Run, plans: Sequence[ScorePlan], attempts: str) -> list[Pool]:
    settings = run.study.scoring
    busy = []
    for pool, request in zip(
        settings.list_pools(run.study.metrics), request_scorers(run.study), strict=True
    ):
        own = [plan for plan in plans if plan.job.metric in pool.metrics and plan.missing]
        if own:
            busy.append((request, own))
    counts = fit_pools([request for request, _ in busy], run.cluster.connect())
    pools = []
    for (request, own), count in zip(busy, counts, strict=True):
        size = PoolSize.of(request, count)
        pools.append(build_score_pool(run.storage, own, size, attempts, settings.max_image_s))
    return pools
