"""Ray clusters of several nodes on this machine, for tests that lose some of them."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a process's own group, politely first."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def provide_clusters() -> Iterator[Callable[..., Any]]:
    """Body of a fixture: makes clusters by the CPUs of their head; all are stopped at its end."""
    from ray.cluster_utils import Cluster

    Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108  where Ray's test clusters live
    clusters = []

    def make(num_cpus: int) -> Any:
        head = {"num_cpus": num_cpus, "num_gpus": 0, "object_store_memory": 100 * 2**20}
        head |= {"dashboard_port": find_free_port()}
        clusters.append(Cluster(initialize_head=True, head_node_args=head))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.shutdown()


def lose_node(cluster: Any, node: Any) -> None:
    """Take a node away with all its processes at once, as a machine that loses its power does.

    `Cluster.remove_node` kills Ray's own; the workers would notice that a little later.
    """
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    workers = raylet.children(recursive=True)
    cluster.remove_node(node, allow_graceful=False)
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
