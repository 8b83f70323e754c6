"""Which trainings a study's controls need, and the distinct trials that they share. Pure.

They are trained as the grid is: with its steps, recipe, seeds and matched counts.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from iqray.settings.control import UNTRAINED
from iqray.study import Study
from iqray.trials import Trial, TrialPlanner

# Cells of controls, and their distinct trials by id.
PlannedControls = tuple[list["ControlCell"], dict[str, Trial]]


@dataclass(frozen=True)
class ControlCell:
    """One control with an architecture and a seed, and the trial that fills it."""

    dataset: str
    architecture: str
    control: str
    metric: str | None  # of the real subset that it is for; none for random ones
    subset: str | None
    draw: int  # 1 of what is not drawn
    seed: int
    trial_id: str


def plan_controls(
    study: Study, planner: TrialPlanner, control_subsets: pa.Table
) -> PlannedControls:
    """Plan a dataset's control subsets.

    Args:
        study: with its architectures and seeds.
        planner: of the dataset.
        control_subsets: a table of `schemas.CONTROL_SUBSETS`, of the dataset.
    """
    keys = ("control", "metric", "subset", "draw")
    held: dict[tuple[Any, ...], list[str]] = {}
    for row in control_subsets.select([*keys, "category"]).to_pylist():
        held.setdefault(tuple(row[key] for key in keys), []).append(row["category"])
    return _collect(
        (names, planner.plan(architecture, sorted(categories), seed))
        for names, categories in held.items()
        for architecture, seed in _iterate_models(study)
    )


def plan_halves(
    study: Study, planner: TrialPlanner, halves: Mapping[str, Mapping[str, pa.Table]]
) -> PlannedControls:
    """Plan every real subset of a dataset on the best and on the worst half of its images.

    Args:
        study: with its architectures and seeds.
        planner: of the dataset.
        halves: by metric and half: columns image_id and category of its images.
    """
    choices = (
        ((half, *names, 1), categories, planner.choose_images(categories, own))
        for names, categories in planner.chosen.items()
        for half, own in halves[names[0]].items()
    )
    return _collect(
        (names, planner.plan(architecture, categories, seed, choice))
        for names, categories, choice in choices
        for architecture, seed in _iterate_models(study)
    )


def plan_untrained(study: Study, planner: TrialPlanner) -> PlannedControls:
    """Plan the untrained networks of every real subset of a dataset."""
    return _collect(
        ((UNTRAINED, *names, 1), planner.plan_untrained(architecture, categories, seed))
        for names, categories in planner.chosen.items()
        for architecture, seed in _iterate_models(study)
    )


def _iterate_models(study: Study) -> Iterable[tuple[str, int]]:
    return itertools.product(study.architectures, study.seeds)


def _collect(planned: Iterable[tuple[tuple[Any, ...], Trial]]) -> PlannedControls:
    """Cells and trials from each cell's control, metric, subset and draw, and its trial."""
    cells: list[ControlCell] = []
    trials: dict[str, Trial] = {}
    for (control, metric, subset, draw), trial in planned:
        trials.setdefault(trial.trial_id, trial)
        cells.append(
            ControlCell(
                trial.dataset,
                trial.architecture,
                control,
                metric,
                subset,
                draw,
                trial.seed,
                trial.trial_id,
            )
        )
    return cells, trials
