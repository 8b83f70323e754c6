"""A head without CPUs, and an autoscaler that brings workers as processes of this machine."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fake_provider import HEAD, OBJECT_STORE_BYTES, RAY, kill_group
from tests.ray_clusters import find_free_port, stop_group
from tests.small_study import TIMEOUT_S

PROJECT = Path(__file__).parent.parent
IDLE_S = 15  # longer than from the end of one stage to the work of the next


@dataclass(frozen=True)
class AutoscalingHead:
    """A running head.

    Attributes:
        address: of the cluster.
        home: home folder of who works on the head, with the autoscaler's settings where `ray up`
            puts them.
        state: what the cluster's control store knows, also of what has ended.
    """

    address: str
    home: Path
    state: Any

    def count_workers(self) -> int:
        """Nodes that have joined and are alive, without the head."""
        return sum(node["Alive"] for node in self.state.node_table()) - 1

    def list_actor_nodes(self, name: str) -> list[str]:
        """Node of each actor that there has been, of those with the text in their class's name."""
        actors = self.state.actor_table(None).values()
        return [own["Address"]["NodeID"] for own in actors if name in own["ActorClassName"]]


@contextlib.contextmanager
def start_autoscaling_head(max_workers: int) -> Iterator[AutoscalingHead]:
    """A head whose autoscaler may have so many workers, of a CPU each, until the block's end."""
    # Socket paths below the temporary folder must stay short, so not pytest's own.
    home = Path(tempfile.mkdtemp(prefix="iqray-"))
    address = f"127.0.0.1:{find_free_port()}"
    workers = home / "workers"
    workers.mkdir()
    settings = home / "ray_bootstrap_config.yaml"
    settings.write_text(yaml.safe_dump(make_settings(max_workers, address, workers)))
    process = subprocess.Popen(
        [*list_arguments(address, home), f"--autoscaling-config={settings}"],
        env=os.environ
        | {"RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        | {"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_NODE_TYPE_NAME": HEAD, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield AutoscalingHead(address, home, _wait_for(address, process))
    finally:
        stop_group(process)
        for file in workers.iterdir():  # that the autoscaler has not taken away
            kill_group(int(file.read_text()))
        shutil.rmtree(home, ignore_errors=True)


def make_settings(max_workers: int, address: str, folder: Path) -> dict[str, Any]:
    """Settings of the autoscaler, with the node types of a small cluster/aws.yaml."""
    commands = ("initialization", "setup", "head_setup", "worker_setup")
    starts = ("head_start_ray_commands", "worker_start_ray_commands")
    return {
        "cluster_name": "test",
        "max_workers": max_workers,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "external",
            "module": "tests.fake_provider.ProcessNodeProvider",
            "address": address,
            "folder": str(folder),
            "disable_node_updaters": True,  # its nodes start Ray themselves
        },
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {"resources": {"CPU": 0}, "node_config": {}},
            "worker": {
                "resources": {"CPU": 1},
                "min_workers": 0,
                "max_workers": max_workers,
                "node_config": {},
            },
        },
        # Ray fills these in for its own providers only.
        **{f"{name}_commands": [] for name in commands},
        **{name: [] for name in starts},
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
    }


def list_arguments(address: str, home: Path) -> list[str]:
    """Command that starts a head which leaves other clusters of the machine their ports."""
    return [
        *(RAY, "start", "--head", "--block", "--num-cpus=0", "--num-gpus=0"),
        f"--port={address.split(':')[1]}",
        f"--ray-client-server-port={find_free_port()}",
        f"--dashboard-agent-listen-port={find_free_port()}",
        *("--min-worker-port=0", "--max-worker-port=0", "--include-dashboard=false"),
        *(f"--temp-dir={home}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
        "--disable-usage-stats",
    ]


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> Any:
    """The cluster's state, as soon as its head is in it."""
    from ray._private.state import GlobalState
    from ray._raylet import GcsClientOptions

    state = GlobalState()
    options = GcsClientOptions.create(
        address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
    )
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the head stopped"
        with contextlib.suppress(Exception):  # of whatever kind, until the store answers
            state._initialize_global_state(options)
            if state.node_table():
                return state
        time.sleep(0.5)
    raise AssertionError(f"no answer from {address}")
