"""Stage `results`: from finished trials to cells and rank tables."""

from dataclasses import asdict

import pandas as pd

from iqray import schemas
from iqray.identity import hash_content
from iqray.progress import show_stage
from iqray.ranks import count_ranks
from iqray.results import build_cells, summarise
from iqray.run import Run
from iqray.stages.study_record import record_study
from iqray.stages.trials import plan_grid
from iqray.tables import write_with_csv
from iqray.trial_runner import read_results

CELLS_PATH = "results/cells.parquet"
RANK_COUNTS_PATH = "results/rank_counts.parquet"
REPORT_PATH = "report/index.html"


def make_results(run: Run) -> None:
    """Join every cell with its trial's result, and rank the subsets."""
    cells, trials = plan_grid(run)
    record_study(run)
    results = read_results(run.storage, trials)
    weights = {metric: found.provenance for metric, found in run.weights.items()}
    key = hash_content([[asdict(cell) for cell in cells], results, weights])
    with show_stage("results", len(cells), "cells") as line:
        if run.storage.read_key(CELLS_PATH) == key:
            line.skip(len(cells))
            return
        table = build_cells([asdict(cell) for cell in cells], results, weights)
        write_with_csv(run.storage, RANK_COUNTS_PATH, count_ranks(table), schemas.RANK_COUNTS, key)
        write_with_csv(run.storage, CELLS_PATH, table, schemas.CELLS, key)
        line(len(cells))
        run.record_seconds(line)


def summarise_run(run: Run) -> str:
    """The few lines that end a run: who ranks first, and where the report is."""
    text = summarise(read_frame(run, CELLS_PATH))
    recipe = run.study.recipe
    if recipe.is_preview:
        text += f"\nrecipe '{recipe.name}' is a preview: no finding, only a look at the machinery"
    return f"\n{text}\n\nreport: {run.storage.describe(REPORT_PATH)}"


def count_lost_cells(run: Run) -> int:
    """Cells without a result: trials that failed or never ran."""
    return int(read_frame(run, CELLS_PATH)["status"].isin(["failed", "missing"]).sum())


def read_frame(run: Run, path: str) -> pd.DataFrame:
    """A finished table as pandas has it."""
    return run.storage.read_table(path).to_pandas()
