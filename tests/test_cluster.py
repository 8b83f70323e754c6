import pytest

from iqray.cluster import ClusterResources, NodeResources, WorkerRequest, fit_count
from iqray.errors import StudyError

NODES = ClusterResources((NodeResources(8, 0), NodeResources(4, 1), NodeResources(4, 1)))


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        (WorkerRequest("scoring", None, 1), 16),
        (WorkerRequest("scoring", None, 3), 4),
        (WorkerRequest("scoring", None, 0.1), 160),
        (WorkerRequest("scoring", 3, 2), 3),
        (WorkerRequest("training", None, 1, 1), 2),
        (WorkerRequest("training", None, 1, 0.25), 8),
    ],
)
def test_as_many_workers_as_fit(request_: WorkerRequest, count: int) -> None:
    assert fit_count(request_, NODES) == count


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            WorkerRequest("training", None, 16),
            r"16 CPUs and 0 GPUs per worker, which no node",
        ),
        (
            WorkerRequest("training", None, 1, 2),
            r"largest of 3 has 4 CPUs and 1 GPUs",
        ),
        (WorkerRequest("training", None, 8, 1), r"8 CPUs and 1 GPUs per worker, which no node"),
        (WorkerRequest("scoring", 20, 1), r"scoring asks for 20 workers.*only 16 fit"),
        (WorkerRequest("scoring", 3, 1, 1), r"only 2 fit on the 3 nodes"),
    ],
)
def test_what_cannot_fit_is_explained(request_: WorkerRequest, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        fit_count(request_, NODES)
