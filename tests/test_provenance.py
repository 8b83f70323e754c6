import subprocess
from pathlib import Path

import pytest

import iqray
from iqray.training import provenance


def make_package(folder: Path) -> Path:
    (folder / "iqray").mkdir(parents=True)
    (folder / "iqray/__init__.py").write_text('__version__ = "9"\n')
    return folder / "iqray"


def run_git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", "-C", str(folder), *names, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_working_copy_is_named_by_its_commit(tmp_path: Path) -> None:
    package = make_package(tmp_path)
    run_git(tmp_path, "init", "-q")
    run_git(tmp_path, "add", "-A")
    run_git(tmp_path, "commit", "-qm", "first")
    commit = run_git(tmp_path, "rev-parse", "HEAD")
    described = {"version": iqray.__version__, "commit": commit, "is_modified": False}
    assert provenance.describe_code(package) == described
    (package / "__init__.py").write_text("changed")
    assert provenance.describe_code(package) == described | {"is_modified": True}


def test_an_installed_package_has_a_version_only(tmp_path: Path) -> None:
    """Also in an environment that lies inside some other working copy."""
    run_git(tmp_path, "init", "-q")
    package = make_package(tmp_path / ".venv/lib")
    described = provenance.describe_code(package)
    assert described == {"version": iqray.__version__, "commit": None, "is_modified": None}


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.describe_code()["commit"] is None


def test_the_machine_is_described() -> None:
    described = provenance.describe_machine("cpu", 2)
    assert described["hardware"]["num_threads"] == 2
    assert described["hardware"]["cpu"]
    assert described["packages"]["ray"].startswith("2.")
