import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from iqray.cluster import Cluster
from iqray.errors import StudyError
from iqray.ray_token import provide_token
from tests.small_study import TIMEOUT_S

ASK = """
import os, urllib.error, urllib.request
from iqray.cluster import Cluster
import ray

with Cluster() as cluster:
    cluster.connect()
    token = open(os.path.expanduser("~/.ray/auth_token")).read()
    answers = []
    for headers in ({}, {"Authorization": "Bearer " + token}):
        url = "http://" + ray._private.worker.global_worker.node.address_info["webui_url"]
        request = urllib.request.Request(url + "/api/version", headers=headers)
        try:
            answers.append(urllib.request.urlopen(request, timeout=30).status)
        except urllib.error.HTTPError as error:
            answers.append(error.code)
print(answers)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith("RAY_AUTH"):
            monkeypatch.delenv(name)
    return tmp_path


def test_a_token_is_made_once_for_its_owner_alone(home: Path) -> None:
    provide_token()
    path = home / ".ray/auth_token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    token = path.read_text()
    assert len(token) == 64
    provide_token()
    assert path.read_text() == token
    assert [file.name for file in path.parent.iterdir()] == ["auth_token"]


@pytest.mark.parametrize("name", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"])
def test_who_has_seen_to_it_gets_none(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "disabled")
    provide_token()
    assert not (home / ".ray").exists()


def test_a_home_that_takes_no_token_is_explained(home: Path) -> None:
    (home / ".ray").write_text("in the way")
    with pytest.raises(StudyError, match="RAY_AUTH_TOKEN_PATH"):
        provide_token()


@pytest.mark.slow
def test_a_ray_of_this_machine_asks_for_the_token(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    assert "(token: ray get-auth-token)" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == [401, 200]
    assert (home / ".ray/auth_token").read_text() not in done.stdout


@pytest.mark.slow
def test_an_address_that_is_none_is_explained() -> None:
    with pytest.raises(StudyError, match="'nowhere' cannot be joined"):
        Cluster("nowhere").connect()


def test_an_empty_address_means_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert Cluster()._address is None
