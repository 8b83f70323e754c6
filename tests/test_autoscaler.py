from typing import Any

import pytest
import yaml
from ray.core.generated.autoscaler_pb2 import ClusterConfig

from iqray.autoscaler import (
    NodeGroup,
    derive_kuberay_settings,
    list_future_nodes,
    list_groups,
    list_reported_groups,
)
from iqray.resources import ClusterResources, NodeResources, WorkerRequest, fit_count
from tests.cluster_files import CLUSTER

HEAD = NodeResources(0, 0)


def report(*groups: tuple[dict[str, int], int]) -> list[NodeGroup]:
    config = ClusterConfig()
    for resources, max_count in groups:
        group = config.node_group_configs.add()
        group.resources.update(resources)
        group.max_count = max_count
    return list_reported_groups(config)


def test_without_an_autoscaler_there_are_no_more_nodes() -> None:
    assert list(list_future_nodes([HEAD], list_reported_groups(None))) == []


def test_groups_count_up_to_their_largest_number() -> None:
    groups = report(({"CPU": 16, "GPU": 1}, 3), ({"CPU": 64}, 2))
    alive = [HEAD, NodeResources(16, 1)]
    future = list(list_future_nodes(alive, groups))
    assert future == [NodeResources(16, 1)] * 2 + [NodeResources(64, 0)] * 2


def test_a_cluster_of_no_workers_yet_can_be_asked_for_gpus() -> None:
    groups = report(({"CPU": 16, "GPU": 1}, 4))
    cluster = ClusterResources((HEAD,), tuple(list_future_nodes([HEAD], groups)))
    assert fit_count(WorkerRequest("scoring", num_cpus=4, num_gpus=0.5), cluster) == 8


@pytest.mark.parametrize("max_count", [-1, 2**31 - 1])
def test_groups_without_end_are_many_but_can_be_counted(max_count: int) -> None:
    assert len(list(list_future_nodes([], report(({"CPU": 1}, max_count))))) == 1000


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_files_of_ray_up_tell_their_groups(name: str) -> None:
    settings = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    cpu, gpu = NodeResources(32, 0), NodeResources(16, 1)
    assert list_groups(settings) == [NodeGroup(cpu, 4), NodeGroup(gpu, 8)]


def test_all_groups_together_bound_each() -> None:
    types = {"head": {"resources": {"CPU": 0}}, "cpu": {"resources": {"CPU": 2}}}
    settings = {"max_workers": 3, "head_node_type": "head", "available_node_types": types}
    assert list_groups(settings) == [NodeGroup(NodeResources(2, 0), 3)]


def read_raycluster() -> dict[str, Any]:
    return dict(yaml.safe_load((CLUSTER / "kuberay/ray-cluster.gpu.yaml").read_text()))


def test_a_raycluster_tells_its_groups() -> None:
    groups = list_groups(derive_kuberay_settings(read_raycluster()))
    assert groups == [NodeGroup(NodeResources(30, 0), 4), NodeGroup(NodeResources(14, 1), 8)]


def test_a_raycluster_whose_groups_have_no_end_can_be_counted() -> None:
    cluster = read_raycluster()
    for group in cluster["spec"]["workerGroupSpecs"]:
        group["maxReplicas"] = 2**31 - 1  # what KubeRay fills in
    groups = list_groups(derive_kuberay_settings(cluster))
    assert [group.max_nodes for group in groups] == [1000, 1000]


def test_a_raycluster_without_an_autoscaler_stays_as_it_is() -> None:
    cluster = read_raycluster()
    cluster["spec"]["enableInTreeAutoscaling"] = False
    assert list_groups(derive_kuberay_settings(cluster)) == []
