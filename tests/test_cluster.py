from ray.core.generated.autoscaler_pb2 import ClusterConfig

from iqray.cluster import list_future_nodes
from iqray.resources import ClusterResources, NodeResources, WorkerRequest, fit_count

HEAD = NodeResources(0, 0)


def make_config(*groups: tuple[dict[str, int], int]) -> ClusterConfig:
    config = ClusterConfig()
    for resources, max_count in groups:
        group = config.node_group_configs.add()
        group.resources.update(resources)
        group.max_count = max_count
    return config


def test_without_an_autoscaler_there_are_no_more_nodes() -> None:
    assert list(list_future_nodes([HEAD], None)) == []


def test_groups_count_up_to_their_largest_number() -> None:
    config = make_config(({"CPU": 16, "GPU": 1}, 3), ({"CPU": 64}, 2))
    alive = [HEAD, NodeResources(16, 1)]
    future = list(list_future_nodes(alive, config))
    assert future == [NodeResources(16, 1)] * 2 + [NodeResources(64, 0)] * 2


def test_a_cluster_of_no_workers_yet_can_be_asked_for_gpus() -> None:
    config = make_config(({"CPU": 16, "GPU": 1}, 4))
    cluster = ClusterResources((HEAD,), tuple(list_future_nodes([HEAD], config)))
    assert fit_count(WorkerRequest("scoring", num_cpus=4, num_gpus=0.5), cluster) == 8


def test_groups_without_end_are_many() -> None:
    assert len(list(list_future_nodes([], make_config(({"CPU": 1}, -1))))) >= 1000
