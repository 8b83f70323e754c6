"""Stage `results`: from finished trials to cells and rank tables."""

from collections.abc import Mapping
from dataclasses import asdict

import pandas as pd

from iqray import schemas
from iqray.identity import hash_content
from iqray.metrics.registry import find_metric
from iqray.progress import show_stage
from iqray.results.cells import build_cells, summarise
from iqray.results.ranks import count_ranks
from iqray.run import Run
from iqray.stages.controls import CONTROL_CELLS_PATH, plan_study_controls, write_controls
from iqray.stages.study_record import record_study
from iqray.stages.trials import plan_grid
from iqray.tables import write_with_csv
from iqray.training.trial_runner import list_finished, read_results
from iqray.trials import Trial

CELLS_PATH = "results/cells.parquet"
RANK_COUNTS_PATH = "results/rank_counts.parquet"
DISTANCES_PATH = "results/distances.parquet"
CROSS_DISTANCES_PATH = "results/cross_distances.parquet"  # where a study embeds all subsets
RANKS_PATH = "results/ranks.parquet"
DEFINITION_COUNTS_PATH = "results/definition_counts.parquet"
REPORT_PATH = "report/index.html"
REPORT_RECORD_PATH = "report/record.json"  # of which tables the stage has made the page

# Raise when the same trials would give other tables or more of them.
RESULTS_VERSION = 2


def make_results(run: Run) -> None:
    """Join every cell with its trial's result, and rank the subsets by every definition."""
    cells, trials = plan_grid(run)
    record_study(run)
    control_subsets, control_cells, control_trials = plan_study_controls(run)
    trials |= control_trials
    results = read_results(run.storage, trials)
    weights = {metric: found.provenance for metric, found in run.weights.items()}
    planned = [[asdict(cell) for cell in cells], [asdict(cell) for cell in control_cells]]
    key = hash_content([planned, results, weights, RESULTS_VERSION])
    with show_stage("results", len(cells), "cells") as line:
        if run.storage.read_key(CELLS_PATH) == key:
            line.skip(len(cells))
            return
        table = build_cells([asdict(cell) for cell in cells], results, weights)
        finished = list_finished(run.storage, trials)
        _write_ranks(run, table, {name: trials[name] for name in trials if name in finished}, key)
        write_controls(run, (control_subsets, control_cells), results, table, key)
        write_with_csv(run.storage, RANK_COUNTS_PATH, count_ranks(table), schemas.RANK_COUNTS, key)
        write_with_csv(run.storage, CELLS_PATH, table, schemas.CELLS, key)
        line(len(cells))
        run.record_seconds(line)


def _write_ranks(run: Run, cells: pd.DataFrame, finished: Mapping[str, Trial], key: str) -> None:
    # Imported here, as scipy takes a second and a finished study does not need it.
    from iqray.results.rank_tables import build_distances, build_ranks, count_definitions
    from iqray.results.trial_distances import provide_distances

    study = run.study
    distances = build_distances(provide_distances(run.storage, finished))
    lower_better = {metric: find_metric(metric).lower_better for metric in study.metrics}
    ranks = build_ranks(cells, distances, lower_better, study.subsets.orientation)
    for path, table, schema in (
        (DISTANCES_PATH, distances, schemas.DISTANCES),
        (RANKS_PATH, ranks, schemas.RANKS),
        (DEFINITION_COUNTS_PATH, count_definitions(ranks), schemas.DEFINITION_COUNTS),
    ):
        write_with_csv(run.storage, path, table, schema, key)


def summarise_run(run: Run) -> str:
    """The few lines that end a run: who ranks first, and where the report is."""
    text = summarise(read_frame(run, CELLS_PATH))
    recipe = run.study.recipe
    if recipe.is_preview:
        text += f"\nrecipe '{recipe.name}' is a preview: no finding, only a look at the machinery"
    return f"\n{text}\n\nreport: {run.storage.describe(REPORT_PATH)}"


def count_lost_cells(run: Run) -> int:
    """Cells without a result, those of controls included: trials that failed or never ran."""
    tables = [CELLS_PATH]
    if not run.study.controls.is_empty:
        tables.append(CONTROL_CELLS_PATH)
    return sum(
        int(read_frame(run, path)["status"].isin(["failed", "missing"]).sum()) for path in tables
    )


def read_frame(run: Run, path: str) -> pd.DataFrame:
    """A finished table as pandas has it."""
    return run.storage.read_table(path).to_pandas()
