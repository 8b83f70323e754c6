"""What KubeRay's operator checks in code, and what iqray's manifests must keep to beyond that.

The operator's rules are those of `ValidateRayClusterSpec` and `ValidateRayJobSpec` in KubeRay 1.7
(ray-operator/controllers/ray/utils/validation.go), as far as they concern fields that are set here.
Each rule raises if it is broken.
"""

import re
from collections.abc import Iterator
from typing import Any

Manifest = dict[str, Any]
Manifests = dict[str, Manifest]

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
RESOURCE_PARAMS = {"num-cpus", "num-gpus", "memory", "resources"}
HEAD_POOL = {"iqray/pool": "head"}


def list_clusters(manifests: Manifests) -> Iterator[tuple[str, Manifest]]:
    """Specs of Ray clusters, those inside jobs included."""
    for name, manifest in manifests.items():
        if manifest["kind"] == "RayCluster":
            yield name, manifest["spec"]
        if manifest["kind"] == "RayJob":
            yield name, manifest["spec"]["rayClusterSpec"]


def list_jobs(manifests: Manifests) -> list[Manifest]:
    """Specs of Ray jobs."""
    return [manifest["spec"] for manifest in manifests.values() if manifest["kind"] == "RayJob"]


def list_groups(cluster: Manifest) -> list[Manifest]:
    """Head and worker groups."""
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def list_pods(manifests: Manifests) -> Iterator[Manifest]:
    """Specs of all pods: heads, workers, and those that submit jobs."""
    for _, cluster in list_clusters(manifests):
        for group in list_groups(cluster):
            yield group["template"]["spec"]
    for job in list_jobs(manifests):
        yield job["submitterPodTemplate"]["spec"]


def list_containers(manifests: Manifests) -> Iterator[Manifest]:
    """All containers, the autoscaler's included."""
    for pod in list_pods(manifests):
        yield from pod.get("initContainers", [])
        yield from pod["containers"]
    for _, cluster in list_clusters(manifests):
        yield cluster["autoscalerOptions"]


# The operator's rules.


def check_names(manifests: Manifests) -> None:
    """Names are short DNS labels: KubeRay makes pods' and services' names of them."""
    for manifest in manifests.values():
        name = manifest["metadata"]["name"]
        assert DNS_LABEL.fullmatch(name)
        assert len(name) <= 47


def check_groups(manifests: Manifests) -> None:
    """Each group has a container, sizes in order, and its resources and labels in one place."""
    for _, cluster in list_clusters(manifests):
        for group in list_groups(cluster):
            assert group["template"]["spec"]["containers"]
            assert "labels" not in group["rayStartParams"]
            assert not (RESOURCE_PARAMS & set(group["rayStartParams"]) and group.get("resources"))
        for group in cluster["workerGroupSpecs"]:
            assert 0 <= group["minReplicas"] <= group["maxReplicas"]
            assert not group.get("suspend")


def check_autoscaler(manifests: Manifests) -> None:
    """Autoscaler v2, whose pods are never restarted in place, and named in one way only."""
    for _, cluster in list_clusters(manifests):
        assert cluster["enableInTreeAutoscaling"] is True
        assert cluster["autoscalerOptions"]["version"] == "v2"
        assert cluster["autoscalerOptions"].get("idleTimeoutSeconds", 0) >= 0
        for group in list_groups(cluster):
            pod = group["template"]["spec"]
            assert pod.get("restartPolicy", "Never") == "Never"
            names = {entry["name"] for entry in pod["containers"][0].get("env", [])}
            assert "RAY_enable_autoscaler_v2" not in names


def check_authentication(manifests: Manifests) -> None:
    """Token mode on every cluster, of a Ray that has it; not Kubernetes' own, which jobs lack."""
    for _, cluster in list_clusters(manifests):
        assert cluster["authOptions"]["mode"] == "token"
        assert not cluster["authOptions"].get("enableK8sTokenAuth")
        assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0)


def check_storage_of_gcs(manifests: Manifests) -> None:
    """No Redis behind the operator's back: that turns on what the manifests do not set up."""
    for _, cluster in list_clusters(manifests):
        head = cluster["headGroupSpec"]
        assert not {"redis-username", "redis-password"} & set(head["rayStartParams"])
        env = head["template"]["spec"]["containers"][0].get("env", [])
        assert not {entry["name"] for entry in env} & {"RAY_REDIS_ADDRESS", "REDIS_USERNAME"}


def check_jobs(manifests: Manifests) -> None:
    """A job makes its own cluster, which a retry needs, and takes it away at its end."""
    for job in list_jobs(manifests):
        assert "rayClusterSpec" in job
        assert "clusterSelector" not in job
        assert job["backoffLimit"] >= 1
        assert job.get("submissionMode", "K8sJobMode") == "K8sJobMode"
        assert job["shutdownAfterJobFinishes"] is True
        assert job["ttlSecondsAfterFinished"] >= 0
        assert "deletionStrategy" not in job
        assert job["preRunningDeadlineSeconds"] > 0


# iqray's own rules.


def check_one_cluster(manifests: Manifests) -> None:
    """The job's cluster is the one of the RayCluster."""
    specs = [cluster for _, cluster in list_clusters(manifests)]
    assert len(specs) == 2
    assert specs[0] == specs[1]


def check_head(manifests: Manifests) -> None:
    """The head runs no tasks, is on demand, stays where it is, and is not offered outside."""
    for _, cluster in list_clusters(manifests):
        head = cluster["headGroupSpec"]
        assert head["rayStartParams"]["num-cpus"] == "0"
        assert head["serviceType"] == "ClusterIP"
        assert not head.get("enableIngress")
        assert "headService" not in head
        assert head["template"]["spec"]["nodeSelector"] == HEAD_POOL
        assert not head["template"]["spec"].get("tolerations")
        annotations = head["template"]["metadata"]["annotations"]
        assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        assert annotations["karpenter.sh/do-not-disrupt"] == "true"


def check_workers(manifests: Manifests) -> None:
    """Workers go from 0 up, GPU workers on spot nodes."""
    for _, cluster in list_clusters(manifests):
        groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
        assert {group["minReplicas"] for group in groups.values()} == {0}
        pod = groups["gpu-spot"]["template"]["spec"]
        assert pod["nodeSelector"] == {"iqray/pool": "gpu-spot"}
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def check_resources(manifests: Manifests) -> None:
    """Requests are limits, so that no pod is throttled or put to death for another's use."""
    for container in list_containers(manifests):
        requests = container["resources"]["requests"]
        assert requests == container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(requests)


def check_not_root(manifests: Manifests) -> None:
    """Pods and containers are what Pod Security calls restricted."""
    for pod in list_pods(manifests):
        assert pod["securityContext"]["runAsUser"] > 0
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not [volume for volume in pod.get("volumes", []) if "hostPath" in volume]
    for container in list_containers(manifests):
        context = container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    labels = manifests["Namespace/iqray"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def check_images(manifests: Manifests) -> None:
    """One image with a tag, everywhere."""
    images = {container["image"] for container in list_containers(manifests) if "name" in container}
    assert len(images) == 1
    _, tag = images.pop().rsplit(":", 1)
    assert "latest" not in tag
    assert not any(
        "image" in cluster["autoscalerOptions"] for _, cluster in list_clusters(manifests)
    )


def check_accounts(manifests: Manifests) -> None:
    """Only heads, for their autoscaler, hold a token of Kubernetes' API; accounts are defined."""
    assert manifests["ServiceAccount/iqray-worker"]["automountServiceAccountToken"] is False
    for pod in list_pods(manifests):
        assert f"ServiceAccount/{pod['serviceAccountName']}" in manifests
        if pod["serviceAccountName"] != "iqray-head":
            assert pod["automountServiceAccountToken"] is False
    for _, cluster in list_clusters(manifests):
        for group in cluster["workerGroupSpecs"]:
            assert group["template"]["spec"]["serviceAccountName"] == "iqray-worker"


def check_no_secrets(manifests: Manifests) -> None:
    """No secret is in a manifest, and no environment variable could be one."""
    assert not [name for name in manifests if name.startswith("Secret/")]
    for container in list_containers(manifests):
        for entry in container.get("env", []):
            assert not re.search(r"TOKEN|KEY|SECRET|PASSWORD", entry["name"])


def check_namespace(manifests: Manifests) -> None:
    """Everything is in the namespace that the network policies close."""
    for name, manifest in manifests.items():
        if name != "Namespace/iqray":
            assert manifest["metadata"]["namespace"] == "iqray"
