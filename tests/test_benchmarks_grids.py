"""The benchmarks of training compare equal trainings; speed is never tested."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from iqray.benchmarks import torchvision_script
from iqray.benchmarks.grids import (
    GRID_TARGETS,
    Results,
    describe_recipe,
    judge_trials,
    plan_batches,
)
from iqray.benchmarks.inputs import generate_images
from iqray.benchmarks.steps import build_step_benchmark
from iqray.recipes import RECIPES
from iqray.study_file import parse_study
from iqray.trials import Trial
from jobs import benchmark as benchmark_job
from tests.conftest import MakeDataset
from tests.small_trials import make_runner, make_trial

CATEGORIES = ("ant", "bee", "cat", "dog")


def test_the_jobs_names_are_those_of_the_benchmarks() -> None:
    assert tuple(GRID_TARGETS) == benchmark_job.GRID_NAMES


def test_both_loops_give_the_same_losses() -> None:
    benchmark = build_step_benchmark(generate_images(16))
    ours, theirs = benchmark.run_ours(), benchmark.run_peer()
    assert len(ours) == 2
    judged = benchmark.compare(ours, theirs)
    assert judged.is_kept, judged.words
    assert not benchmark.compare([loss * 1.01 for loss in ours], theirs).is_kept


def make_benchmark_trial(folder: Path, num_steps: int) -> Trial:
    """A trial of the benchmarked grid's recipe on the categories of `make_dataset`."""
    study = parse_study(
        {
            "name": "s",
            "root": str(folder),
            "datasets": [{"name": "d", "root": str(folder)}],
            "architectures": ["alexnet"],
            "recipe": describe_recipe(epochs=1, steps=None),
            "weights": {"directory": "w"},
        }
    )
    trial = make_trial(seed=1, categories=CATEGORIES, num_steps=num_steps)
    return dataclasses.replace(trial, architecture="alexnet", recipe=study.recipe)


def test_a_script_ends_with_the_loss_of_iqrays_trial(
    make_dataset: MakeDataset, tmp_path: Path
) -> None:
    images = make_dataset(categories=CATEGORIES, num_train=6)
    trial = make_benchmark_trial(tmp_path, num_steps=4)
    plan = plan_batches(trial, images / "train", num_workers=0)
    assert plan["last_epoch"] == 3  # of four steps of 16, the last begins twice through 24 images
    np.savez(tmp_path / "plan.npz", **plan)
    files = (tmp_path / "plan.npz", images / "train", images / "val", tmp_path / "result.json")
    torchvision_script.main(*map(str, files))
    theirs = json.loads((tmp_path / "result.json").read_text())

    runner = make_runner(images, tmp_path / "out")
    assert runner.run(trial) == "ok"
    ours = runner.storage.read_json(f"trials/{trial.trial_id}/result.json")
    assert ours["final_loss"] == pytest.approx(theirs["final_loss"], rel=1e-4)
    assert 0 <= theirs["top1"] <= 1

    other = plan_batches(dataclasses.replace(trial, seed=2), images / "train", num_workers=0)
    np.savez(tmp_path / "plan.npz", **other)
    torchvision_script.main(*map(str, files))
    another = json.loads((tmp_path / "result.json").read_text())
    assert another["final_loss"] != pytest.approx(theirs["final_loss"], rel=1e-4)


def finish(seconds: float, loss: float = 2.0) -> Results:
    return {
        "a": {"final_loss": 1.0, "finished_s": 10.0},
        "b": {"final_loss": loss, "finished_s": 10.0 + seconds},
    }


def test_losses_apart_or_slow_trials_are_no_success() -> None:
    theirs = {"a": {"final_loss": 1.0}, "b": {"final_loss": 2.0}}
    assert judge_trials(finish(0.4), theirs, finish(5)).is_kept
    assert not judge_trials(finish(0.6), theirs, finish(5)).is_kept
    assert not judge_trials(finish(0.4, loss=2.01), theirs, finish(5, loss=2.01)).is_kept
    moved = judge_trials(finish(0.4), theirs, finish(0.4, loss=2.0001))
    assert not moved.is_kept
    assert "OTHER numbers" in moved.words


def test_the_script_has_the_papers_optimizer() -> None:
    assert RECIPES["paper"].momentum == torchvision_script.MOMENTUM
    assert RECIPES["paper"].weight_decay == torchvision_script.WEIGHT_DECAY
