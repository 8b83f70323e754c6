"""`cluster/README.md`: the files that it names are there, and its commands fit them."""

import re
import subprocess
import sys

import pytest

from tests.cluster_files import CLUSTER, PROJECT, read_manifests, read_ray_up

TEXT = (CLUSTER / "README.md").read_text()


def test_every_file_is_explained() -> None:
    for path in CLUSTER.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert path.name in TEXT, path


def test_files_that_are_named_exist() -> None:
    named = re.findall(
        r"\b(?:cluster|jobs|tests|kuberay|grafana)/[\w./*-]+\.(?:yaml|py|json)", TEXT
    )
    assert len(named) > 10
    for name in named:
        assert list(PROJECT.glob(name)) or list(CLUSTER.glob(name)), name


def test_jobs_have_the_options_that_are_named() -> None:
    for job in ("full_grid", "prefetch_weights", "benchmark"):
        commands = re.findall(rf"jobs/{job}\.py((?: --?[\w-]+| [\w:/.-]+)+)", TEXT)
        options = {word for command in commands for word in command.split() if word[:2] == "--"}
        assert options
        command = [sys.executable, f"jobs/{job}.py", "--help"]
        text = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
        assert options <= set(re.findall(r"--[\w-]+", text.stdout)), job


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_roles_networks_and_accounts_are_those_of_the_files(name: str) -> None:
    text = (CLUSTER / name).read_text()
    for word in ("iqray-head", "iqray-worker"):
        assert word in text
        assert word in TEXT
    if name == "gcp.yaml":
        for word in ("iqray-host", "subnetworks/iqray"):
            assert word in text
        assert "images create iqray-host" in TEXT
        assert "subnets create iqray " in TEXT
    assert list(read_ray_up(name)["file_mounts"].values()) == ["~/.iqray"]


def test_commands_for_kubernetes_name_what_the_manifests_make() -> None:
    manifests = read_manifests()
    job = manifests["RayJob/iqray-full-grid"]["spec"]["rayClusterSpec"]
    [volume] = job["headGroupSpec"]["template"]["spec"]["volumes"]
    assert f"create configmap {volume['configMap']['name']} -n iqray --from-file=study.yaml" in TEXT
    assert "get rayjob -n iqray iqray-full-grid" in TEXT
    pools = {
        group["template"]["spec"]["nodeSelector"]["iqray/pool"]
        for group in [job["headGroupSpec"], *job["workerGroupSpecs"]]
    }
    assert pools == set(re.findall(r"iqray/pool=([\w-]+)", TEXT))
