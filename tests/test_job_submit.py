"""`ray job submit` against a head that the test starts on 127.0.0.1 and stops itself."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.ray_clusters import find_free_port
from tests.small_study import TIMEOUT_S, write_study

PROJECT = Path(__file__).parent.parent
RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture
def head() -> Iterator[str]:
    """Address of the dashboard of a head with two CPUs."""
    port, dashboard_port = find_free_port(), find_free_port()
    address = f"http://127.0.0.1:{dashboard_port}"
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0"]
    command += [f"--port={port}", f"--dashboard-port={dashboard_port}"]
    command += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"]
    # Another Ray on this machine, such as the tests' own, has the agent's usual port.
    command += [f"--dashboard-agent-listen-port={find_free_port()}"]
    command += ["--object-store-memory=104857600", "--disable-usage-stats"]
    # Socket paths below the temporary folder must stay short, so not pytest's own.
    folder = tempfile.mkdtemp(prefix="iqray-")
    command += [f"--temp-dir={folder}"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(address + "/api/version", process)
        yield address
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the head's own process group, politely first."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the head stopped"
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  our own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"no answer from {url}")


@pytest.mark.slow
def test_a_submitted_study_succeeds_and_a_second_submit_does_nothing(
    head: str,
    inputs: Path,
    tmp_path: Path,
) -> None:
    study = write_study(inputs, tmp_path / "out")
    command = [RAY, "job", "submit", "--address", head, "--working-dir", str(PROJECT)]
    command += ["--", sys.executable, "jobs/full_grid.py", "--study", str(study)]

    first = submit(command)
    assert "succeeded" in first
    cells = pd.read_parquet(tmp_path / "out/results/cells.parquet")
    assert (cells["status"] == "ok").all()
    second = submit(command)
    assert second.count("all there before") == 7


def submit(command: list[str]) -> str:
    """Submit and wait; a head that has just started may say that its agent is not there yet."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=PROJECT
        )
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
