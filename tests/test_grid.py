"""The grid on a real Ray Tune: trials that finish, one that fails, one whose process dies."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from iqray.grid import GridResources, run_trials
from iqray.recipes import RECIPES
from iqray.storage import Storage
from iqray.trial_runner import TrialRunner, read_results, write_failure
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


@pytest.mark.usefixtures("local_ray")
def test_neither_a_failure_nor_a_dead_process_stops_the_others(tmp_path: Path) -> None:
    trials = [
        Trial("d", "resnet50", ("a", "b"), "images", 4, 2, 1, 1, seed, RECIPES["demo"], {})
        for seed in range(5)
    ]
    storage = Storage(str(tmp_path))
    runner = ScriptedRunner(storage, {}, {}, save_models=False)
    counts: list[int] = []

    run_trials(trials, runner, GridResources(1, max_retries=1), "test", counts.append)

    results = read_results(storage, [trial.trial_id for trial in trials])
    statuses = [results[trial.trial_id]["status"] for trial in trials]
    assert statuses == ["ok", "failed", "failed", "ok", "ok"]
    assert results[trials[1].trial_id]["reason"] == "planned"
    assert "process ended" in results[trials[2].trial_id]["reason"]
    assert sum(counts) == 5
