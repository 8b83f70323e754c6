"""Trials whose driver, process or node is killed with signal 9, in an epoch or while it packs."""

import json
import os
import shutil
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
from tests.local_server import serving
from tests.metadata_server import MetadataServer
from tests.ray_clusters import lose_node, provide_clusters
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

NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 2**20}


class Grid:
    """A grid of one or two trials, the longer first, in a process of its own."""

    def __init__(self, images: Path, output: Path, num_trials: int = 1, **settings: Any) -> None:
        self.images, self.output = images, output
        self.num_steps = NUM_STEPS[:num_trials]
        self.settings = {"engine": "in_trial", "address": None, "checkpoint_s": 0}
        self.settings |= {"num_concurrent": 1, "packed_from": str(images), **settings}
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

    def wait_for(self, find: Callable[[], Any]) -> Any:
        """Wait until something is found that the running grid makes."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := find()):
            assert self.process is not None
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found

    def wait_for_checkpoint(self, step: int = KILLED_AT) -> list[dict[str, Any]]:
        """Rows of the log in the checkpoint of the last trial, when it has come to a step."""
        path = self.output / "trials" / self.last.trial_id / "checkpoint/state.json"

        def read() -> dict[str, Any] | None:
            content = json.loads(path.read_text()) if path.exists() else None
            return content if content and content["state"]["step"] >= step else None

        return self.wait_for(read)["rows"]

    def check_continued(self, unbroken: Path, rows_before: list[dict[str, Any]]) -> None:
        """The last trial was continued, not begun again, and ended as an unbroken one does."""
        log = self.output / "trials" / self.last.trial_id / "log.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert len(rows_before) >= 2
        assert rows[: len(rows_before)] == rows_before  # with the seconds of the first process
        self.check_same_as(unbroken, self.last)

    def check_same_as(self, unbroken: Path, trial: Trial) -> None:
        """A trial ended as an unbroken one does, and left nothing else."""
        folder, own = (root / "trials" / trial.trial_id for root in (self.output, unbroken))
        assert read_result(folder)["status"] == "ok"
        assert read_result(folder) == read_result(own)
        assert read_log(self.output, trial) == read_log(unbroken, trial)
        for name in ("model.safetensors", "embeddings.parquet", "predictions.parquet"):
            assert (folder / name).read_bytes() == (own / name).read_bytes(), name
        assert {path.name for path in folder.iterdir()} == {path.name for path in own.iterdir()}


def read_result(folder: Path) -> dict[str, Any]:
    """Everything in a trial's result but the time that it took."""
    result = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in result.items() if name != "train_s"}


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
    grid.check_continued(unbroken, rows)


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
    grid.check_continued(unbroken, rows)


def test_the_trial_of_a_lost_node_is_continued_elsewhere(
    images: Path, unbroken: Path, make_cluster: Callable[..., Any], tmp_path: Path
) -> None:
    cluster = make_cluster(num_cpus=0)
    node = cluster.add_node(**NODE)
    grid = Grid(images, tmp_path / "out", engine="ray_train", address=cluster.address)
    grid.start()
    rows = grid.wait_for_checkpoint()
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(**NODE)
    grid.finish()
    grid.check_continued(unbroken, rows)


def test_a_notice_of_the_cloud_is_a_reason_for_a_checkpoint(
    images: Path, make_cluster: Callable[..., Any], tmp_path: Path
) -> None:
    cluster = make_cluster(num_cpus=0)
    node = cluster.add_node(**NODE)
    settings = {"engine": "ray_train", "address": cluster.address, "checkpoint_s": 1000}
    grid = Grid(images, tmp_path / "out", **settings)
    grid.num_steps = [5000]  # longer than the test
    process = grid.start()
    grid.wait_for((grid.output / "trials" / grid.last.trial_id / "trial.json").exists)
    with serving(MetadataServer()) as metadata:
        command = [sys.executable, "-m", "iqray.preemption", "aws", "--metadata-url", metadata.url]
        command += ["--address", cluster.address, "--node-id", node.node_id]
        watcher = subprocess.Popen(command)
        try:
            grid.wait_for(lambda: metadata.num_questions > 0)
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


def test_a_node_lost_while_it_packs_leaves_no_half_pack(
    images: Path, unbroken: Path, make_cluster: Callable[..., Any], tmp_path: Path
) -> None:
    """The nodes share one cache, as a node that starts again on the same disk finds its own."""
    packed_from = tmp_path / "images"
    shutil.copytree(images, packed_from)
    pipe = packed_from / "train/ant/3.jpg"  # the last image of the first pack
    image = pipe.rename(tmp_path / "3.jpg")
    os.mkfifo(pipe)  # whoever reads it waits for a writer that never comes
    cluster = make_cluster(num_cpus=0)
    settings = {"packed_from": str(packed_from), "num_concurrent": 2, "checkpoint_s": 1000}
    grid = Grid(images, tmp_path / "out", num_trials=2, address=cluster.address, **settings)

    node = cluster.add_node(**NODE)
    grid.start()
    grid.wait_for(lambda: is_half_packed(grid.output, unbroken))
    cluster.add_node(**NODE)  # for the other trial, which makes what else it lacks and waits
    grid.wait_for(lambda: sorted(map(is_hidden, list_packs(grid.output))) == [False, False, True])
    image.replace(pipe)  # for whoever opens it now
    lose_node(cluster, node)
    cluster.add_node(**NODE)
    grid.finish()
    for trial in make_trials(NUM_STEPS):
        grid.check_same_as(unbroken, trial)
    assert read_packs(grid.output) == read_packs(unbroken)

    written = list_times(tmp_path)
    grid.start()
    grid.finish()
    assert list_times(tmp_path) == written


def list_packs(output: Path) -> list[Path]:
    """Folders of the packs made beside an output root, those under way included."""
    return [path for path in (output.parent / "cache/packs").glob("*/*") if path.is_dir()]


def is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def read_packs(output: Path) -> dict[str, dict[str, bytes]]:
    """Content of the packs' files."""
    return {
        folder.name: {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in list_packs(output)
    }


def is_half_packed(output: Path, unbroken: Path) -> bool:
    """Whether the only pack is under way, and has the first half of its pixels at least."""
    found = read_packs(output)
    if not found:
        return False
    [(name, files)] = found.items()
    assert name.startswith(".")
    assert "sums.json" not in files
    expected = read_packs(unbroken)[name.split(".")[1]]["pixels.npy"]
    pixels = files.get("pixels.npy", b"")
    assert pixels != expected
    half = len(expected) // 2
    return pixels[:half] == expected[:half]


def list_times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
