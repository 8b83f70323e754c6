"""`ray job submit` against a head with token authentication: who may, what is sent and done."""

import io
import json
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from iqray.cost import NODE_HOURS_PATH
from tests.cluster_files import PROJECT
from tests.small_study import TIMEOUT_S, write_study
from tests.token_head import RAY, Head, make_environment, start_head

pytestmark = pytest.mark.slow

# What a working copy may hold and nobody else should see.
PRIVATE = (".env", ".env.local", ".git/config", ".venv/bin/python", "key.pem")
LARGE = ("outputs/demo/report/index.html", "tests/test_ranks.py", "iqray/__pycache__/x.pyc")
LARGE += (".mypy_cache/x.json", ".pytest_cache/x", ".ruff_cache/x", "uv.lock", ".ci/run")
MAX_PACKAGE_BYTES = 100 * 2**20


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with start_head(tmp_path_factory.mktemp("home")) as head:
        yield head


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working copy of this project with private and large files in it."""
    copy = tmp_path_factory.mktemp("work") / "iqray"
    for name in ("iqray", "jobs", "cluster"):
        shutil.copytree(PROJECT / name, copy / name)
    for name in (".gitignore", ".rayignore", "pyproject.toml", "README.md"):
        shutil.copy(PROJECT / name, copy / name)
    for name in (*PRIVATE, *LARGE):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("private")
    return copy


def submit(head: Head, project: Path, study: Path, environment: dict[str, str]) -> str:
    """Submit a study's job and wait for its end."""
    command = [RAY, "job", "submit", "--address", head.dashboard, "--working-dir", "."]
    command += ["--", sys.executable, "jobs/full_grid.py", "--study", str(study)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=project,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def outputs(
    head: Head, project: Path, inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """Root of a study whose job was submitted twice, and what each submission printed."""
    root = tmp_path_factory.mktemp("submitted") / "out"
    study = write_study(inputs, root, prices={"cpu_node": 1.5})
    environment = head.make_environment()
    return root, [submit(head, project, study, environment) for _ in range(2)]


def test_the_readmes_commands_make_a_token_that_only_its_owner_reads(head: Head) -> None:
    assert stat.S_IMODE(head.token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(head.token_file.parent.stat().st_mode) == 0o700
    assert len(head.token) == 64


@pytest.mark.parametrize(
    "path", ["/api/version", "/api/jobs/", "/nodes?view=summary", "/api/cluster_status"]
)
def test_reading_the_dashboard_takes_the_token(head: Head, path: str) -> None:
    url = head.dashboard + path
    statuses = [head.request(url, token)[0] for token in (None, "0" * 64, head.token)]
    assert statuses == [401, 403, 200]


def test_submitting_takes_the_token_on_head_and_agent(head: Head) -> None:
    job = {"entrypoint": "true"}
    for url in (f"{head.dashboard}/api/jobs/", f"{head.agent}/api/job_agent/jobs/"):
        statuses = [head.request(url, token, job)[0] for token in (None, "0" * 64, head.token)]
        assert statuses == [401, 403, 200]


def test_nothing_is_submitted_without_the_token(head: Head, project: Path, tmp_path: Path) -> None:
    before = list_jobs(head)
    with pytest.raises(AssertionError, match=r"(?i)auth"):
        submit(head, project, tmp_path / "study.yaml", make_environment("disabled"))
    assert list_jobs(head) == before


def test_a_submitted_study_succeeds(outputs: tuple[Path, list[str]]) -> None:
    root, (first, _) = outputs
    assert "succeeded" in first
    cells = pd.read_parquet(root / "results/cells.parquet")
    assert (cells["status"] == "ok").all()


def test_the_nodes_hours_are_noted(outputs: tuple[Path, list[str]]) -> None:
    root, _ = outputs
    hours = json.loads((root / NODE_HOURS_PATH).read_text())
    seconds = sum(json.loads((root / "stage_seconds.json").read_text()).values())
    assert list(hours) == ["cpu_node"]  # one node that is head and worker
    assert 0.5 * seconds < 3600 * hours["cpu_node"] < 10 * seconds


def test_a_second_submission_does_nothing(outputs: tuple[Path, list[str]]) -> None:
    _, (_, second) = outputs
    assert "succeeded" in second
    assert second.count("all there before") == 7


def test_the_uploaded_package_holds_nothing_private(
    head: Head, outputs: tuple[Path, list[str]]
) -> None:
    assert outputs
    packages = {(job["runtime_env"] or {}).get("working_dir") for job in list_jobs(head)} - {None}
    [uri] = packages  # the second submission found it there
    content = fetch_package(head, uri)
    assert len(content) < MAX_PACKAGE_BYTES
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert "jobs/full_grid.py" in names
    assert not set(names) & {*PRIVATE, *LARGE}
    folders = {name.split("/")[0] for name in names}
    assert folders == {
        *("iqray", "jobs", "cluster", "pyproject.toml", "README.md"),
        *(".gitignore", ".rayignore"),
    }


def test_the_token_is_in_no_log_job_or_command_line(
    head: Head, outputs: tuple[Path, list[str]]
) -> None:
    token = head.token
    assert token not in "".join(outputs[1])
    assert token not in json.dumps(list_jobs(head))
    logs = [path for path in head.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in logs)
    for path in logs:
        assert token.encode() not in path.read_bytes(), path
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        assert token.encode() not in read_if_there(path)


def list_jobs(head: Head) -> list[dict]:
    """Submitted jobs; Ray knows drivers, too."""
    _, jobs = head.request(f"{head.dashboard}/api/jobs/", head.token)
    return [job for job in jobs if job["type"] == "SUBMISSION"]


def fetch_package(head: Head, uri: str) -> bytes:
    """The package that nodes get, from the control store, by a process that has the token."""
    code = (
        "import sys; from ray._raylet import GcsClient\n"
        "value = GcsClient(address=sys.argv[1]).internal_kv_get(sys.argv[2].encode(), None)\n"
        "sys.stdout.buffer.write(value)"
    )
    command = [sys.executable, "-c", code, head.gcs, uri]
    return subprocess.run(
        command, stdout=subprocess.PIPE, env=head.make_environment(), check=True
    ).stdout


def read_if_there(path: Path) -> bytes:
    """Content of a file of a process that may have ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
