"""Say what a run would do, without starting anything."""

from collections.abc import Iterator

from iqray.errors import StudyError
from iqray.inputs.manifest import is_manifest_current, make_manifest_key
from iqray.run import Run
from iqray.stages.controls import plan_study_controls
from iqray.stages.demo import list_missing_weights
from iqray.stages.scores import plan_study_scores
from iqray.stages.trials import plan_grid
from iqray.training.trial_runner import list_finished


def describe_plan(run: Run) -> str:
    """Cells, distinct trials and what is already done, one line each."""
    return "\n".join(_describe(run))


def _describe(run: Run) -> Iterator[str]:
    study = run.study
    num_cells = study.num_cells * len(study.seeds)
    yield (
        f"study '{study.name}' below {run.storage.describe('')}: {len(study.datasets)} datasets x "
        f"{len(study.architectures)} architectures x {len(study.metrics)} metrics x "
        f"{len(study.subsets.names)} subsets = {study.num_cells:,} cells"
        + (f", x {len(study.seeds)} seeds = {num_cells:,}" if len(study.seeds) > 1 else "")
    )
    generated = [dataset for dataset in study.datasets if dataset.demo]
    missing = [dataset for dataset in generated if not run.open_images(dataset).root.is_folder("")]
    if generated:
        yield f"demo images  {len(generated) - len(missing)} of {len(generated)} datasets there"
    if missing:
        yield f"trials       known when the subsets of {num_cells:,} cells are chosen"
        return
    yield from _describe_tables(run, num_cells)


def _describe_tables(run: Run, num_cells: int) -> Iterator[str]:
    num_images = sum(listing.num_rows for listing in run.listings.values())
    current = [
        dataset.name
        for dataset in run.study.all_datasets
        if is_manifest_current(
            run.storage,
            dataset.name,
            make_manifest_key(run.open_images(dataset), run.listings[dataset.name]),
        )
    ]
    num_known = sum(run.listings[name].num_rows for name in current)
    yield f"manifest     {num_known:,} of {num_images:,} images there"
    unknown = f"trials       known when the subsets of {num_cells:,} cells are chosen"
    if len(current) < len(run.study.all_datasets) or list_missing_weights(run):
        yield unknown
        return
    plans = plan_study_scores(run)
    num_scores = sum(plan.num_images for plan in plans)
    num_scored = sum(plan.num_finished for plan in plans)
    yield f"scores       {num_scored:,} of {num_scores:,} there"
    try:
        cells, trials = plan_grid(run)
        _, control_cells, control_trials = plan_study_controls(run)
    except StudyError:  # subsets are missing, or of other scores or rules
        yield unknown
        return
    num_finished = len(list_finished(run.storage, trials))
    yield (
        f"trials       {num_finished:,} of {len(trials):,} there; {len(cells):,} cells need "
        f"{len(trials):,} distinct trials"
    )
    if control_cells:
        added = set(control_trials) - set(trials)
        num_there = len(list_finished(run.storage, added))
        yield (
            f"controls     {num_there:,} of {len(added):,} there; {len(control_cells):,} cells of "
            f"controls add {len(added):,} trials"
        )
    if not run.study.embeddings.is_empty:
        yield "embeddings   known when the trials have run"
