"""A study on a cluster that has no worker when it begins, and none when it has ended."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.autoscaling_head import PROJECT, AutoscalingHead, start_autoscaling_head
from tests.conftest import make_pixels
from tests.small_study import TIMEOUT_S, write_study

pytestmark = pytest.mark.slow

MAX_WORKERS = 2
CATEGORIES = ("ant", "bee", "cat", "dog")
NUM_TRAIN = 48


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that the node which comes first has not scored all when the other is there."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    for split, count in (("train", NUM_TRAIN), ("val", 1)):
        for category in CATEGORIES:
            (folder / split / category).mkdir(parents=True)
            for number in range(count):
                path = folder / split / category / f"{number}.jpg"
                Image.fromarray(make_pixels(rng, 900, 700)).save(path, quality=92)
    return folder


def run_study(head: AutoscalingHead, study: Path, cache: Path) -> int:
    """Run a study as on the head; gives the largest number of workers that were there at once."""
    process = subprocess.Popen(
        [
            *(sys.executable, str(PROJECT / "jobs/full_grid.py")),
            *("--study", str(study), "--address", head.address),
        ],
        env=os.environ
        | {"HOME": str(head.home), "IQRAY_CACHE": str(cache)}
        # Ray Data asks for nodes every 10 seconds otherwise.
        | {"RAY_DATA_MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    most = 0
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        most = max(most, head.count_workers())
        time.sleep(0.2)
    process.kill()
    text, _ = process.communicate()
    assert process.returncode == 0, text
    return most


def wait_until_none_is_left(head: AutoscalingHead) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while head.count_workers() or any((head.home / "workers").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_workers_come_for_a_study_and_go_when_it_has_ended(
    inputs: Path, images: Path, tmp_path: Path
) -> None:
    study = write_study(
        inputs,
        tmp_path / "out",
        datasets=[{"name": "d", "root": str(images)}],
        # Both at once: a pool that asks for its second actor when the first is busy may be done
        # before a machine under load has started another node.
        scoring={"shard_size": 1, "min_actors": MAX_WORKERS},
    )
    with start_autoscaling_head(MAX_WORKERS) as head:
        assert head.count_workers() == 0
        assert run_study(head, study, tmp_path / "cache") == MAX_WORKERS
        for name in ("InspectAndScore_brisque_cnniqa", "ResourceTrainable"):
            assert len(set(head.list_actor_nodes(name))) == MAX_WORKERS, name
        wait_until_none_is_left(head)
    scores = pd.read_parquet(tmp_path / "out/scores")
    assert len(scores) == 2 * len(CATEGORIES) * NUM_TRAIN
    assert (scores["status"] == "ok").all()
    cells = pd.read_parquet(tmp_path / "out/results/cells.parquet")
    assert len(cells) == 8
    assert (cells["status"] == "ok").all()
