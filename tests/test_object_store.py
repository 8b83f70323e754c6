"""Outputs on an S3 store that is slow, fails, is full, or may not be written."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from iqray.errors import StudyError
from iqray.metrics.weights import find_weights
from iqray.storage import Storage
from jobs.prefetch_weights import main as fill_weights
from jobs.report import main as make_report
from tests.object_store import (
    ObjectStore,
    fail_never,
    fail_often,
    fill_up_at,
    refuse_writes,
)
from tests.small_study import TIMEOUT_S, write_study

JOB = Path(__file__).parent.parent / "jobs" / "full_grid.py"
LARGE = os.urandom(25 * 2**20)  # pyarrow sends 10 MiB in a part

Write = Callable[[Storage, Path, str], None]
WRITERS: list[Write] = [
    lambda storage, source, path: storage.write_bytes(path, source.read_bytes()),
    lambda storage, source, path: storage.copy_from_local(source, path),
]


def test_errors_of_the_server_and_slow_answers_are_retried(store: ObjectStore) -> None:
    storage = Storage(store.make_uri("out"))
    store.fault = fail_often
    for number in range(20):
        storage.write_bytes(f"d/{number}", bytes([number]))
    assert [storage.read_bytes(f"d/{number}") for number in range(20)] == [
        bytes([number]) for number in range(20)
    ]
    assert storage.list_names("d") == {str(number) for number in range(20)}
    assert store.num_refused >= 5


def test_questions_that_a_store_fails_to_answer_are_asked_again(store: ObjectStore) -> None:
    """pyarrow tries a 500 again, but not a 400."""
    storage = Storage(store.make_uri("out"))
    storage.write_bytes("d/f", b"1")
    asked: list[Callable[[], object]] = [
        lambda: storage.exists("d/f"),
        lambda: "f" in storage.list_names("d"),
    ]
    for ask in asked:
        answers = iter(["400 BadRequest"])
        store.fault = lambda _request, _number, left=answers: next(left, None)
        assert ask()
    assert store.num_refused == 2


def test_a_root_that_may_not_be_read_is_a_mistake(store: ObjectStore) -> None:
    store.fault = lambda _request, _number: "403 AccessDenied"
    message = rf"output root 's3://{store.bucket}/out' cannot be read .*ACCESS_DENIED"
    with pytest.raises(StudyError, match=message):
        make_report(["--root", store.make_uri("out")])
    assert store.num_refused == 1


def test_weights_in_a_bucket_are_named_without_its_credentials(
    store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = store.make_uri("w").replace("s3://", "s3://key:secret@")
    with pytest.raises(StudyError, match=rf"no weights.json in s3://{store.bucket}/w, and"):
        find_weights(uri, "niqe")
    fill_weights(["--metrics", "piqe", "--directory", uri])
    assert capsys.readouterr().out.endswith(f"weights of piqe are in s3://{store.bucket}/w\n")


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("refused", [r"\?uploads", "partNumber=2", r"POST .*\?uploadId"])
def test_a_refused_write_leaves_the_old_object_and_no_other(
    store: ObjectStore, tmp_path: Path, refused: str, write: Write
) -> None:
    """Refused when the upload begins, at its second part, and when it should be completed."""
    storage = Storage(store.make_uri("out"))
    storage.write_bytes("d/f", b"old")
    (tmp_path / "large").write_bytes(LARGE)
    store.fault = fill_up_at(refused)
    for name in ("d/f", "d/new"):
        with pytest.raises(StudyError, match=rf"'s3://{store.bucket}/out/{name}' cannot be writ"):
            write(storage, tmp_path / "large", name)
    store.fault = fail_never
    assert list(store.list_objects("out")) == ["d/f"]
    assert storage.read_bytes("d/f") == b"old"


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, write: Write) -> None:
    """A disk is full for this process where its files may not grow."""
    storage = Storage(str(tmp_path / "root"))
    storage.write_bytes("d/f", b"old")
    (tmp_path / "large").write_bytes(LARGE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(StudyError, match=r"d/f' cannot be written \(.*File too large"):
            write(storage, tmp_path / "large", "d/f")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "root/d").iterdir()] == ["f"]
    assert storage.read_bytes("d/f") == b"old"


@pytest.mark.slow
def test_a_study_goes_on_after_a_store_that_refused(
    store: ObjectStore, inputs: Path, tmp_path: Path
) -> None:
    study = write_study(inputs, tmp_path / "out")

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(JOB), "--study", str(study)]
        return subprocess.run(
            [*command, "--root", store.make_uri("out")],
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT_S,
            env={**os.environ, "IQRAY_CACHE": str(tmp_path / "cache")},
            check=False,
        )

    store.fault = refuse_writes
    check_one_error(run(), rf"output root 's3://{store.bucket}/out' cannot be written .*ACCESS_DEN")
    assert not store.list_objects("out")
    store.fault = fill_up_at("/out/scores/")
    check_one_error(run(), rf"'s3://{store.bucket}/out/scores/.*' cannot be written .*507")
    store.fault = fail_never
    assert not [path for path in store.list_objects("out") if path.startswith("scores")]

    store.fault = fail_often
    num_refused = store.num_refused
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "48 of 48 scores" in done.stdout
    assert store.num_refused > num_refused + 50
    cells = Storage(store.make_uri("out")).read_table("results/cells.parquet").to_pandas()
    check_cells(cells)

    store.fault = fail_never
    before = store.list_objects("out")
    again = run()
    assert len(re.findall("all there before", again.stdout)) == 7
    assert store.list_objects("out") == before

    Storage(store.make_uri("out")).delete("report/index.html")
    make_report(["--root", store.make_uri("out")])
    assert b"</html>" in Storage(store.make_uri("out")).read_bytes("report/index.html")


def check_one_error(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.match(f"error: {message}", done.stderr), done.stderr
    assert done.stderr.count("\n") == 1


def check_cells(cells: pd.DataFrame) -> None:
    assert len(cells) == 8
    assert (cells["status"] == "ok").all()
