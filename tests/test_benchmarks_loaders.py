"""The loaders' fidelity on real files, and one real run of the job; speed is never tested."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iqray.benchmarks.harness import BenchmarkRow
from iqray.benchmarks.inputs import generate_images
from iqray.benchmarks.loaders import (
    BATCH_SIZE,
    LOADER_GOALS,
    NUM_EPOCHS,
    build_loader_benchmark,
    compare_batches,
)
from iqray.errors import StudyError
from jobs import benchmark as benchmark_job

JOB = Path(__file__).parent.parent / "jobs" / "benchmark.py"


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return generate_images(BATCH_SIZE)


def test_the_jobs_names_are_those_of_the_benchmarks() -> None:
    assert tuple(LOADER_GOALS) == benchmark_job.TRAINING_NAMES


@pytest.mark.parametrize("name", list(LOADER_GOALS))
def test_both_loaders_make_the_same_batches(name: str, images: list[bytes], tmp_path: Path) -> None:
    benchmark = build_loader_benchmark(name, images, tmp_path, 2)
    ours, theirs = benchmark.run_ours(), benchmark.run_peer()
    assert ours == theirs == NUM_EPOCHS * BATCH_SIZE
    judged = benchmark.compare(ours, theirs)
    assert judged.is_kept, judged.words
    assert f"{NUM_EPOCHS * BATCH_SIZE} images, same boxes" in judged.words


def test_batches_differ_by_levels_or_by_targets() -> None:
    images, targets = torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])
    level = 1 / 255 / torch.tensor([0.229, 0.224, 0.225])

    def shift(channel: int, levels: float) -> torch.Tensor:
        shifted = images.clone()
        shifted[1, channel, 3, 4] -= levels * level[channel]
        return shifted

    for channel in range(3):
        near, far = shift(channel, 0.99), shift(channel, 1.01)
        assert compare_batches([(near, targets)], [(images, targets)]).is_kept
        assert not compare_batches([(far, targets)], [(images, targets)]).is_kept
    assert not compare_batches([(images, targets.flip(0))], [(images, targets)]).is_kept


def test_fewer_images_than_a_batch_are_refused(images: list[bytes], tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="31 images are less than a batch of 32"):
        build_loader_benchmark("loader", images[1:], tmp_path, 1)


def test_the_job_runs_the_users_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(BATCH_SIZE):
        pixels = rng.integers(0, 256, (240, 250 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    file = tmp_path / "rows.json"
    done = subprocess.run(
        [
            *(sys.executable, str(JOB), "training", "--only", "loader_crop"),
            *("--images", str(tmp_path / "photos"), "--json", str(file)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    [row] = [BenchmarkRow(**entry) for entry in json.loads(file.read_text())]
    assert row.name == "loader_crop"
    assert "DataLoader with 2 workers" in row.peer
    assert "0.000 levels apart" in row.fidelity
    assert row.peer_s > 0
    assert row.ours_s > 0
    # How fast it was decides the exit code, and is not tested.
    assert done.returncode == (0 if row.holds else 1)
