"""The files below `cluster/`, read once, and copies of them that are changed in one place."""

import functools
import json
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parent.parent
CLUSTER = PROJECT / "cluster"
REMOVED = object()


@functools.cache
def read_ray_up(name: str) -> dict[str, Any]:
    """A configuration of `ray up`."""
    return yaml.safe_load((CLUSTER / name).read_text())


@functools.cache
def read_manifests() -> dict[str, dict[str, Any]]:
    """Every object of every Kubernetes manifest, by `kind/name`."""
    manifests = {}
    for path in sorted((CLUSTER / "kuberay").glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            manifests[f"{manifest['kind']}/{manifest['metadata']['name']}"] = manifest
    return manifests


def change(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a path of keys and indices, or without it if `REMOVED`.

    What YAML's anchors share is copied apart, so that only that one place changes.
    """
    changed = json.loads(json.dumps(content))
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    if value is REMOVED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return changed
