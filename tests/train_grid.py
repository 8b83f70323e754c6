"""A process that trains a small grid and can be killed: `python -m tests.train_grid <json>`."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from iqray.cluster import WORKER_ENVIRONMENT
from iqray.grid import GridResources, run_trials
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.sources import ImageSource
from iqray.training.trial_runner import list_finished
from iqray.trials import Trial
from tests.small_trials import make_runner, make_trial


def make_trials(num_steps: list[int]) -> list[Trial]:
    return [make_trial(seed, num_steps=steps) for seed, steps in enumerate(num_steps)]


def main(images: str, output: str, num_steps: list[int], **settings: Any) -> None:
    import ray

    where = {"address": settings["address"]}
    if settings["address"] is None:
        where = {"address": "local", "num_cpus": 2, "num_gpus": 0}
    ray.init(
        **where,
        log_to_driver=False,
        runtime_env={"env_vars": {**WORKER_ENVIRONMENT, "PYTHONPATH": os.getcwd()}},  # noqa: PTH109
    )
    trials = {trial.trial_id: trial for trial in make_trials(num_steps)}
    runner = make_runner(Path(images), Path(output), checkpoint_s=settings["checkpoint_s"])
    # Maybe another copy of the images than the one that the manifest was made of.
    source = ImageSource(ImageRoot(settings["packed_from"]))
    runner = dataclasses.replace(runner, sources={"d": source})
    finished = list_finished(runner.storage, trials)
    missing = [trial for trial_id, trial in trials.items() if trial_id not in finished]
    resources = GridResources(settings["num_concurrent"], engine=settings["engine"], max_retries=3)
    run_trials(missing, runner, resources, "killed", lambda _: None)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
