"""Trials whose driver, process or node is killed with signal 9 in the middle of an epoch."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from iqray.trials import Trial
from tests.metadata_server import MetadataServer, serve_metadata
from tests.ray_clusters import provide_clusters
from tests.small_study import TIMEOUT_S
from tests.small_trials import make_runner
from tests.test_engines import read_log
from tests.train_grid import make_trials

pytestmark = pytest.mark.slow

# 12 training images in batches of 4: three steps are an epoch.
NUM_STEPS = [13, 12]
KILLED_AT = 7  # the earliest step, with two epochs in the log

NOTICE_S = 120  # of Amazon's

PROCESS_TITLE = "ResourceTrainable"  # Tune's name for a process that runs trials


class Grid:
    """A grid of one or two trials, the longer first, in a process of its own."""

    def __init__(self, images: Path, output: Path, num_trials: int = 1, **settings: Any) -> None:
        self.images, self.output = images, output
        self.num_steps = NUM_STEPS[:num_trials]
        self.settings = {"engine": "in_trial", "address": None, "checkpoint_s": 0, **settings}
        self.process: subprocess.Popen[str] | None = None

    @property
    def last(self) -> Trial:
        """The trial that is interrupted."""
        return make_trials(self.num_steps)[-1]

    def start(self) -> psutil.Process:
        arguments = {"images": str(self.images), "output": str(self.output)}
        arguments |= {"num_steps": self.num_steps, **self.settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.train_grid", json.dumps(arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return psutil.Process(self.process.pid)

    def finish(self) -> None:
        assert self.process is not None
        text, _ = self.process.communicate(timeout=TIMEOUT_S)
        assert self.process.returncode == 0, text

    def wait_for_checkpoint(self, step: int = KILLED_AT) -> list[dict[str, Any]]:
        """Rows of the log in the checkpoint of the last trial, when it has come to a step."""
        path = self.output / "trials" / self.last.trial_id / "checkpoint/state.json"
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            assert self.process is not None
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            if path.exists():
                content = json.loads(path.read_text())
                if content["state"]["step"] >= step:
                    return content["rows"]
            time.sleep(0.01)

    def check_same_as(self, unbroken: Path, rows_before: list[dict[str, Any]]) -> None:
        """The trial was continued, not begun again, and ended as an unbroken one does."""
        folder = self.output / "trials" / self.last.trial_id
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert len(rows_before) >= 2
        assert rows[: len(rows_before)] == rows_before  # with the seconds of the first process
        assert read_log(self.output, self.last) == read_log(unbroken, self.last)
        for name in ("model.safetensors", "embeddings.parquet", "predictions.parquet"):
            own = unbroken / "trials" / self.last.trial_id / name
            assert (folder / name).read_bytes() == own.read_bytes(), name
        assert json.loads((folder / "result.json").read_text())["status"] == "ok"
        assert not (folder / "checkpoint").exists()


@pytest.fixture(scope="module")
def images(inputs: Path) -> Path:
    return inputs / "images"


@pytest.fixture(scope="module")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both trials, each trained in one go in this process."""
    output = tmp_path_factory.mktemp("unbroken") / "out"
    runner = make_runner(images, output)
    for trial in make_trials(NUM_STEPS):
        assert runner.run(trial) == "ok"
    return output


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., Any]]:
    """Make a cluster on this machine by the CPUs of its head."""
    yield from provide_clusters()


def test_a_killed_driver_is_continued(images: Path, unbroken: Path, tmp_path: Path) -> None:
    grid = Grid(images, tmp_path / "out", num_trials=2)
    process = grid.start()
    rows = grid.wait_for_checkpoint()
    started = process.children(recursive=True)
    process.kill()
    psutil.wait_procs([process, *started], timeout=TIMEOUT_S)
    first = tmp_path / "out/trials" / make_trials(NUM_STEPS)[0].trial_id / "result.json"
    finished_at = first.stat().st_mtime_ns
    assert not (tmp_path / "out/trials" / grid.last.trial_id / "result.json").exists()

    grid.start()
    grid.finish()
    assert first.stat().st_mtime_ns == finished_at
    grid.check_same_as(unbroken, rows)


def test_a_killed_process_is_replaced(images: Path, unbroken: Path, tmp_path: Path) -> None:
    grid = Grid(images, tmp_path / "out", engine="in_trial")
    process = grid.start()
    rows = grid.wait_for_checkpoint()
    killed = [
        child
        for child in process.children(recursive=True)
        if PROCESS_TITLE in " ".join(child.cmdline())
    ]
    assert killed
    os.kill(killed[0].pid, signal.SIGKILL)
    grid.finish()
    grid.check_same_as(unbroken, rows)


def test_the_trial_of_a_lost_node_is_continued_elsewhere(
    images: Path, unbroken: Path, make_cluster: Callable[..., Any], tmp_path: Path
) -> None:
    cluster = make_cluster(num_cpus=0)
    settings = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 2**20}
    node = cluster.add_node(**settings)
    grid = Grid(images, tmp_path / "out", engine="ray_train", address=cluster.address)
    grid.start()
    rows = grid.wait_for_checkpoint()
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(**settings)
    grid.finish()
    grid.check_same_as(unbroken, rows)


def test_a_notice_of_the_cloud_is_a_reason_for_a_checkpoint(
    images: Path, make_cluster: Callable[..., Any], tmp_path: Path
) -> None:
    cluster = make_cluster(num_cpus=0)
    node = cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=100 * 2**20)
    settings = {"engine": "ray_train", "address": cluster.address, "checkpoint_s": 1000}
    grid = Grid(images, tmp_path / "out", **settings)
    grid.num_steps = [5000]  # longer than the test
    process = grid.start()
    wait_for_file(grid, "trial.json")
    with serve_metadata() as metadata:
        command = [sys.executable, "-m", "iqray.preemption", "aws", "--metadata-url", metadata.url]
        command += ["--address", cluster.address, "--node-id", node.node_id]
        watcher = subprocess.Popen(command)
        try:
            await_question(metadata, watcher)
            metadata.left_s = NOTICE_S
            deadline = time.time() + NOTICE_S
            assert watcher.wait(NOTICE_S) == 0
        finally:
            watcher.kill()
            watcher.wait()
    grid.wait_for_checkpoint(step=1)
    checkpoint = grid.output / "trials" / grid.last.trial_id / "checkpoint/state.json"
    assert checkpoint.stat().st_mtime < deadline
    process.kill()
    grid.process.communicate()


def await_question(metadata: MetadataServer, watcher: subprocess.Popen[bytes]) -> None:
    """Wait until somebody watches the metadata service, which has no notice yet."""
    deadline = time.monotonic() + TIMEOUT_S
    while not metadata.num_questions:
        assert watcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_file(grid: Grid, name: str) -> None:
    """Wait for a file of the last trial."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (grid.output / "trials" / grid.last.trial_id / name).exists():
        assert grid.process.poll() is None, grid.process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
