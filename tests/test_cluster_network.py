"""`cluster/kuberay/network-policies.yaml`: who can reach whom, and that loosened copies differ."""

from typing import Any

import pytest

from tests.cluster_files import REMOVED, change, read_manifests
from tests.network_policies import Peer, may_connect, may_enter, may_leave

RAY = {"ray.io/is-ray-node": "yes"}
HEAD = Peer({**RAY, "ray.io/node-type": "head"})
WORKER = Peer({**RAY, "ray.io/node-type": "worker"})
SUBMITTER = Peer({"app.kubernetes.io/component": "iqray-submitter"})
NEIGHBOUR = Peer({"app": "notebook"})
STRANGER = Peer({"app.kubernetes.io/name": "prometheus"}, namespace="default")
OPERATOR = Peer({"app.kubernetes.io/name": "kuberay-operator"}, namespace="kuberay-system")
INMATE = Peer({"app": "shell"}, namespace="kuberay-system")
PROMETHEUS = Peer({"app.kubernetes.io/name": "prometheus"}, namespace="monitoring")
DNS = Peer({"k8s-app": "kube-dns"}, namespace="kube-system")
INTERNET = Peer(address="52.216.0.1")
METADATA = Peer(address="169.254.169.254")
API_SERVER = Peer(address="172.20.0.1")
GKE = "NetworkPolicy/allow-workload-identity"

GCS, DASHBOARD, AGENT, METRICS, TLS = 6379, 8265, 52365, 8080, 443

ALLOWED = [
    (WORKER, HEAD, GCS),
    (HEAD, WORKER, AGENT),
    (SUBMITTER, HEAD, DASHBOARD),
    (OPERATOR, HEAD, DASHBOARD),
    (PROMETHEUS, HEAD, METRICS),
    (PROMETHEUS, HEAD, 44217),
    (PROMETHEUS, HEAD, 44227),
    (PROMETHEUS, WORKER, METRICS),
    (WORKER, INTERNET, TLS),
    (HEAD, API_SERVER, TLS),
    (HEAD, API_SERVER, 6443),
]
# Whom a pod does not let in, whatever the other end's own policies are.
SHUT_OUT = [
    *[(source, HEAD, DASHBOARD) for source in (NEIGHBOUR, STRANGER, INTERNET, PROMETHEUS, INMATE)],
    *[(source, HEAD, GCS) for source in (NEIGHBOUR, STRANGER, INTERNET, SUBMITTER, OPERATOR)],
    *[(source, WORKER, METRICS) for source in (NEIGHBOUR, STRANGER, INTERNET, SUBMITTER)],
    *[(source, WORKER, AGENT) for source in (NEIGHBOUR, STRANGER, PROMETHEUS, OPERATOR)],
    (STRANGER, NEIGHBOUR, DASHBOARD),
]
# What a pod cannot reach, whatever the other end lets in.
SHUT_IN = [
    (WORKER, METADATA, 80),
    (WORKER, METADATA, TLS),
    (WORKER, API_SERVER, TLS),
    (WORKER, INTERNET, 80),
    (WORKER, NEIGHBOUR, DASHBOARD),
    (SUBMITTER, INTERNET, TLS),
    (SUBMITTER, HEAD, GCS),
    (NEIGHBOUR, INTERNET, TLS),
    (NEIGHBOUR, HEAD, DASHBOARD),
]


def list_policies(manifests: dict[str, Any]) -> list[dict[str, Any]]:
    """All policies but the one for GKE."""
    return [
        manifest
        for name, manifest in manifests.items()
        if manifest["kind"] == "NetworkPolicy" and name != GKE
    ]


def list_errors(manifests: dict[str, Any]) -> list[tuple[Peer, Peer, int]]:
    """Connections that are open and must not be, or closed and must not be."""
    policies = list_policies(manifests)
    closed = [entry for entry in ALLOWED if not may_connect(policies, *entry)]
    entered = [entry for entry in SHUT_OUT if may_enter(policies, *entry)]
    left = [entry for entry in SHUT_IN if may_leave(policies, *entry)]
    return closed + entered + left


def test_only_what_is_needed_is_open() -> None:
    assert list_errors(read_manifests()) == []


def test_names_can_be_looked_up() -> None:
    policies = list_policies(read_manifests())
    for pod in (HEAD, WORKER, SUBMITTER):
        assert may_leave(policies, pod, DNS, 53, "UDP")
        assert may_leave(policies, pod, DNS, 53, "TCP")


def test_credentials_of_the_node_only_with_the_policy_for_gke() -> None:
    manifests = read_manifests()
    policies = list_policies(manifests)
    assert not may_connect(policies, WORKER, METADATA, 80)
    assert may_connect([*policies, manifests[GKE]], WORKER, METADATA, 80)
    assert not may_connect([*policies, manifests[GKE]], SUBMITTER, METADATA, 80)


def test_the_submitting_pod_has_the_label_that_lets_it_through() -> None:
    job = read_manifests()["RayJob/iqray-full-grid"]["spec"]
    assert job["submitterPodTemplate"]["metadata"]["labels"] == SUBMITTER.labels


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("NetworkPolicy/deny-all",), REMOVED),
        (("NetworkPolicy/deny-all", "spec", "policyTypes"), ["Egress"]),
        (("NetworkPolicy/deny-all", "spec", "podSelector"), {"matchLabels": {"a": "b"}}),
        (("NetworkPolicy/allow-ray-nodes",), REMOVED),
        (("NetworkPolicy/allow-ray-nodes", "spec", "ingress", 0, "from"), [{"podSelector": {}}]),
        (("NetworkPolicy/allow-ray-nodes", "spec", "ingress", 0), {}),
        (("NetworkPolicy/allow-jobs-api", "spec", "ingress", 0, "ports"), REMOVED),
        (("NetworkPolicy/allow-jobs-api", "spec", "ingress", 0, "from", 0, "podSelector"), {}),
        (
            ("NetworkPolicy/allow-jobs-api", "spec", "ingress", 0, "from"),
            [{"ipBlock": {"cidr": "0.0.0.0/0"}}],
        ),
        (
            ("NetworkPolicy/allow-prometheus", "spec", "ingress", 0, "from", 0),
            {"namespaceSelector": {}},
        ),
        (("NetworkPolicy/allow-prometheus", "spec", "ingress", 0, "ports"), REMOVED),
        (("NetworkPolicy/allow-submitter", "spec", "podSelector"), {}),
        (("NetworkPolicy/allow-submitter", "spec", "egress", 0, "ports"), REMOVED),
        (
            ("NetworkPolicy/allow-object-storage", "spec", "egress", 0, "to", 0, "ipBlock"),
            {"cidr": "0.0.0.0/0"},
        ),
        (("NetworkPolicy/allow-object-storage", "spec", "egress", 0, "ports"), REMOVED),
        (("NetworkPolicy/allow-object-storage", "spec", "podSelector"), {}),
        (("NetworkPolicy/allow-api-server", "spec", "podSelector"), {"matchLabels": RAY}),
    ],
)
def test_changed_copies_are_found_out(path: tuple[Any, ...], value: Any) -> None:
    assert list_errors(change(read_manifests(), path, value))
