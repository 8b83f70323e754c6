"""Start or join Ray, and say what the cluster has. The one place that calls `ray.init`."""

import contextlib
import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from iqray.autoscaler import list_future_nodes, read_groups
from iqray.environment import set_variables
from iqray.errors import StudyError
from iqray.progress import show_line
from iqray.ray_token import provide_token
from iqray.resources import ClusterResources, NodeResources, WorkerRequest, fit_pools

logger = logging.getLogger(__name__)

# On glibc, giving freed memory back to the system makes large CPU tensors up to 5 times slower:
# every step pays for fresh pages. These keep it in the process.
WORKER_ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}

# Only small tables pass through the object store; the default would be 30 % of the memory.
_LOCAL_OBJECT_STORE_BYTES = 512 * 2**20


class Cluster:
    """A connection to Ray that is made when it is first needed.

    Args:
        address: of a running cluster; none reads RAY_ADDRESS, which `ray job submit` sets, and
            starts Ray on this machine where that is empty.
        requests: what the stages of the study will ask for, each for workers that run at the same
            time; checked when the connection is made, so that nothing is begun that cannot end.
    """

    def __init__(
        self, address: str | None = None, requests: Sequence[Sequence[WorkerRequest]] = ()
    ) -> None:
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        self._requests = tuple(requests)
        self._resources: ClusterResources | None = None

    def connect(self) -> ClusterResources:
        """Start or join Ray once, and return what it has.

        Raises:
            StudyError: no cluster answers, or it has less than the study asks for.
        """
        if self._resources is None:
            self._resources = self._start()
            for requests in self._requests:
                fit_pools(requests, self._resources)
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
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        if self._address is None:
            # Its ports are open to the network. Ray sets RAY_AUTH_MODE to token for a Ray that it
            # starts, for this process and all below, unless the environment says otherwise.
            provide_token()
            settings: dict[str, Any] = {
                "address": "local",
                "object_store_memory": _LOCAL_OBJECT_STORE_BYTES,
                "dashboard_host": "127.0.0.1",
            }
            # Workers inherit it from the Ray that starts here. As a runtime environment it would
            # keep them from using the processes that Ray has ready: seconds for every pool.
            environment: AbstractContextManager[None] = set_variables(WORKER_ENVIRONMENT)
        else:
            settings = {
                "address": self._address,
                "runtime_env": {"env_vars": WORKER_ENVIRONMENT},
            }
            environment = contextlib.nullcontext()
        try:
            with environment:
                context = ray.init(**settings, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise StudyError(self._explain(error)) from error
        if context.dashboard_url:
            key = (
                " (token: ray get-auth-token)" if os.environ.get("RAY_AUTH_MODE") == "token" else ""
            )
            show_line("ray", f"dashboard at http://{context.dashboard_url}{key}")
        _quieten_ray()
        alive = list_alive()
        # A Ray started here stays as it is, also on a machine that is the head of another cluster.
        groups = [] if self._address is None else read_groups()
        return ClusterResources(alive, tuple(list_future_nodes(alive, groups)))

    def _explain(self, error: Exception) -> str:
        """What a user can do about a Ray that cannot be started or joined."""
        first_line = str(error).strip().partition("\n")[0]
        if self._address is None:
            return f"Ray cannot be started on this machine: {first_line}"
        if isinstance(error, ConnectionError):
            first_line = "nothing answers"
        return (
            f"the Ray cluster at '{self._address}' cannot be joined: {first_line}; start one with "
            "`ray start --head`, give its host:port and token, or leave --address and RAY_ADDRESS "
            "out to run on this machine"
        )


def _quieten_ray() -> None:
    """Keep Ray's console lines out of the terminal; its own log files keep everything."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


def list_alive() -> tuple[NodeResources, ...]:
    """Nodes of the cluster that are alive; none before Ray is joined."""
    import ray

    if not ray.is_initialized():
        return ()
    return tuple(
        NodeResources(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))
        for node in ray.nodes()
        if node["Alive"]
    )
