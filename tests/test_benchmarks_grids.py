"""The benchmarks of training start from the same things on both sides; speed is never tested."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision

from iqray.architectures import create_model
from iqray.benchmarks import grids, torchvision_script
from iqray.benchmarks.harness import Fidelity
from iqray.benchmarks.inputs import generate_images
from iqray.benchmarks.steps import build_step_benchmark
from iqray.recipes import RECIPES
from iqray.study_file import parse_study
from jobs import benchmark as benchmark_job


def test_the_jobs_names_are_those_of_the_benchmarks() -> None:
    assert tuple(grids.GRID_TARGETS) == benchmark_job.GRID_NAMES


def test_both_loops_give_the_same_losses() -> None:
    benchmark = build_step_benchmark(generate_images(16))
    ours, theirs = benchmark.run_ours(), benchmark.run_peer()
    assert len(ours) == 2
    judged = benchmark.compare(ours, theirs)
    assert judged.is_kept, judged.words
    assert not benchmark.compare([loss * 1.01 for loss in ours], theirs).is_kept


@pytest.fixture
def trial(tmp_path: Path) -> SimpleNamespace:
    """A trial of the benchmarked grid, as far as a script's plan needs one."""
    recipe = grids._describe_recipe(epochs=1, steps=None)
    study = parse_study(
        {
            "name": "s",
            "root": str(tmp_path),
            "datasets": [{"name": "d", "root": str(tmp_path)}],
            "architectures": ["alexnet"],
            "recipe": recipe,
            "weights": {"directory": "w"},
        }
    )
    return SimpleNamespace(recipe=study.recipe, architecture="alexnet", seed=1, num_steps=4)


def test_a_script_trains_the_planned_batches(trial: SimpleNamespace, tmp_path: Path) -> None:
    for number, data in enumerate(generate_images(24)):
        folder = tmp_path / "train" / f"c{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}.jpg").write_bytes(data)
    plan = grids._plan_batches(trial, tmp_path / "train", num_workers=0)
    assert plan["indices"][0].shape == (16,)
    assert plan["last_epoch"] == 3  # of four steps, the last begins at image 48, twice through 24
    np.savez(tmp_path / "plan.npz", **plan)
    files = [str(tmp_path / name) for name in ("plan.npz", "train", "train", "result.json")]
    torchvision_script.main(*files)
    dataset = torchvision_script.PlannedCrops(str(tmp_path / "train"), plan["input_px"])
    model = create_model("alexnet", 3, plan["input_px"], trial.seed)
    torch.manual_seed(trial.seed)
    drawn = torchvision.models.alexnet(num_classes=3)
    assert all(map(torch.equal, model.state_dict().values(), drawn.state_dict().values()))
    assert len(dataset.classes) == 3
    assert (tmp_path / "result.json").exists()


def test_losses_apart_or_slow_trials_are_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"a": {"final_loss": 1.0}, "b": {"final_loss": 2.0}}

    def finish(seconds: float, loss: float = 2.0) -> grids.Results:
        return {
            "a": {"final_loss": 1.0, "finished_s": 10.0},
            "b": {"final_loss": loss, "finished_s": 10.0 + seconds},
        }

    def judge(ours: grids.Results, alone: grids.Results) -> Fidelity:
        monkeypatch.setattr(grids, "_run_grid", lambda *_, **__: alone)
        return grids._compare_trials(SimpleNamespace(), ours, theirs)

    assert judge(finish(0.4), finish(5)).is_kept
    assert not judge(finish(0.6), finish(5)).is_kept
    assert not judge(finish(0.4, loss=2.01), finish(5, loss=2.01)).is_kept
    assert "OTHER numbers" in judge(finish(0.4), finish(0.4, loss=2.0001)).words
    assert RECIPES["paper"].momentum == torchvision_script.MOMENTUM
    assert RECIPES["paper"].weight_decay == torchvision_script.WEIGHT_DECAY
