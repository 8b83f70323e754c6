"""Both engines on a real Ray: what they leave for the same trials."""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from iqray.grid import GridResources, run_trials
from iqray.training.trial_runner import TrialRunner, read_results
from iqray.trials import Trial
from tests.conftest import MakeDataset
from tests.small_trials import make_runner, make_trial
from tests.toy_images import COLOURS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


# Learned in 30 steps, by one process and with batch normalisation over halves of the batches.
LEARNED = {"batch_size": 24, "learning_rate": 0.05}


def train(images: Path, output: Path, trials: list[Trial], **resources: Any) -> dict[str, Any]:
    runner = make_runner(images, output)
    run_trials(trials, runner, GridResources(1, **resources), "test", lambda _: None)
    return read_results(runner.storage, [trial.trial_id for trial in trials])


def read_model(output: Path, trial: Trial) -> dict[str, torch.Tensor]:
    return load_file(output / "trials" / trial.trial_id / "model.safetensors")


def read_log(output: Path, trial: Trial) -> list[dict[str, Any]]:
    lines = (output / "trials" / trial.trial_id / "log.jsonl").read_text().splitlines()
    timed = {"seconds", "images_per_s"}
    return [
        {name: value for name, value in json.loads(line).items() if name not in timed}
        for line in lines
    ]


def test_both_engines_give_the_same_weights(make_dataset: MakeDataset, tmp_path: Path) -> None:
    images, trial = make_dataset(), make_trial(num_steps=4)
    for engine in ("in_trial", "ray_train"):
        results = train(images, tmp_path / engine, [trial], engine=engine)
        assert results[trial.trial_id]["status"] == "ok"
    first, second = (read_model(tmp_path / engine, trial) for engine in ("in_trial", "ray_train"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_log(tmp_path / "in_trial", trial) == read_log(tmp_path / "ray_train", trial)


def write_coloured_images(root: Path) -> Path:
    """Three categories told apart by their colour under noise: learned in a few dozen steps."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 16)):
        for category, colour in zip(("ant", "cat", "dog"), COLOURS, strict=True):
            folder = root / split / category
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(generator.normal(colour, 60, (96, 112, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg")
    return root


@dataclass(frozen=True)
class RecordingRunner(TrialRunner):
    """Notes which process has run each trial; dies with seed 2."""

    def run(self, trial: Trial, *arguments: Any) -> str:
        if trial.seed == 2:
            os._exit(1)
        self.storage.write_json(f"pids/{trial.trial_id}", os.getpid())
        return super().run(trial, *arguments)


def make_recording_runner(images: Path, output: Path) -> RecordingRunner:
    runner = make_runner(images, output)
    return RecordingRunner(**{own.name: getattr(runner, own.name) for own in fields(runner)})


def test_a_trial_is_the_same_alone_and_after_another_in_its_process(
    make_dataset: MakeDataset, tmp_path: Path
) -> None:
    images, trial, longer = make_dataset(), make_trial(), make_trial(seed=1, num_steps=3)
    train(images, tmp_path / "alone", [trial])
    runner = make_recording_runner(images, tmp_path / "after")
    run_trials([trial, longer], runner, GridResources(1), "test", lambda _: None)
    pids = {runner.storage.read_json(f"pids/{own.trial_id}") for own in (trial, longer)}
    assert len(pids) == 1
    alone, after = read_model(tmp_path / "alone", trial), read_model(tmp_path / "after", trial)
    assert all(torch.equal(alone[name], after[name]) for name in alone)


def test_workers_that_die_fail_their_trial_only(make_dataset: MakeDataset, tmp_path: Path) -> None:
    runner = make_recording_runner(make_dataset(), tmp_path / "out")
    dying, other = make_trial(seed=2, num_steps=3), make_trial()
    resources = GridResources(1, engine="ray_train", max_retries=0)
    run_trials([dying, other], runner, resources, "test", lambda _: None)
    results = read_results(runner.storage, [dying.trial_id, other.trial_id])
    assert results[dying.trial_id]["status"] == "failed"
    assert results[dying.trial_id]["reason"].startswith("the trial's workers ended: ")
    assert results[other.trial_id]["status"] == "ok", results[other.trial_id]


def test_two_workers_learn_as_much_as_one(tmp_path: Path) -> None:
    images = write_coloured_images(tmp_path / "images")
    accuracies = []
    for num_workers, engine in ((1, "in_trial"), (2, "ray_train")):
        trial = make_trial(num_steps=30, num_workers=num_workers, **LEARNED)
        output = tmp_path / engine
        results = train(images, output, [trial], engine=engine, num_workers=num_workers)
        assert results[trial.trial_id]["status"] == "ok", results
        assert read_log(output, trial)[-1]["step"] == 30
        accuracies.append(results[trial.trial_id]["top1"])
    alone, together = accuracies
    assert alone > 0.8  # chance is 1/3
    standard_error = (0.25 / 48) ** 0.5
    assert together == pytest.approx(alone, abs=2 * standard_error)
