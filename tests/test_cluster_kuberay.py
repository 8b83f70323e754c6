"""`cluster/kuberay/`: schemas without unknown fields, and rules that broken copies fail."""

import functools
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests import kuberay_rules as rules
from tests.cluster_files import PROJECT, REMOVED, change, read_manifests

SCHEMAS = PROJECT / "tests/schemas"
# Kind and the schema of its objects.
KINDS = {
    "RayCluster": "kuberay#/$defs/RayCluster",
    "RayJob": "kuberay#/$defs/RayJob",
    "Namespace": "kubernetes#/$defs/V1Namespace",
    "NetworkPolicy": "kubernetes#/$defs/V1NetworkPolicy",
    "ServiceAccount": "kubernetes#/$defs/V1ServiceAccount",
}

Rule = Callable[[rules.Manifests], None]

CLUSTER = ("RayCluster/iqray", "spec")
HEAD = (*CLUSTER, "headGroupSpec")
HEAD_POD = (*HEAD, "template", "spec")
GPU = (*CLUSTER, "workerGroupSpecs", 1)
GPU_POD = (*GPU, "template", "spec")
AUTOSCALER = (*CLUSTER, "autoscalerOptions")
JOB = ("RayJob/iqray-full-grid", "spec")
SUBMITTER = (*JOB, "submitterPodTemplate", "spec")

# A rule, and what breaks it: a place in the manifests with another value.
BROKEN: list[tuple[Rule, tuple[Any, ...], Any]] = [
    (rules.check_names, ("RayCluster/iqray", "metadata", "name"), "9-lives"),
    (rules.check_names, ("RayJob/iqray-full-grid", "metadata", "name"), "n" * 48),
    (rules.check_groups, (*HEAD_POD, "containers"), []),
    (rules.check_groups, (*GPU, "minReplicas"), 9),
    (rules.check_groups, (*GPU, "suspend"), True),
    (rules.check_groups, (*GPU, "rayStartParams"), {"labels": "a=b"}),
    (rules.check_groups, (*HEAD, "resources"), {"CPU": "0"}),
    (rules.check_autoscaler, (*CLUSTER, "enableInTreeAutoscaling"), False),
    (rules.check_autoscaler, (*AUTOSCALER, "version"), "v1"),
    (rules.check_autoscaler, (*AUTOSCALER, "idleTimeoutSeconds"), -1),
    (rules.check_autoscaler, (*HEAD_POD, "restartPolicy"), "Always"),
    (rules.check_autoscaler, (*GPU_POD, "restartPolicy"), "OnFailure"),
    (
        rules.check_autoscaler,
        (*HEAD_POD, "containers", 0, "env"),
        [{"name": "RAY_enable_autoscaler_v2", "value": "1"}],
    ),
    (rules.check_authentication, (*CLUSTER, "authOptions"), REMOVED),
    (rules.check_authentication, (*CLUSTER, "authOptions", "mode"), "disabled"),
    (rules.check_authentication, (*CLUSTER, "authOptions", "enableK8sTokenAuth"), True),
    (rules.check_authentication, (*CLUSTER, "rayVersion"), "2.51.0"),
    (rules.check_authentication, (*JOB, "rayClusterSpec", "rayVersion"), REMOVED),
    (rules.check_storage_of_gcs, (*HEAD, "rayStartParams"), {"redis-username": "ray"}),
    (
        rules.check_storage_of_gcs,
        (*HEAD_POD, "containers", 0, "env"),
        [{"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}],
    ),
    (rules.check_jobs, (*JOB, "clusterSelector"), {"ray.io/cluster": "iqray"}),
    (rules.check_jobs, (*JOB, "backoffLimit"), REMOVED),
    (rules.check_jobs, (*JOB, "submissionMode"), "InteractiveMode"),
    (rules.check_jobs, (*JOB, "shutdownAfterJobFinishes"), False),
    (rules.check_jobs, (*JOB, "ttlSecondsAfterFinished"), -1),
    (rules.check_jobs, (*JOB, "deletionStrategy"), {"deletionRules": []}),
    (rules.check_jobs, (*JOB, "preRunningDeadlineSeconds"), 0),
    (rules.check_one_cluster, (*GPU, "maxReplicas"), 9),
    (rules.check_head, (*HEAD, "rayStartParams", "num-cpus"), "4"),
    (rules.check_head, (*HEAD, "serviceType"), "LoadBalancer"),
    (rules.check_head, (*HEAD, "enableIngress"), True),
    (rules.check_head, (*HEAD, "headService"), {"spec": {"type": "NodePort"}}),
    (rules.check_head, (*HEAD_POD, "nodeSelector"), {"iqray/pool": "gpu-spot"}),
    (rules.check_head, (*HEAD_POD, "tolerations"), [{"operator": "Exists"}]),
    (rules.check_head, (*HEAD, "template", "metadata"), REMOVED),
    (rules.check_workers, (*GPU, "minReplicas"), 1),
    (rules.check_workers, (*GPU_POD, "nodeSelector"), REMOVED),
    (rules.check_workers, (*GPU_POD, "containers", 0, "resources"), {"limits": {"cpu": "1"}}),
    (rules.check_resources, (*GPU_POD, "containers", 0, "resources", "limits", "cpu"), "15"),
    (rules.check_resources, (*HEAD_POD, "containers", 0, "resources", "requests"), REMOVED),
    (rules.check_resources, (*AUTOSCALER, "resources"), REMOVED),
    (rules.check_resources, (*SUBMITTER, "containers", 0, "resources"), {"limits": {"cpu": "1"}}),
    (rules.check_not_root, (*HEAD_POD, "securityContext"), REMOVED),
    (rules.check_not_root, (*GPU_POD, "securityContext", "runAsUser"), 0),
    (rules.check_not_root, (*GPU_POD, "containers", 0, "securityContext"), REMOVED),
    (
        rules.check_not_root,
        (*GPU_POD, "containers", 0, "securityContext", "allowPrivilegeEscalation"),
        True,
    ),
    (rules.check_not_root, (*AUTOSCALER, "securityContext", "capabilities"), {}),
    (rules.check_not_root, (*SUBMITTER, "containers", 0, "securityContext"), {}),
    (rules.check_not_root, (*GPU_POD, "hostNetwork"), True),
    (
        rules.check_not_root,
        (*GPU_POD, "volumes"),
        [{"name": "root", "hostPath": {"path": "/"}}],
    ),
    (rules.check_not_root, ("Namespace/iqray", "metadata", "labels"), {}),
    (rules.check_images, (*GPU_POD, "containers", 0, "image"), "rayproject/ray:2.60.0"),
    (rules.check_images, (*AUTOSCALER, "image"), "rayproject/ray:latest"),
    (rules.check_accounts, (*GPU_POD, "serviceAccountName"), "iqray-head"),
    (rules.check_accounts, (*GPU_POD, "serviceAccountName"), "default"),
    (rules.check_accounts, (*GPU_POD, "automountServiceAccountToken"), REMOVED),
    (rules.check_accounts, (*SUBMITTER, "automountServiceAccountToken"), True),
    (
        rules.check_accounts,
        ("ServiceAccount/iqray-worker", "automountServiceAccountToken"),
        REMOVED,
    ),
    (
        rules.check_no_secrets,
        (*GPU_POD, "containers", 0, "env", 0),
        {"name": "RAY_AUTH_TOKEN", "value": "6d5f"},
    ),
    (rules.check_no_secrets, ("Secret/iqray",), {"kind": "Secret"}),
    (rules.check_namespace, ("RayCluster/iqray", "metadata", "namespace"), "default"),
]


@functools.cache
def load_schemas() -> Registry[Any]:
    contents = {
        "kubernetes": json.loads((SCHEMAS / "kubernetes.json").read_text()),
        "kuberay": yaml.safe_load((SCHEMAS / "kuberay.yaml").read_text()),
    }
    pairs = [
        (name, Resource.from_contents(content, default_specification=DRAFT202012))
        for name, content in contents.items()
    ]
    return Registry().with_resources(pairs)


def validate(manifest: dict[str, Any]) -> None:
    schema = {"$ref": KINDS[manifest["kind"]]}
    jsonschema.Draft202012Validator(schema, registry=load_schemas()).validate(manifest)


@pytest.mark.parametrize("name", read_manifests())
def test_manifests_match_their_schemas(name: str) -> None:
    validate(read_manifests()[name])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*CLUSTER, "autoscalerOption"), {}),
        ((*CLUSTER, "authOptions", "mode"), "tokens"),
        ((*GPU, "maxReplicas"), "8"),
        ((*GPU, "minReplicas"), REMOVED),
        ((*GPU_POD, "containers", 0, "resources", "limit"), {}),
        ((*GPU_POD, "containers", 0, "securityContext", "runAsNonroot"), True),
        ((*GPU_POD, "containers", 0, "resources", "limits", "cpu"), 14),
        ((*JOB, "backofLimit"), 3),
        ((*JOB, "submissionMode"), "Mail"),
        (("NetworkPolicy/deny-all", "spec", "policyType"), ["Ingress"]),
        (("ServiceAccount/iqray-worker", "automountToken"), False),
    ],
)
def test_schemas_refuse_what_they_do_not_know(path: tuple[Any, ...], value: Any) -> None:
    broken = change(read_manifests(), path, value)
    with pytest.raises(jsonschema.ValidationError):
        validate(broken[path[0]])


@pytest.mark.parametrize("rule", dict.fromkeys(case[0] for case in BROKEN))
def test_rules_hold(rule: Rule) -> None:
    rule(read_manifests())


@pytest.mark.parametrize(("rule", "path", "value"), BROKEN)
def test_broken_copies_fail(rule: Rule, path: tuple[Any, ...], value: Any) -> None:
    broken = change(read_manifests(), path, value)
    with pytest.raises((AssertionError, KeyError)):
        rule(broken)


def test_every_rule_is_used() -> None:
    checks = {value for name, value in vars(rules).items() if name.startswith("check_")}
    assert checks == {case[0] for case in BROKEN}
