"""The controls of a study: which subsets they are, and where real subsets stand among them.

Called by the stages `trials` and `results`; a study without controls has nothing here.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
import pyarrow as pa

from iqray import schemas
from iqray.results.difficulty import read_difficulty
from iqray.run import Run, get_versions
from iqray.stages.subsets import SUBSETS_PATH
from iqray.study import Study
from iqray.tables import write_with_csv
from iqray.trials import (
    ControlCell,
    Trial,
    TrialPlanner,
    count_images,
    plan_controls,
    select_usable,
)

CONTROL_SUBSETS_PATH = "results/control_subsets.parquet"
CONTROL_CELLS_PATH = "results/control_cells.parquet"
CONTROLS_PATH = "results/controls.parquet"


def plan_study_controls(run: Run) -> tuple[pa.Table, list[ControlCell], dict[str, Trial]]:
    """Control subsets (`schemas.CONTROL_SUBSETS`), their cells and distinct trials.

    Raises:
        StudyError: too few categories to draw from, or one without a difficulty.
    """
    study = run.study
    tables = [schemas.CONTROL_SUBSETS.empty_table()]
    cells: list[ControlCell] = []
    trials: dict[str, Trial] = {}
    for dataset in study.datasets if study.controls.num_draws else ():
        manifest = run.manifests[dataset.name]
        subsets = run.storage.read_table(SUBSETS_PATH)
        planner = TrialPlanner(study, dataset.name, subsets, manifest, get_versions())
        table = _draw_controls(study, dataset.name, planner, subsets, manifest)
        own_cells, own_trials = plan_controls(study, planner, table)
        tables.append(table)
        cells += own_cells
        trials |= own_trials
    return pa.concat_tables(tables), cells, trials


def _draw_controls(
    study: Study, dataset: str, planner: TrialPlanner, subsets: pa.Table, manifest: pa.Table
) -> pa.Table:
    from iqray.results.controls import choose_controls

    counts = count_images(select_usable(manifest, ["split", "category"]))
    # A category with fewer test images would change the matched count, and with it the grid.
    eligible = {
        category: count
        for (split, category), count in counts.items()
        if split == "train" and counts["test", category] >= planner.num_matched
    }
    frame = subsets.to_pandas()
    difficulty: Mapping[str, float] = {}
    if study.controls.difficulty is not None:
        # A real subset's categories need one as well.
        named = {*eligible, *frame.loc[frame["dataset"] == dataset, "category"]}
        difficulty = read_difficulty(study.controls.difficulty, dataset, named)
    chosen = choose_controls(
        frame[frame["dataset"] == dataset], eligible, study.controls.num_draws, difficulty
    )
    table = pa.Table.from_pandas(chosen, schema=schemas.CONTROL_SUBSETS, preserve_index=False)
    return table.replace_schema_metadata()


def write_controls(
    run: Run,
    planned: tuple[pa.Table, list[ControlCell]],
    results: Mapping[str, Mapping[str, Any]],
    cells: pd.DataFrame,
    key: str,
) -> None:
    """Write the control subsets, their results, and the places of the real subsets among them."""
    from iqray.results.controls import place_cells

    control_subsets, control_cells = planned
    if not control_cells:
        return
    rows = [
        {**asdict(cell), **_get_result(results.get(cell.trial_id), cell.trial_id)}
        for cell in control_cells
    ]
    table = pd.DataFrame(rows, columns=schemas.CONTROL_CELLS.names)
    table = table.astype(dict.fromkeys(("top1", "top5", "distance"), "float64"))
    for path, frame, schema in (
        (CONTROL_SUBSETS_PATH, control_subsets.to_pandas(), schemas.CONTROL_SUBSETS),
        (CONTROL_CELLS_PATH, table, schemas.CONTROL_CELLS),
        (CONTROLS_PATH, place_cells(cells, table), schemas.CONTROLS),
    ):
        write_with_csv(run.storage, path, frame, schema, key)


def _get_result(result: Mapping[str, Any] | None, trial_id: str) -> dict[str, Any]:
    if result is None:
        return {"status": "missing", "reason": f"trial {trial_id} has no result"}
    names = ("status", "reason", "top1", "top5", "distance")
    return {name: result.get(name) for name in names}
