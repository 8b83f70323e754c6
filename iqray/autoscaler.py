"""What a cluster's autoscaler may still add.

Ray has a field in which an autoscaler can say so, but that of Ray 2.60 leaves it empty. Therefore
its settings are read where it reads them itself: on the head, in the file that `ray up` leaves
there or, under KubeRay, in the cluster's object in Kubernetes.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from iqray.resources import NodeResources

logger = logging.getLogger(__name__)

# For node groups without end: KubeRay's default for the largest number is 2^31 - 1.
_MANY_NODES = 1000

# Where `ray up` puts the settings on the head, as the start commands of cluster/*.yaml name it.
_RAY_UP_FILE = Path("~/ray_bootstrap_config.yaml")

# Where Kubernetes tells a pod its namespace.
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one kind that an autoscaler may have.

    Attributes:
        node: what each has.
        max_nodes: at the same time, those that are alive included.
    """

    node: NodeResources
    max_nodes: int


def list_future_nodes(
    alive: Sequence[NodeResources], groups: Sequence[NodeGroup]
) -> Iterator[NodeResources]:
    """Nodes that the cluster's autoscaler may still add.

    Args:
        alive: nodes that are there, which count towards their group's largest number.
        groups: of the autoscaler; none without one.
    """
    there = Counter(alive)
    for group in groups:
        for _ in range(max(0, group.max_nodes - there[group.node])):
            yield group.node


def read_groups() -> list[NodeGroup]:
    """Node groups of the joined cluster's autoscaler, as far as this process can know them.

    Only what the cluster reports itself is known away from its head.
    """
    groups = list_reported_groups(_read_report())
    if groups or not _is_on_head():
        return groups
    settings = _read_kuberay() if "RAY_CLUSTER_NAME" in os.environ else _read_ray_up()
    return list_groups(settings)


def list_reported_groups(report: Any) -> list[NodeGroup]:
    """Node groups of Ray's ClusterConfig; none without one."""
    return [
        NodeGroup(
            _find_resources(group.resources),
            _MANY_NODES if group.max_count < 0 else min(_MANY_NODES, group.max_count),
        )
        for group in (report.node_group_configs if report is not None else ())
    ]


def list_groups(settings: Mapping[str, Any]) -> list[NodeGroup]:
    """Groups of workers in an autoscaler's settings, which have the form of `ray up`'s file."""
    most = min(_MANY_NODES, settings.get("max_workers", _MANY_NODES))
    return [
        NodeGroup(
            _find_resources(group.get("resources", {})), min(most, group.get("max_workers", most))
        )
        for name, group in settings.get("available_node_types", {}).items()
        if name != settings.get("head_node_type")
    ]


def derive_kuberay_settings(cluster: dict[str, Any]) -> Mapping[str, Any]:
    """Settings that KubeRay's autoscaler makes of a RayCluster; none if it has no autoscaler."""
    if not cluster["spec"].get("enableInTreeAutoscaling"):
        return {}
    from ray.autoscaler._private.kuberay import autoscaling_config

    return dict(autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster))


def _find_resources(resources: Mapping[str, float]) -> NodeResources:
    return NodeResources(resources.get("CPU", 0), resources.get("GPU", 0))


def _read_report() -> Any:
    """What the autoscaler reports, for which Ray has no public call."""
    try:
        from ray._private.state import state

        return state.get_cluster_config()
    except (ImportError, AttributeError):
        return None


def _is_on_head() -> bool:
    import ray

    own = ray.get_runtime_context().get_node_id()
    return any(
        node["NodeID"] == own and "node:__internal_head__" in node["Resources"]
        for node in ray.nodes()
    )


def _read_ray_up() -> Mapping[str, Any]:
    path = _RAY_UP_FILE.expanduser()
    return yaml.safe_load(path.read_text()) if path.is_file() else {}


def _read_kuberay() -> Mapping[str, Any]:
    """Settings from Kubernetes, which the head's service account may ask for its own cluster."""
    name = os.environ["RAY_CLUSTER_NAME"]
    try:
        from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

        client = KubernetesHttpApiClient(_NAMESPACE_FILE.read_text())
        return derive_kuberay_settings(client.get(f"rayclusters/{name}"))
    except (ImportError, AttributeError, LookupError, OSError, ValueError) as error:
        logger.warning("cannot read the RayCluster '%s' from Kubernetes: %s", name, error)
        return {}
