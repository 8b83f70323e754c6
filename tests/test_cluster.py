import pytest

from iqray.cluster import ClusterResources, WorkerRequest, fit_count
from iqray.errors import StudyError

NODES = ClusterResources(num_cpus=12, num_gpus=2, max_node_cpus=8, max_node_gpus=1)


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        (WorkerRequest("scoring", None, 1), 12),
        (WorkerRequest("scoring", None, 2), 6),
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
        (WorkerRequest("training", None, 16), r"training\.num_cpus is 16.*largest node has 8"),
        (WorkerRequest("training", None, 1, 2), r"training\.num_gpus is 2.*largest node has 1"),
        (WorkerRequest("scoring", 20, 1), r"scoring asks for 20 workers.*only 12 fit"),
        (WorkerRequest("scoring", 3, 1, 1), r"only 2 fit \(12 CPUs, 2 GPUs\)"),
    ],
)
def test_what_cannot_fit_is_explained(request_: WorkerRequest, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        fit_count(request_, NODES)
