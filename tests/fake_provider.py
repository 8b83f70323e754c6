"""A node provider for Ray's autoscaler whose nodes are processes of this machine.

Ray's monitor imports it in a process of its own. Written by hand, as the fake provider in Ray's
wheel is incomplete and ends every Ray of the machine.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

HEAD = "head"  # id and type of the head, which the provider does not start

RAY = str(Path(sys.executable).parent / "ray")
OBJECT_STORE_BYTES = 100 * 2**20


class ProcessNodeProvider(NodeProvider):
    """Starts a raylet for each node and kills it again.

    `provider_config` has the cluster's `address`, and `folder`, in which a file for each node that
    is there holds the id of its process group.
    """

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._lock = threading.Lock()  # the autoscaler calls from several threads
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tags = {HEAD: {TAG_RAY_NODE_KIND: NODE_KIND_HEAD, TAG_RAY_USER_NODE_TYPE: HEAD}}
        self._num_created = 0

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],  # noqa: ARG002
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],  # noqa: ARG002
    ) -> None:
        with self._lock:
            for _ in range(count):
                self._num_created += 1
                node_id = f"worker-{self._num_created}"
                self._tags[node_id] = dict(tags)
                self._processes[node_id] = self._start(node_id, tags, resources)

    def _start(
        self, node_id: str, tags: Mapping[str, str], resources: Mapping[str, float]
    ) -> subprocess.Popen[bytes]:
        command = [RAY, "start", "--block", f"--address={self.provider_config['address']}"]
        command += [f"--num-cpus={resources['CPU']}", "--num-gpus=0"]
        command += [f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        # Any that are free, as all nodes share this machine.
        command += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        process = subprocess.Popen(
            command,
            # By these the autoscaler knows its node among those that join.
            env=os.environ
            | {
                "RAY_CLOUD_INSTANCE_ID": node_id,
                "RAY_NODE_TYPE_NAME": tags[TAG_RAY_USER_NODE_TYPE],
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._get_file(node_id).write_text(str(process.pid))
        return process

    def _get_file(self, node_id: str) -> Path:
        return Path(self.provider_config["folder"]) / node_id

    def terminate_node(self, node_id: str) -> None:
        with self._lock:
            process = self._processes.pop(node_id)
            del self._tags[node_id]
        kill_group(process.pid)
        process.wait()
        self._get_file(node_id).unlink()

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        with self._lock:
            return [
                node_id
                for node_id, tags in self._tags.items()
                if tag_filters.items() <= tags.items()
            ]

    def is_running(self, node_id: str) -> bool:
        return node_id in self._tags

    def is_terminated(self, node_id: str) -> bool:
        return node_id not in self._tags

    def node_tags(self, node_id: str) -> dict[str, str]:
        return dict(self._tags[node_id])

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        with self._lock:
            self._tags[node_id].update(tags)

    def internal_ip(self, node_id: str) -> str:
        return node_id

    def external_ip(self, node_id: str) -> str:
        return node_id


def kill_group(pid: int) -> None:
    """Kill a node's own process group, if any of it is left."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
