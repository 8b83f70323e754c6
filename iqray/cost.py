"""What a study's cluster has cost so far: hours of its nodes, at the prices that the study names.

While a job runs, it notes which nodes are alive and adds their hours to `node_hours.json`, which
the study's next job continues. Nodes that stay alive between jobs are not seen.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from pydantic import Field

from iqray.dataset import StudyPart
from iqray.resources import NodeResources
from iqray.storage import Storage

logger = logging.getLogger(__name__)

NODE_HOURS_PATH = "node_hours.json"

NodeKind = Literal["gpu_node", "cpu_node", "head_node"]


class NodePrices(StudyPart):
    """Prices per node and hour, in any one currency."""

    gpu_node: float = Field(0.0, ge=0, description="a node with GPUs")
    cpu_node: float = Field(0.0, ge=0, description="a node with CPUs for tasks and no GPU")
    head_node: float = Field(0.0, ge=0, description="a node without CPUs for tasks")

    def add_up(self, hours: Mapping[str, float]) -> float:
        """Cost of hours by kind of node."""
        return sum(getattr(self, kind) * number for kind, number in hours.items())


def classify_node(node: NodeResources) -> NodeKind:
    """Which price a node has."""
    if node.num_gpus > 0:
        return "gpu_node"
    return "cpu_node" if node.num_cpus > 0 else "head_node"


class NodeHours:
    """Hours of nodes by kind, those of the study's earlier jobs included."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        known = storage.read_json(NODE_HOURS_PATH) if storage.exists(NODE_HOURS_PATH) else {}
        self.by_kind: dict[str, float] = dict(known)

    def add(self, nodes: Iterable[NodeResources], seconds: float) -> None:
        """Add the seconds that these nodes have been alive."""
        for node in nodes:
            kind = classify_node(node)
            self.by_kind[kind] = self.by_kind.get(kind, 0.0) + seconds / 3600

    def write(self) -> None:
        """Keep the hours for the next job."""
        self._storage.write_json(NODE_HOURS_PATH, self.by_kind)


@contextmanager
def watch_cost(
    study: str, prices: NodePrices | None, storage: Storage, interval_s: float = 30
) -> Iterator[None]:
    """Note the nodes' hours while the block runs, and show their cost as a metric of Ray's.

    Nothing is noted before the job has joined Ray, nor for a study without prices.

    Args:
        study: its name, a tag of the metric.
        prices: per node and hour.
        storage: the study's root.
        interval_s: seconds between looks; what a kill can lose.
    """
    if prices is None:
        yield
        return
    has_ended = threading.Event()
    watch = threading.Thread(
        target=_watch, args=(study, prices, storage, interval_s, has_ended), daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        has_ended.set()
        watch.join()


def _watch(
    study: str,
    prices: NodePrices,
    storage: Storage,
    interval_s: float,
    has_ended: threading.Event,
) -> None:
    seen_s = time.monotonic()
    from ray.util import metrics

    from iqray.cluster import list_alive

    gauge = metrics.Gauge(
        "iqray_cost", "Cost of the study's nodes so far, in its prices' currency.", ("study",)
    )
    hours = NodeHours(storage)
    is_last = False
    while not is_last:
        is_last = has_ended.wait(interval_s)
        now_s = time.monotonic()
        try:
            alive = list_alive()
            hours.add(alive, now_s - seen_s)
            if alive:
                gauge.set(prices.add_up(hours.by_kind), {"study": study})
                hours.write()
        except Exception:  # a study does not end because its cost cannot be noted
            logger.exception("the nodes' hours could not be noted")
        seen_s = now_s
