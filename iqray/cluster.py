"""Start or join Ray, and say what the cluster has. The one place that calls `ray.init`."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iqray.errors import StudyError
from iqray.progress import show_line

# On glibc, giving freed memory back to the system makes large CPU tensors up to 5 times slower:
# every step pays for fresh pages. These keep it in the process.
WORKER_ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}

# Only small tables pass through the object store; the default would be 30 % of the memory.
_LOCAL_OBJECT_STORE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class NodeResources:
    """What one node has in all."""

    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class ClusterResources:
    """The nodes that the cluster has now."""

    nodes: tuple[NodeResources, ...]


@dataclass(frozen=True)
class WorkerRequest:
    """Workers that a part of the study asks for; `what` is its key in the study."""

    what: str
    num_workers: int | None  # none for as many as fit
    num_cpus: float  # per worker
    num_gpus: float = 0


class Cluster:
    """A connection to Ray that is made when it is first needed.

    Args:
        address: of a running cluster; none reads RAY_ADDRESS, which `ray job submit` sets, and
            starts Ray on this machine where that is empty.
        requests: what the study will ask for; checked together when the connection is made, so
            that nothing is begun that cannot end.
    """

    def __init__(self, address: str | None = None, requests: Sequence[WorkerRequest] = ()) -> None:
        self._address = address or os.environ.get("RAY_ADDRESS")
        self._requests = tuple(requests)
        self._resources: ClusterResources | None = None

    def connect(self) -> ClusterResources:
        """Start or join Ray once, and return what it has.

        Raises:
            StudyError: no cluster answers, or it has less than the study asks for.
        """
        if self._resources is None:
            self._resources = self._start()
            for request in self._requests:
                fit_count(request, self._resources)
        return self._resources

    def close(self) -> None:
        """Leave Ray; a Ray started here stops."""
        if self._resources is None:
            return
        import ray

        ray.shutdown()
        self._resources = None

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> ClusterResources:
        # Workers start with this environment's own python, not through `uv run`.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        # A Ray started here listens on this machine only; a cluster sets its own mode.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        settings: dict[str, Any] = {"address": self._address}
        if self._address is None:
            settings = {
                "address": "local",
                "object_store_memory": _LOCAL_OBJECT_STORE_BYTES,
                "dashboard_host": "127.0.0.1",
            }
        try:
            context = ray.init(
                **settings,
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": WORKER_ENVIRONMENT},
            )
        except ConnectionError as error:
            raise StudyError(
                f"no Ray cluster answers at '{self._address}'; start one with `ray start --head`, "
                "or leave --address and RAY_ADDRESS out to run on this machine"
            ) from error
        if context.dashboard_url:
            show_line("ray", f"dashboard at http://{context.dashboard_url}")
        _quieten_ray()
        return _read_resources()


def _quieten_ray() -> None:
    """Keep Ray Data's console lines out of the terminal; its own log files keep everything."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


def _read_resources() -> ClusterResources:
    import ray

    return ClusterResources(
        tuple(
            NodeResources(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))
            for node in ray.nodes()
            if node["Alive"]
        )
    )


def fit_count(request: WorkerRequest, has: ClusterResources) -> int:
    """How many of the requested workers run at once on a cluster.

    Raises:
        StudyError: one worker does not fit on any node, or the wanted number does not fit.
    """
    what, num_cpus, num_gpus = request.what, request.num_cpus, request.num_gpus
    possible = sum(_count_on_node(node, num_cpus, num_gpus) for node in has.nodes)
    if not possible:
        largest = max(has.nodes, key=lambda node: (node.num_gpus, node.num_cpus))
        raise StudyError(
            f"{what} asks for {num_cpus:g} CPUs and {num_gpus:g} GPUs per worker, which no node "
            f"has (the largest of {len(has.nodes)} has {largest.num_cpus:g} CPUs and "
            f"{largest.num_gpus:g} GPUs); lower {what}.num_cpus or {what}.num_gpus, or join a "
            "larger cluster with --address"
        )
    wanted = request.num_workers
    if wanted is not None and wanted > possible:
        raise StudyError(
            f"{what} asks for {wanted} workers of {num_cpus:g} CPUs and {num_gpus:g} GPUs, but "
            f"only {possible} fit on the {len(has.nodes)} nodes; lower the number, or join a "
            "larger cluster with --address"
        )
    return wanted or possible


def _count_on_node(node: NodeResources, num_cpus: float, num_gpus: float) -> int:
    # Ray counts resources in units of 1e-4; the small term mends 1 / 0.1 = 9.99...
    counts = [node.num_cpus / num_cpus]
    if num_gpus:
        counts.append(node.num_gpus / num_gpus)
    return int(min(counts) + 1e-6)
