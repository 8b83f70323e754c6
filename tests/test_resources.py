import pytest

from iqray.errors import StudyError
from iqray.resources import (
    ClusterResources,
    NodeResources,
    WorkerCount,
    WorkerRequest,
    fit_count,
    fit_pools,
)

NODES = ClusterResources((NodeResources(8, 0), NodeResources(4, 1), NodeResources(4, 1)))


def ask(num_cpus: float, num_gpus: float = 0, at_least: int = 1, at_most: int | None = None):
    return WorkerRequest("scoring", num_cpus, num_gpus, at_least, at_most)


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        (ask(1), 16),
        (ask(3), 4),
        (ask(0.1), 160),
        (ask(2, at_least=3, at_most=3), 3),
        (ask(2, at_least=2, at_most=5), 5),
        (ask(2, at_least=2, at_most=50), 8),
        (ask(1, 1), 2),
        (ask(1, 0.25), 8),
    ],
)
def test_as_many_workers_as_fit(request_: WorkerRequest, count: int) -> None:
    assert fit_count(request_, NODES) == count


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask(16), r"16 CPUs and 0 GPUs per worker, which no node"),
        (ask(1, 2), r"largest of 3 has 4 CPUs and 1 GPUs"),
        (ask(8, 1), r"8 CPUs and 1 GPUs per worker, which no node"),
        (ask(1, at_least=20), r"scoring asks for 20 workers.*only 16 fit.*16 CPUs and 2 GPUs"),
        (ask(1, 1, at_least=3), r"only 2 fit: the cluster's 3 nodes"),
    ],
)
def test_what_cannot_fit_is_explained(request_: WorkerRequest, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        fit_count(request_, NODES)


def fit_range(*requests: WorkerRequest, has: ClusterResources = NODES) -> list[tuple[int, int]]:
    return [(count.smallest, count.largest) for count in fit_pools(requests, has)]


def test_pools_share_what_their_smallest_numbers_leave() -> None:
    assert fit_range(ask(1, at_most=2), ask(4, 1)) == [(1, 2), (1, 2)]
    assert fit_range(ask(1), ask(1)) == [(1, 8), (1, 8)]
    assert fit_range(ask(1, 0.5, at_least=3), ask(1, 0.5)) == [(3, 3), (1, 1)]


def test_small_workers_leave_room_for_large_ones() -> None:
    """Placed first, six workers of one CPU could stand on every node."""
    sizes = fit_range(ask(1, at_least=8, at_most=8), ask(4, 1, at_least=2))
    assert sizes == [(8, 8), (2, 2)]


def test_pools_that_do_not_fit_together_are_refused() -> None:
    two = ClusterResources((NodeResources(2, 0),))
    message = r"3 pools of scoring run at the same time and need at least 3 CPUs.*has|have 2 CPUs"
    with pytest.raises(StudyError, match=message):
        fit_pools([ask(1), ask(1), ask(1)], two)
    assert fit_range(ask(1), ask(1), has=two) == [(1, 1), (1, 1)]


def test_pools_begin_with_what_fits_on_nodes_that_are_alive() -> None:
    """Waiting for nodes that may come would leave those that are there idle."""
    grows = ClusterResources((NodeResources(2, 0),), (NodeResources(4, 1), NodeResources(4, 1)))
    assert fit_pools([ask(1)], grows) == [WorkerCount(1, 2, 10)]
    assert fit_pools([ask(1), ask(1, 1)], grows) == [WorkerCount(1, 2, 8), WorkerCount(1, 1, 2)]
    assert fit_pools([ask(4, at_least=2)], grows) == [WorkerCount(2, 2, 2)]
