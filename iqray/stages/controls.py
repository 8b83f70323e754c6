"""The controls of a study: which they are, and where real subsets stand beside them.

Called by the stages `trials` and `results`; a study without controls has nothing here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from iqray import schemas
from iqray.categories.image_halves import split_halves
from iqray.control_trials import (
    ControlCell,
    PlannedControls,
    plan_controls,
    plan_halves,
    plan_untrained,
)
from iqray.metrics.registry import find_metric
from iqray.results.difficulty import read_difficulty
from iqray.run import Run, get_versions
from iqray.scoring.plans import read_scores
from iqray.stages.subsets import SUBSETS_PATH
from iqray.study import Study
from iqray.tables import write_with_csv
from iqray.trials import Trial, TrialPlanner
from iqray.usable_images import count_images, select_usable

CONTROL_SUBSETS_PATH = "results/control_subsets.parquet"
CONTROL_CELLS_PATH = "results/control_cells.parquet"
CONTROLS_PATH = "results/controls.parquet"


def plan_study_controls(run: Run) -> tuple[pa.Table, list[ControlCell], dict[str, Trial]]:
    """Control subsets (`schemas.CONTROL_SUBSETS`), their cells and distinct trials.

    Raises:
        StudyError: too few categories to draw from, one without a difficulty, or one with too few
            images for halves.
    """
    study = run.study
    tables = [schemas.CONTROL_SUBSETS.empty_table()]
    cells: list[ControlCell] = []
    trials: dict[str, Trial] = {}
    for dataset in () if study.controls.is_empty else study.datasets:
        manifest = run.manifests[dataset.name]
        subsets = run.storage.read_table(SUBSETS_PATH)
        planner = TrialPlanner(study, dataset.name, subsets, manifest, get_versions())
        table = _draw_controls(study, dataset.name, planner, subsets, manifest)
        tables.append(table)
        for own_cells, own_trials in _plan_dataset(run, dataset.name, planner, table):
            cells += own_cells
            trials |= own_trials
    return pa.concat_tables(tables), cells, trials


def _plan_dataset(
    run: Run, dataset: str, planner: TrialPlanner, control_subsets: pa.Table
) -> Iterator[PlannedControls]:
    controls = run.study.controls
    yield plan_controls(run.study, planner, control_subsets)
    if controls.image_halves:
        yield plan_halves(run.study, planner, _split_images(run, dataset, planner))
    if controls.untrained:
        yield plan_untrained(run.study, planner)


def _split_images(run: Run, dataset: str, planner: TrialPlanner) -> dict[str, dict[str, pa.Table]]:
    """Best and worst halves by metric, of the categories that any of its subsets has."""
    halves = {}
    for metric in run.study.metrics:
        chosen = {name for key, own in planner.chosen.items() if key[0] == metric for name in own}
        columns = ["dataset", "metric", "image_id", "category", "score", "status"]
        scores = read_scores(run.storage, dataset, metric, columns)
        is_own = pc.is_in(scores["category"], value_set=pa.array(sorted(chosen), pa.string()))
        has_score = pc.equal(scores["status"], "ok")
        known = scores.filter(pc.and_(is_own, has_score)).to_pandas()
        halves[metric] = split_halves(known, find_metric(metric).lower_better)
    return halves


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
    """Write the control subsets, results of all controls, and how real subsets stand to them."""
    from iqray.results.controls import compare_cells, place_cells

    control_subsets, control_cells = planned
    if not control_cells:
        return
    rows = [
        {**asdict(cell), **_get_result(results.get(cell.trial_id), cell.trial_id)}
        for cell in control_cells
    ]
    table = pd.DataFrame(rows, columns=schemas.CONTROL_CELLS.names)
    table = table.astype(dict.fromkeys(("top1", "top5", "distance"), "float64"))
    parts = [place_cells(cells, table), compare_cells(cells, table)]
    placed = pd.concat([part for part in parts if len(part)])
    for path, frame, schema in (
        (CONTROL_SUBSETS_PATH, control_subsets.to_pandas(), schemas.CONTROL_SUBSETS),
        (CONTROL_CELLS_PATH, table, schemas.CONTROL_CELLS),
        (CONTROLS_PATH, placed, schemas.CONTROLS),
    ):
        write_with_csv(run.storage, path, frame, schema, key)


def _get_result(result: Mapping[str, Any] | None, trial_id: str) -> dict[str, Any]:
    if result is None:
        return {"status": "missing", "reason": f"trial {trial_id} has no result"}
    names = ("status", "reason", "top1", "top5", "distance")
    return {name: result.get(name) for name in names}
