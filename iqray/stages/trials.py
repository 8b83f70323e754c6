"""Stage `trials`: train and test every distinct trial of the grid."""

import logging
import sys

from iqray.errors import StudyError
from iqray.grid import GridResources, run_trials
from iqray.pack_plan import check_packs_fit
from iqray.progress import show_stage
from iqray.resources import WorkerRequest, fit_count
from iqray.run import Run, get_versions
from iqray.stages.subsets import SUBSETS_PATH, make_subsets_key
from iqray.study import Study
from iqray.trial_runner import TrialRunner, list_finished
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


def request_trainers(study: Study) -> WorkerRequest:
    """Processes that train, one trial each at a time."""
    settings = study.training
    return WorkerRequest(
        "training",
        settings.num_cpus,
        settings.num_gpus,
        min_workers=settings.num_concurrent or 1,
        max_workers=settings.num_concurrent,
    )


def train_grid(run: Run) -> None:
    """Train and test every trial that has no result."""
    _, trials = plan_grid(run)
    settings = run.study.training
    finished = list_finished(run.storage, trials)
    with show_stage("trials", len(trials), "trials") as line:
        line.skip(len(finished))
        missing = [trial for trial_id, trial in trials.items() if trial_id not in finished]
        if not missing:
            return
        if settings.pack_cache_gib is not None:
            check_packs_fit(missing, run.manifests, settings.pack_cache_gib)
        num_concurrent = fit_count(request_trainers(run.study), run.cluster.connect())
        resources = GridResources(
            num_concurrent, settings.num_cpus, settings.num_gpus, settings.max_retries
        )
        run_trials(missing, _make_runner(run), resources, run.study.name, line)
        run.record_seconds(line)
    _warn_of_failures(run, trials)


def _make_runner(run: Run) -> TrialRunner:
    return TrialRunner(
        storage=run.storage,
        manifests=run.manifests,
        sources={dataset.name: run.open_images(dataset) for dataset in run.study.datasets},
        save_models=run.study.training.save_models,
        num_threads=max(1, int(run.study.training.num_cpus)),
        pack_cache_gib=run.study.training.pack_cache_gib,
        device="cuda" if run.study.training.num_gpus else "cpu",
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
