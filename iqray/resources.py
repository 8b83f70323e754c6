"""Hold what a study asks for against what a cluster has. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from iqray.errors import StudyError


@dataclass(frozen=True)
class NodeResources:
    """What one node has in all."""

    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class ClusterResources:
    """The nodes that a cluster has.

    Attributes:
        nodes: that are alive.
        future_nodes: that its autoscaler may add.
    """

    nodes: tuple[NodeResources, ...]
    future_nodes: tuple[NodeResources, ...] = ()

    @property
    def all_nodes(self) -> tuple[NodeResources, ...]:
        """Nodes that are alive, and then those that may come."""
        return (*self.nodes, *self.future_nodes)


@dataclass(frozen=True)
class WorkerRequest:
    """Workers that a part of the study asks for.

    Attributes:
        what: its key in the study.
        num_cpus: per worker.
        num_gpus: per worker.
        min_workers: that must fit.
        max_workers: none for as many as fit.
    """

    what: str
    num_cpus: float
    num_gpus: float = 0
    min_workers: int = 1
    max_workers: int | None = None


@dataclass(frozen=True)
class WorkerCount:
    """How many of the requested workers run at once.

    Attributes:
        smallest: that must run.
        initial: to begin with: those that fit on the nodes that are alive, at least the smallest.
        largest: when all nodes have come.
    """

    smallest: int
    initial: int
    largest: int


def fit_count(request: WorkerRequest, has: ClusterResources) -> int:
    """How many of the requested workers run at once on a cluster that they have for themselves.

    Raises:
        StudyError: the smallest number does not fit.
    """
    [count] = fit_pools([request], has)
    return count.largest


def fit_pools(requests: Sequence[WorkerRequest], has: ClusterResources) -> list[WorkerCount]:
    """Sizes of pools of workers that run at the same time.

    Every pool gets its smallest number first; what is left goes to the pools in turn, a worker
    each, up to their largest number.

    Returns:
        Numbers of each pool's workers, in the order of the requests.

    Raises:
        StudyError: a worker fits on no node, or the smallest numbers do not fit together.
    """
    free = _FreeNodes(has)
    placed: list[list[bool]] = [[] for _ in requests]  # for each worker, whether its node is alive
    # The hardest to place first, so that small workers do not take their room.
    order = sorted(
        range(len(requests)), key=lambda i: (-requests[i].num_gpus, -requests[i].num_cpus)
    )
    for index in order:
        request = requests[index]
        _check_one_fits(request, has)
        while len(placed[index]) < request.min_workers:
            node = free.place(request)
            if node is None:
                raise _explain_misfit(requests, request, len(placed[index]), has)
            placed[index].append(node < len(has.nodes))
    growing = set(order)
    while growing:
        for index in sorted(growing):
            most = requests[index].max_workers
            is_full = most is not None and len(placed[index]) >= most
            node = None if is_full else free.place(requests[index])
            if node is None:
                growing.discard(index)
            else:
                placed[index].append(node < len(has.nodes))
    return [
        WorkerCount(request.min_workers, max(request.min_workers, sum(own)), len(own))
        for request, own in zip(requests, placed, strict=True)
    ]


class _FreeNodes:
    """What workers that have been placed leave free."""

    def __init__(self, has: ClusterResources) -> None:
        self._nodes = [(node.num_cpus, node.num_gpus) for node in has.all_nodes]

    def place(self, request: WorkerRequest) -> int | None:
        """Place one worker on the node with the fewest GPUs that has room; gives its index."""
        # Ray counts in units of 1e-4; the small term mends sums such as 10 * 0.1.
        rooms = [
            (gpus, index)
            for index, (cpus, gpus) in enumerate(self._nodes)
            if cpus + 1e-6 >= request.num_cpus and gpus + 1e-6 >= request.num_gpus
        ]
        if not rooms:
            return None
        _, index = min(rooms)
        cpus, gpus = self._nodes[index]
        self._nodes[index] = (cpus - request.num_cpus, gpus - request.num_gpus)
        return index


def _check_one_fits(request: WorkerRequest, has: ClusterResources) -> None:
    if _FreeNodes(has).place(request) is not None:
        return
    what = request.what
    largest = max(has.all_nodes, key=lambda node: (node.num_gpus, node.num_cpus))
    raise StudyError(
        f"{what} asks for {request.num_cpus:g} CPUs and {request.num_gpus:g} GPUs per worker, "
        f"which no node has (the largest of {len(has.all_nodes)} has {largest.num_cpus:g} CPUs and "
        f"{largest.num_gpus:g} GPUs); lower {what}.num_cpus or {what}.num_gpus, or join a "
        "larger cluster with --address"
    )


def _explain_misfit(
    requests: Sequence[WorkerRequest], request: WorkerRequest, count: int, has: ClusterResources
) -> StudyError:
    total_cpus = sum(node.num_cpus for node in has.all_nodes)
    total_gpus = sum(node.num_gpus for node in has.all_nodes)
    found = (
        f"the cluster's {len(has.all_nodes)} nodes have {total_cpus:g} CPUs and {total_gpus:g} GPUs"
    )
    if len(requests) == 1:
        return StudyError(
            f"{request.what} asks for {request.min_workers} workers of {request.num_cpus:g} CPUs "
            f"and {request.num_gpus:g} GPUs, but only {count} fit: {found}; lower the number, or "
            "join a larger cluster with --address"
        )
    cpus = sum(other.min_workers * other.num_cpus for other in requests)
    gpus = sum(other.min_workers * other.num_gpus for other in requests)
    return StudyError(
        f"the {len(requests)} pools of scoring run at the same time and need at least {cpus:g} "
        f"CPUs and {gpus:g} GPUs together, which do not fit: {found}; make fewer pools "
        "(scoring.pools: shared), lower min_actors, num_cpus or num_gpus, or join a larger cluster "
        "with --address"
    )
