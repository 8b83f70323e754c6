"""The grid on a real Ray Tune: trials that finish, one that fails, one whose process dies."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iqray.errors import StudyError
from iqray.grid import EndedTrial, GridResources, run_trials
from iqray.recipes import RECIPES
from iqray.stages.trials import request_trainers
from iqray.storage import Storage
from iqray.study_file import parse_study
from iqray.training.trial_runner import TrialRunner, read_results, write_failure
from iqray.trials import Trial


@dataclass(frozen=True)
class ScriptedRunner(TrialRunner):
    """Does with a trial what its seed says; the grid around it is the real one."""

    def run(self, trial: Trial) -> str:
        if trial.seed == 1:
            write_failure(self.storage, trial.trial_id, "planned", "details")
            return "failed"
        if trial.seed == 2:
            os._exit(1)
        result = {"status": "ok", "pid": os.getpid()}
        self.storage.write_json(f"trials/{trial.trial_id}/result.json", result)
        return "ok"


def request(**training: Any) -> list[tuple[float, int, int | None]]:
    """GPUs per worker, smallest and largest number of workers of each request."""
    content = {
        "name": "s",
        "root": "out",
        "datasets": [{"name": "d", "root": "images"}],
        "architectures": ["alexnet", "vgg16"],
        "recipe": "demo",
        "weights": {"directory": "weights"},
        "training": training,
    }
    requests = request_trainers(parse_study(content))
    return [(own.num_gpus, own.min_workers, own.max_workers) for own in requests]


def test_the_cluster_is_asked_for_all_workers_of_the_trials_at_once() -> None:
    assert request() == [(0, 1, None)]
    assert request(num_concurrent=3) == [(0, 3, 3)]
    assert request(num_concurrent=3, num_workers=2) == [(0, 6, 6)]
    assert request(num_workers=4, num_gpus=1) == [(1, 4, None)]


def test_each_share_of_a_gpu_is_asked_for() -> None:
    shares = {"alexnet": 0.25, "vgg16": 1}
    assert request(num_gpus=shares) == [(0.25, 1, None), (1, 1, None)]
    assert request(num_gpus=shares, num_concurrent=4) == [(0.25, 4, 4), (1, 1, 4)]


def test_tune_holds_a_trials_resources_only_where_it_trains_itself() -> None:
    trial = Trial("d", "alexnet", ("a", "b"), "images", 4, 2, 1, 1, 0, RECIPES["demo"], {})
    gpus = {"alexnet": 0.25}
    own = GridResources(1, num_cpus=2, num_gpus=gpus)
    assert own.reserve_for_tune(trial) == {"CPU": 2, "GPU": 0.25}
    driven = GridResources(1, num_cpus=2, num_gpus=gpus, engine="ray_train")
    assert "CPU" not in driven.reserve_for_tune(trial)


@pytest.mark.usefixtures("local_ray")
def test_neither_a_failure_nor_a_dead_process_stops_the_others(tmp_path: Path) -> None:
    trials = [
        Trial("d", "resnet50", ("a", "b"), "images", 4, 2, 1, 1, seed, RECIPES["demo"], {})
        for seed in range(5)
    ]
    storage = Storage(str(tmp_path))
    runner = ScriptedRunner(storage, {}, {}, save_models=False)
    ended: list[EndedTrial] = []

    run_trials(trials, runner, GridResources(1, max_retries=1), "test", ended.append)

    results = read_results(storage, [trial.trial_id for trial in trials])
    statuses = [results[trial.trial_id]["status"] for trial in trials]
    assert statuses == ["ok", "failed", "failed", "ok", "ok"]
    assert results[trials[1].trial_id]["reason"] == "planned"
    assert "process ended" in results[trials[2].trial_id]["reason"]
    assert {trial.trial_id: trial.status for trial in ended} == {
        trial.trial_id: status for trial, status in zip(trials, statuses, strict=True)
    }
    assert [trial.seconds is None for trial in ended].count(True) == 1  # the dead process
    assert all(trial.seconds > 0 for trial in ended if trial.seconds is not None)


@pytest.mark.usefixtures("local_ray")
def test_a_root_that_refuses_stops_all_trials_with_one_error(tmp_path: Path) -> None:
    trials = [
        Trial("d", "resnet50", ("a", "b"), "images", 4, 2, 1, 1, seed, RECIPES["demo"], {})
        for seed in (0, 3, 4)
    ]
    (tmp_path / "trials").write_text("in the way of the folder")
    runner = ScriptedRunner(Storage(str(tmp_path)), {}, {}, save_models=False)
    ended: list[EndedTrial] = []
    with pytest.raises(StudyError, match=r"result.json' cannot be written"):
        run_trials(trials, runner, GridResources(1, max_retries=1), "test", ended.append)
    assert len(ended) <= 1
