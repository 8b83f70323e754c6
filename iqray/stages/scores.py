"""Stage `scores`: score every training image with every metric."""

from collections.abc import Iterator, Sequence

from iqray.cluster import WorkerRequest, fit_count
from iqray.progress import show_stage
from iqray.run import Run
from iqray.score_worker import ScoreJob
from iqray.scoring import ScorePlan, complete_scores, plan_scores, score_images
from iqray.shards import PoolSize
from iqray.study import Study


def request_scorers(study: Study) -> WorkerRequest:
    """Actors that score."""
    settings = study.scoring
    return WorkerRequest("scoring", settings.num_actors, settings.num_cpus, settings.num_gpus)


def make_scores(run: Run) -> None:
    """Score every training image with every metric."""
    plans = plan_study_scores(run)
    settings = run.study.scoring
    with show_stage("scores", sum(plan.num_images for plan in plans), "scores") as line:
        line.skip(sum(plan.num_finished for plan in plans))
        if any(plan.missing for plan in plans):
            num_actors = fit_count(request_scorers(run.study), run.cluster.connect())
            pool = PoolSize(num_actors, settings.num_cpus, settings.num_gpus)
            for group in _group_by_pool(plans, settings.pools):
                score_images(run.storage, group, pool, line)
        for plan in plan_study_scores(run):
            complete_scores(run.storage, plan, settings.max_failed_share)
        run.record_seconds(line)


def plan_study_scores(run: Run) -> list[ScorePlan]:
    """Score plans of every dataset and metric of the study."""
    jobs = [
        ScoreJob(
            dataset=dataset.name,
            source=run.open_images(dataset),
            metric=metric,
            weights=run.weights[metric],
            small_images=run.study.scoring.small_images,
        )
        for dataset in run.study.datasets
        for metric in run.study.metrics
    ]
    return plan_scores(run.storage, jobs, run.shards)


def _group_by_pool(plans: Sequence[ScorePlan], pools: str) -> Iterator[list[ScorePlan]]:
    """Plans whose metrics share a pool; pools run one after another."""
    unfinished = [plan for plan in plans if plan.missing]
    if pools == "shared":
        yield unfinished
        return
    for metric in sorted({plan.job.metric for plan in unfinished}):
        yield [plan for plan in unfinished if plan.job.metric == metric]
