"""A head with token authentication on 127.0.0.1, that a test starts and stops itself."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster_files import CLUSTER
from tests.ray_clusters import find_free_port, stop_group
from tests.small_study import TIMEOUT_S

RAY = str(Path(sys.executable).parent / "ray")


@dataclass(frozen=True)
class Head:
    """Where a head listens, and who may talk to it.

    Attributes:
        gcs: address of the control store.
        dashboard, agent: URLs.
        folder: of Ray's sessions and their logs.
        token_file: with the cluster's token.
    """

    gcs: str
    dashboard: str
    agent: str
    folder: Path
    token_file: Path

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    def make_environment(self) -> dict[str, str]:
        """Of a process that has the token, as cluster/README.md says."""
        environment = make_environment("token")
        return {**environment, "RAY_AUTH_TOKEN_PATH": str(self.token_file)}

    def request(self, url: str, token: str | None, body: dict[str, Any] | None = None) -> Any:
        """Status of a request's answer and, where it is allowed, what the answer holds."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers)  # noqa: S310  our own address
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, None


def make_environment(mode: str) -> dict[str, str]:
    """This process's environment with another authentication, and no cluster to join."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    own.pop("RAY_ADDRESS", None)
    return {**own, "RAY_AUTH_MODE": mode}


def make_token(home: Path) -> Path:
    """The token file of a home folder, made by the commands that cluster/README.md gives."""
    blocks = re.findall(r"```sh\n(.*?)```", (CLUSTER / "README.md").read_text(), re.DOTALL)
    [commands] = [block for block in blocks if "openssl rand" in block]
    subprocess.run(
        ["bash", "-euc", f"umask 022\n{commands}"],
        env={**os.environ, "HOME": str(home)},
        check=True,
    )
    return home / ".iqray/auth_token"


@contextmanager
def start_head(home: Path) -> Iterator[Head]:
    """A head with two CPUs, until the end of the block."""
    gcs_port, dashboard_port, agent_port = (find_free_port() for _ in range(3))
    # Socket paths below the temporary folder must stay short, so not pytest's own.
    folder = Path(tempfile.mkdtemp(prefix="iqray-"))
    head = Head(
        f"127.0.0.1:{gcs_port}",
        f"http://127.0.0.1:{dashboard_port}",
        f"http://127.0.0.1:{agent_port}",
        folder,
        make_token(home),
    )
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0"]
    command += [f"--port={gcs_port}", f"--dashboard-port={dashboard_port}"]
    command += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"]
    # Another Ray on this machine, such as the tests' own, has the agent's usual port.
    command += [f"--dashboard-agent-listen-port={agent_port}", f"--temp-dir={folder}"]
    command += ["--object-store-memory=104857600", "--disable-usage-stats"]
    process = subprocess.Popen(
        command,
        env=head.make_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(head, process)
        yield head
    finally:
        stop_group(process)


def _wait_for(head: Head, process: subprocess.Popen[bytes]) -> None:
    """Until the head takes jobs, which its agent does some seconds after the dashboard is there."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the head stopped"
        try:
            status, _ = head.request(
                head.dashboard + "/api/jobs/", head.token, {"entrypoint": "true"}
            )
        except OSError:
            status = None
        if status == 200:
            return
        time.sleep(0.5)
    raise AssertionError(f"no answer from {head.dashboard}")
