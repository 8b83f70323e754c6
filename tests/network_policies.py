"""What a set of NetworkPolicies lets through: a reader of the rules of networking.k8s.io/v1.

Traffic of a pod is free in a direction until a policy of that direction selects the pod; from then
on what any of them allows passes, and nothing else.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Labels = dict[str, str]
Policies = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or an address outside."""

    labels: Labels = field(default_factory=dict)
    namespace: str = "iqray"
    address: str | None = None


def may_connect(policies: Policies, source: Peer, target: Peer, port: int) -> bool:
    """Whether both ends allow a connection."""
    return may_leave(policies, source, target, port) and may_enter(policies, source, target, port)


def may_leave(
    policies: Policies, source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether the policies of the source let it begin a connection."""
    return _is_allowed(policies, "Egress", source, target, port, protocol)


def may_enter(
    policies: Policies, source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether the policies of the target let a connection in."""
    return _is_allowed(policies, "Ingress", target, source, port, protocol)


def _is_allowed(
    policies: Policies, direction: str, own: Peer, other: Peer, port: int, protocol: str
) -> bool:
    if own.address is not None or own.namespace != "iqray":
        return True
    specs = [policy["spec"] for policy in policies]
    applying = [
        spec
        for spec in specs
        if direction in spec["policyTypes"] and _selects(spec["podSelector"], own.labels)
    ]
    rules = [rule for spec in applying for rule in spec.get(direction.lower(), [])]
    peers = "from" if direction == "Ingress" else "to"
    return not applying or any(
        _has_port(rule, port, protocol)
        and (peers not in rule or any(_is_peer(entry, other) for entry in rule[peers]))
        for rule in rules
    )


def _has_port(rule: dict[str, Any], port: int, protocol: str) -> bool:
    entry = {"port": port, "protocol": protocol}
    return "ports" not in rule or entry in rule["ports"]


def _is_peer(entry: dict[str, Any], peer: Peer) -> bool:
    if "ipBlock" in entry:
        return peer.address is not None and _is_in_block(entry["ipBlock"], peer.address)
    if peer.address is not None:
        return False
    if "namespaceSelector" in entry:
        own = {"kubernetes.io/metadata.name": peer.namespace}
        if not _selects(entry["namespaceSelector"], own):
            return False
    elif peer.namespace != "iqray":
        return False
    return _selects(entry.get("podSelector", {}), peer.labels)


def _is_in_block(block: dict[str, Any], address: str) -> bool:
    host = ipaddress.ip_address(address)
    return host in ipaddress.ip_network(block["cidr"]) and not any(
        host in ipaddress.ip_network(part) for part in block.get("except", [])
    )


def _selects(selector: dict[str, Any], labels: Labels) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()
