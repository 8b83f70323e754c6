"""Scoring by the real job while its driver, an actor or a node is killed with signal 9."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from tests.conftest import make_pixels
from tests.ray_clusters import provide_clusters
from tests.small_study import TIMEOUT_S, write_study

JOB = Path(__file__).parent.parent / "jobs" / "score.py"
METRICS = ("brisque", "cnniqa")
NUM_IMAGES = 90

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        path = folder / "train" / f"c{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_pixels(rng, 150 + number, 140)).save(path, quality=92)
    return folder


@pytest.fixture(scope="module")
def make_cluster() -> Iterator[Callable[..., Any]]:
    """Make a cluster on this machine by the CPUs of its head."""
    yield from provide_clusters()


@pytest.fixture(scope="module")
def smallest(make_cluster: Callable[..., Any]) -> str:
    """Address of a cluster with the one CPU that a study asks for at least."""
    return str(make_cluster(num_cpus=1).address)


def start(
    inputs: Path, images: Path, root: Path, address: str | None, **scoring: Any
) -> subprocess.Popen[str]:
    study = write_study(
        inputs,
        root,
        datasets=[{"name": "d", "root": str(images), "test": None}],
        metrics=list(METRICS),
        scoring={"shard_size": 1, **scoring},
    )
    command = [sys.executable, str(JOB), "--study", str(study)]
    command += ["--address", address] if address else []
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    text, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, text


def list_shards(root: Path) -> dict[Path, int]:
    """Finished files of scores, with their times."""
    return {path: path.stat().st_mtime_ns for path in root.glob("scores/d/*/*.parquet")}


def wait_for_share(process: subprocess.Popen[str], root: Path, share: float) -> None:
    """Wait until that share of the scores is written."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(list_shards(root)) < share * NUM_IMAGES * len(METRICS):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_scores(root: Path) -> pd.DataFrame:
    rows = pd.read_parquet(root / "scores")
    return rows.sort_values(["metric", "path"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def undisturbed(
    inputs: Path, images: Path, smallest: str, tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(start(inputs, images, root, smallest))
    rows = read_scores(root)
    assert len(rows) == NUM_IMAGES * len(METRICS)
    assert (rows["status"] == "ok").all()
    return rows


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_killed_driver_is_continued_on_the_smallest_cluster(
    inputs: Path,
    images: Path,
    smallest: str,
    undisturbed: pd.DataFrame,
    tmp_path: Path,
    share: float,
) -> None:
    root = tmp_path / "out"
    process = start(inputs, images, root, smallest)
    wait_for_share(process, root, share)
    process.kill()
    process.communicate()
    time.sleep(3)  # until Ray has ended the driver's actors
    kept = list_shards(root)
    assert share * NUM_IMAGES * len(METRICS) <= len(kept) < NUM_IMAGES * len(METRICS)

    finish(start(inputs, images, root, smallest))
    after = list_shards(root)
    assert all(after[path] == when for path, when in kept.items())
    pd.testing.assert_frame_equal(read_scores(root), undisturbed)

    finish(start(inputs, images, root, smallest))
    assert list_shards(root) == after  # finished metrics write nothing


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_killed_actor_is_replaced(
    inputs: Path, images: Path, undisturbed: pd.DataFrame, tmp_path: Path, share: float
) -> None:
    root = tmp_path / "out"
    process = start(inputs, images, root, address=None)
    wait_for_share(process, root, share)
    actors = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "InspectAndScore_brisque_cnniqa" in " ".join(child.cmdline())
    ]
    assert actors
    os.kill(actors[0].pid, signal.SIGKILL)
    finish(process)
    pd.testing.assert_frame_equal(read_scores(root), undisturbed)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_work_of_a_lost_node_is_done_elsewhere(
    inputs: Path,
    images: Path,
    make_cluster: Callable[..., Any],
    undisturbed: pd.DataFrame,
    tmp_path: Path,
    share: float,
) -> None:
    root = tmp_path / "out"
    cluster = make_cluster(num_cpus=1)
    node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    process = start(inputs, images, root, str(cluster.address), min_actors=2)
    wait_for_share(process, root, share)
    cluster.remove_node(node, allow_graceful=False)
    finish(process)
    cluster.shutdown()
    pd.testing.assert_frame_equal(read_scores(root), undisturbed)
