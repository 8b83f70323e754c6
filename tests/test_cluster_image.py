"""The Dockerfile, and one version of Ray in everything that names it."""

import re
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import iqray
from tests.cluster_files import CLUSTER, PROJECT

# Every file that names a version of Ray, or of what must fit it.
NAMES = ("Dockerfile", "pyproject.toml", "requirements.lock", ".dockerignore")
NAMES += tuple(str(path.relative_to(PROJECT)) for path in sorted(CLUSTER.rglob("*.yaml")))

Files = dict[str, str]
OWN_IMAGE = re.compile(r"image:.*?registry\.example\.com/iqray:(\S+)")


def read_files() -> Files:
    return {name: (PROJECT / name).read_text() for name in NAMES}


def get_locked(files: Files, package: str) -> str:
    return re.findall(rf"^{package}==(\S+)", files["requirements.lock"], re.MULTILINE)[0]


def parse_base(files: Files) -> tuple[str, str, str]:
    """Versions of Ray, Python and CUDA of the base image, the last two as digits."""
    [base] = re.findall(r"^FROM (\S+)$", files["Dockerfile"], re.MULTILINE)
    match = re.fullmatch(r"rayproject/ray:([\d.]+)-py(\d+)-cu(\d+)(@sha256:[0-9a-f]{64})?", base)
    assert match, base
    return match[1], match[2], match[3]


def check_ray_versions(files: Files) -> None:
    """pyproject, lock, base image, manifests and our image's tag agree."""
    locked = get_locked(files, "ray")
    project: dict[str, Any] = tomllib.loads(files["pyproject.toml"])["project"]
    requirements = [Requirement(line) for line in project["dependencies"]]
    [ray] = [requirement for requirement in requirements if requirement.name == "ray"]
    assert ray.specifier.contains(locked)
    assert parse_base(files)[0] == locked
    manifests = "".join(files[name] for name in NAMES if name.startswith("cluster/"))
    assert set(re.findall(r"rayVersion: (\S+)", manifests)) == {locked}
    assert set(OWN_IMAGE.findall(manifests)) == {f"{iqray.__version__}-ray{locked}"}


def check_base_fits(files: Files) -> None:
    """The base's Python is one of ours, and its CUDA is of the major version that torch brings."""
    project = tomllib.loads(files["pyproject.toml"])["project"]
    _, python, cuda = parse_base(files)
    supported = Requirement(f"python{project['requires-python']}").specifier
    assert supported.contains(f"{python[0]}.{python[1:]}")
    assert int(cuda[:-1]) == Version(get_locked(files, "cuda-toolkit")).major


def check_hashes(files: Files) -> None:
    """Dependencies are those of the lock, each download checked."""
    [install] = re.findall(
        r"RUN uv pip install(?:.*\\\n)*.*requirements\.lock", files["Dockerfile"]
    )
    assert "--require-hashes" in install


def check_user(files: Files) -> None:
    """The container's user is not root, by number."""
    assert re.findall(r"^USER (\S+)", files["Dockerfile"], re.MULTILINE)[-1] == "1000"


def check_no_weights(files: Files) -> None:
    """Weights come into the image only when asked for."""
    assert 'ARG WEIGHTS=""\n' in files["Dockerfile"]


def check_context(files: Files) -> None:
    """What the build may see is listed; all else, such as .env and .git, stays out."""
    rules = [line for line in files[".dockerignore"].splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", files["Dockerfile"], re.MULTILINE)
    assert sent == {name for names in copied for name in names.split()}


Rule = Callable[[Files], None]
BROKEN: list[tuple[Rule, str, str, str]] = [
    (check_ray_versions, "pyproject.toml", "tune]>=2.60,<2.61", "tune]>=2.61,<2.62"),
    (check_ray_versions, "requirements.lock", "\nray==2.60.0", "\nray==2.60.1"),
    (check_ray_versions, "Dockerfile", "FROM rayproject/ray:2.60.0", "FROM rayproject/ray:2.59.0"),
    (check_ray_versions, "cluster/aws.yaml", "iqray:0.1.0-ray2.60.0", "iqray:0.1.0-ray2.59.0"),
    (check_ray_versions, "cluster/gcp.yaml", "iqray:0.1.0-ray2.60.0", "iqray:0.0.9-ray2.60.0"),
    (
        check_ray_versions,
        "cluster/kuberay/ray-cluster.gpu.yaml",
        "rayVersion: 2.60.0",
        "rayVersion: 2.59.0",
    ),
    (
        check_ray_versions,
        "cluster/kuberay/ray-job.full-grid.yaml",
        "iqray:0.1.0-ray2.60.0",
        "iqray:latest",
    ),
    (check_base_fits, "Dockerfile", "-py311-cu130\n\n", "-py310-cu130\n\n"),
    (check_base_fits, "Dockerfile", "-py311-cu130\n\n", "-py311-cu128\n\n"),
    (check_base_fits, "Dockerfile", "-py311-cu130\n\n", "-gpu\n\n"),
    (check_hashes, "Dockerfile", " --require-hashes", ""),
    (check_hashes, "Dockerfile", "--constraints requirements.lock", ""),
    (check_user, "Dockerfile", "\nUSER 1000\n", "\nUSER root\n"),
    (check_no_weights, "Dockerfile", 'ARG WEIGHTS=""', 'ARG WEIGHTS="niqe"'),
    (check_context, ".dockerignore", "\n*\n", "\n"),
    (check_context, ".dockerignore", "!jobs\n", "!jobs\n!.env\n"),
    (check_context, ".dockerignore", "!jobs\n", ""),
]


@pytest.mark.parametrize("rule", dict.fromkeys(case[0] for case in BROKEN))
def test_rules_hold(rule: Rule) -> None:
    rule(read_files())


@pytest.mark.parametrize(("rule", "name", "old", "new"), BROKEN)
def test_broken_copies_fail(rule: Rule, name: str, old: str, new: str) -> None:
    files = read_files()
    assert old in files[name]
    with pytest.raises((AssertionError, ValueError)):
        rule({**files, name: files[name].replace(old, new)})
