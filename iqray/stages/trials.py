"""Stage `trials`: train and test every distinct trial of the grid and of the controls."""

import logging
import sys

from iqray.errors import StudyError
from iqray.grid import EndedTrial, GridResources, run_trials
from iqray.grid_meters import GridMeters
from iqray.packs.plan import check_packs_fit
from iqray.progress import show_stage
from iqray.resources import WorkerRequest, fit_count
from iqray.run import Run, get_versions
from iqray.stages.controls import plan_study_controls
from iqray.stages.subsets import SUBSETS_PATH, make_subsets_key
from iqray.study import Study
from iqray.training.provenance import describe_code
from iqray.training.trial_runner import TrialRunner, forget_tries, list_finished
from iqray.trials import Cell, Trial, plan_trials

logger = logging.getLogger(__name__)


def plan_grid(run: Run) -> tuple[list[Cell], dict[str, Trial]]:
    """All cells of the grid and the distinct trials they need."""
    run.require(SUBSETS_PATH, "subsets")
    if run.storage.read_key(SUBSETS_PATH) != make_subsets_key(run):
        raise StudyError(
            f"'{run.storage.describe(SUBSETS_PATH)}' is of other scores or subset rules than the "
            "study's; run --only subsets first, or all stages without --only"
        )
    subsets = run.storage.read_table(SUBSETS_PATH)
    return plan_trials(run.study, subsets, run.manifests, get_versions())


def request_trainers(study: Study) -> list[WorkerRequest]:
    """Processes that train, for each number of GPUs that an architecture's trials take.

    Each request is for the whole cluster. One trial of every kind must fit, and as many of the
    smallest as the study wants at once. The drivers of engine ray_train reserve nothing.
    """
    settings = study.training
    wanted = settings.num_concurrent
    shares = sorted({settings.get_num_gpus(name) for name in study.architectures})
    return [
        WorkerRequest(
            "training",
            settings.num_cpus,
            share,
            min_workers=settings.num_workers * (wanted or 1 if share == shares[0] else 1),
            max_workers=None if wanted is None else wanted * settings.num_workers,
        )
        for share in shares
    ]


def train_grid(run: Run) -> None:
    """Train and test every trial that has no result."""
    cells, trials = _plan_all(run)
    settings = run.study.training
    finished = list_finished(run.storage, trials)
    with show_stage("trials", len(trials), "trials") as line:
        line.skip(len(finished))
        missing = [trial for trial_id, trial in trials.items() if trial_id not in finished]
        if not missing:
            return
        if settings.pack_cache_gib is not None:
            check_packs_fit(missing, run.manifests, settings.pack_cache_gib)
        for trial_id in finished:  # of processes that ended right after the result was written
            forget_tries(run.storage, trial_id)
        resources = GridResources(
            num_concurrent=_count_concurrent(run),
            num_cpus=settings.num_cpus,
            num_gpus={name: settings.get_num_gpus(name) for name in run.study.architectures},
            num_workers=settings.num_workers,
            max_retries=settings.max_retries,
            engine=settings.choose_engine(),
        )
        meters = GridMeters(run.study.name, cells, trials, finished)

        def count(ended: EndedTrial) -> None:
            line(1)
            meters.count(ended)

        run_trials(missing, _make_runner(run), resources, run.study.name, count)
        run.record_seconds(line)
    _warn_of_failures(run, trials)


def count_lost_trials(run: Run) -> int:
    """Trials of the grid and of the controls without a result: that failed, or never ran."""
    _, trials = _plan_all(run)
    return len(trials) - len(list_finished(run.storage, trials))


def _plan_all(run: Run) -> tuple[list[Cell], dict[str, Trial]]:
    """Cells of the grid, and the distinct trials of the grid and of the controls."""
    cells, trials = plan_grid(run)
    return cells, trials | plan_study_controls(run)[2]


def _count_concurrent(run: Run) -> int:
    """Trials at once: as many as fit of those that need the least; larger ones wait for room."""
    has = run.cluster.connect()
    return max(fit_count(request, has) for request in request_trainers(run.study)) // (
        run.study.training.num_workers
    )


def _make_runner(run: Run) -> TrialRunner:
    return TrialRunner(
        storage=run.storage,
        manifests=run.manifests,
        sources={dataset.name: run.open_images(dataset) for dataset in run.study.datasets},
        save_models=run.study.training.save_models,
        num_threads=max(1, int(run.study.training.num_cpus)),
        pack_cache_gib=run.study.training.pack_cache_gib,
        device="cuda" if run.study.training.uses_gpus else "cpu",
        checkpoint_s=run.study.training.checkpoint_s,
        code=describe_code(),
    )


def _warn_of_failures(run: Run, trials: dict[str, Trial]) -> None:
    finished = list_finished(run.storage, trials)
    failed = [trial_id for trial_id in trials if trial_id not in finished]
    if failed:
        logger.warning("%d trials failed: %s", len(failed), ", ".join(failed))
        sys.stdout.write(
            f"             {len(failed)} trials failed, such as {failed[0]}; their errors are in "
            "trials/<trial_id>/failure.json, and the same command tries them again\n"
        )
