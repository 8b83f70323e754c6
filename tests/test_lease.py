"""Leases of output roots: real processes and threads, a local folder, and a simulated S3."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from iqray.errors import StudyError
from iqray.lease import LEASE_PATH, Lease, hold_root, read_lease
from iqray.storage import Storage
from tests.object_store import ObjectStore, fail_never, refuse_writes
from tests.small_study import TIMEOUT_S, write_study

JOB = Path(__file__).parent.parent / "jobs" / "full_grid.py"

RENEWAL_S = 0.2  # of holders in this process
NEVER_S = 1000.0  # of holders whose renewals must not be waited for

HOLDER = """
import sys, time
from iqray.lease import hold_root
from iqray.storage import Storage

with hold_root(Storage(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "root"))


@contextmanager
def hold_elsewhere(storage: Storage) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the root and does nothing else."""
    command = [sys.executable, "-c", HOLDER, storage.root]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def write_lease(storage: Storage, lease: Lease) -> None:
    storage.write_bytes(LEASE_PATH, lease.encode())


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hold_until_renewed(storage: Storage, number: int) -> None:
    """Hold the root until the lease has been renewed so often."""
    with hold_root(storage, RENEWAL_S, settle_s=0):
        wait_until(lambda: read_lease(storage).num_renewals >= number)


def test_a_lease_is_renewed_and_given_back(storage: Storage) -> None:
    with hold_root(storage, RENEWAL_S):
        first = read_lease(storage)
        assert first.pid == os.getpid()
        wait_until(lambda: read_lease(storage).num_renewals >= 2)
        assert replace(read_lease(storage), num_renewals=0) == replace(first, num_renewals=0)
    assert not storage.exists(LEASE_PATH)
    assert not list(Path(storage.root).iterdir())
    hold_until_renewed(storage, 0)  # the next driver finds a free root


@pytest.mark.parametrize("error", [StudyError("a mistake"), KeyboardInterrupt(), SystemExit(1)])
def test_a_lease_is_given_back_by_what_ends_a_job(storage: Storage, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, hold_root(storage, NEVER_S):
        raise error
    assert raised.value is error
    assert not storage.exists(LEASE_PATH)


def test_a_second_driver_is_refused_and_told_of_the_first(storage: Storage) -> None:
    with hold_elsewhere(storage) as first:
        held = read_lease(storage)
        with pytest.raises(StudyError) as refused, hold_root(storage, NEVER_S):
            pytest.fail("the root is held")
        for told in (held.host, str(first.pid), held.since, storage.describe(""), "kill"):
            assert told in str(refused.value)
        assert read_lease(storage) == held


def test_the_place_of_a_killed_driver_is_taken_at_once(storage: Storage) -> None:
    with hold_elsewhere(storage) as first:
        held = read_lease(storage)
        first.send_signal(signal.SIGKILL)
        wait_until(lambda: "State:\tZ" in Path(f"/proc/{first.pid}/status").read_text())
        # Renewals so rare that waiting for any would not end.
        with hold_root(storage, NEVER_S):  # of a zombie
            assert read_lease(storage).lease_id != held.lease_id
        first.wait()
        write_lease(storage, held)
        with hold_root(storage, NEVER_S):
            pass
    assert not storage.exists(LEASE_PATH)


def test_a_later_process_of_the_same_number_is_another(storage: Storage) -> None:
    with hold_root(storage, NEVER_S):
        own = read_lease(storage)
    write_lease(storage, own)
    with pytest.raises(StudyError, match="is at work"), hold_root(storage, NEVER_S):
        pytest.fail("this process runs")
    write_lease(storage, replace(own, started_ticks="1"))
    with hold_root(storage, NEVER_S):
        pass


FOREIGN = [
    Lease("a", host="elsewhere", process_table="other pid:[1]", pid=1, started_ticks="1"),
    # A container of this machine: of the same name, with processes of its own.
    replace(Lease("a", pid=1, started_ticks="1"), host=os.uname().nodename, process_table="x"),
]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_silent_driver_elsewhere_is_gone(
    storage: Storage, foreign: Lease, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lease(storage, foreign)
    hold_until_renewed(storage, 0)
    shown = capsys.readouterr().out
    assert f"waiting to see whether the driver on {foreign.host} is still there" in shown
    assert shown.count("\n") == 1
    assert not storage.exists(LEASE_PATH)


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_driver_elsewhere_that_renews_is_there(storage: Storage, foreign: Lease) -> None:
    has_ended = threading.Event()

    def renew() -> None:
        number = 0
        while not has_ended.wait(RENEWAL_S / 4):
            number += 1
            write_lease(storage, replace(foreign, num_renewals=number))

    write_lease(storage, foreign)
    holder = threading.Thread(target=renew)
    holder.start()
    try:
        with pytest.raises(StudyError, match=rf"on {foreign.host} "), hold_root(storage, 10.0):
            pytest.fail("the root is held")
    finally:
        has_ended.set()
        holder.join()
    assert read_lease(storage).lease_id == "a"


def test_a_driver_elsewhere_may_end_while_it_is_watched(storage: Storage) -> None:
    write_lease(storage, FOREIGN[0])
    ending = threading.Timer(0.5, storage.delete, [LEASE_PATH])
    ending.start()
    with hold_root(storage, renewal_s=4.0, settle_s=0):
        assert read_lease(storage).pid == os.getpid()
    ending.join()


@pytest.mark.parametrize("content", [b"", b'{"lease_id": "a', b"[]", b'{"of": "a later version"}'])
def test_a_file_that_cannot_be_read_counts_as_silent(storage: Storage, content: bytes) -> None:
    storage.write_bytes(LEASE_PATH, content)
    hold_until_renewed(storage, 1)
    assert not storage.exists(LEASE_PATH)


@pytest.mark.parametrize("left", [None, FOREIGN[0]])
def test_of_drivers_that_begin_together_one_works(storage: Storage, left: Lease | None) -> None:
    """On a free root, and on one that each of them finds to be left by another."""
    check_one_works(storage, left)


def test_of_drivers_that_begin_together_on_an_object_store_one_works(store: ObjectStore) -> None:
    check_one_works(Storage(store.make_uri("out")), None)
    assert not store.list_objects("out")


def check_one_works(storage: Storage, left: Lease | None) -> None:
    if left is not None:
        write_lease(storage, left)
    num_drivers = 4
    together = threading.Barrier(num_drivers)
    all_known = threading.Barrier(num_drivers)
    ends: list[str] = []

    def drive() -> None:
        together.wait()
        try:
            with hold_root(storage, RENEWAL_S, settle_s=3):
                ends.append("worked")
                all_known.wait(TIMEOUT_S)
        except StudyError as error:
            ends.append(str(error))
            all_known.wait(TIMEOUT_S)

    drivers = [threading.Thread(target=drive) for _ in range(num_drivers)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert ends.count("worked") == 1
    assert sum("is at work in" in end for end in ends) == num_drivers - 1
    assert not storage.exists(LEASE_PATH)


def test_a_driver_that_lost_its_lease_stops(storage: Storage) -> None:
    def work() -> None:
        with hold_root(storage, RENEWAL_S):
            write_lease(storage, FOREIGN[0])
            time.sleep(TIMEOUT_S)
            pytest.fail("nothing interrupted the work")

    with pytest.raises(StudyError, match="has taken") as stopped:
        work()
    assert "on elsewhere" in str(stopped.value)
    assert read_lease(storage) == FOREIGN[0]  # it is the other's to delete


def test_an_error_after_the_lease_was_lost_is_explained_by_that(storage: Storage) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with hold_root(storage, RENEWAL_S):
                write_lease(storage, FOREIGN[0])
                thread = next(each for each in threading.enumerate() if each.name == "lease")
                thread.join()
                raise FileNotFoundError("attempts/images")
        except StudyError as error:
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    [failure] = failures
    assert "has taken" in str(failure)
    assert isinstance(failure.__cause__, FileNotFoundError)


def test_a_lease_that_somebody_deleted_is_written_again(storage: Storage) -> None:
    with hold_root(storage, RENEWAL_S):
        storage.delete(LEASE_PATH)
        wait_until(lambda: storage.exists(LEASE_PATH))


def test_a_store_that_fails_for_a_while_ends_nothing(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage(store.make_uri("out"))
    with hold_root(storage, RENEWAL_S, settle_s=0):
        store.fault = refuse_writes
        wait_until(lambda: "could not be renewed" in caplog.text)
        number = read_lease(storage).num_renewals
        store.fault = fail_never
        wait_until(lambda: read_lease(storage).num_renewals > number)
        with pytest.raises(StudyError, match="is at work"), hold_root(storage, NEVER_S):
            pytest.fail("the root is held")
    assert not store.list_objects("out")


def test_a_lease_that_cannot_be_deleted_is_left(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage(store.make_uri("out"))
    with hold_root(storage, NEVER_S, settle_s=0):
        store.fault = refuse_writes
    assert "/out/driver.json' stays" in caplog.text
    assert list(store.list_objects("out")) == [LEASE_PATH]


@pytest.mark.slow
def test_a_second_job_is_refused_and_a_lost_lease_stops_the_first(
    inputs: Path, tmp_path: Path
) -> None:
    """The job waits for Ray, in whose calls it must be reached, while the other comes."""
    recipe = {"base": "demo", "batch_size": 4}
    recipe["architectures"] = {"resnet50": {"input_px": 32, "steps": 10**6}}
    study = write_study(inputs, tmp_path / "out", recipe=recipe)
    storage = Storage(str(tmp_path / "out"))
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    settings["env"] = {**os.environ, "IQRAY_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(JOB), "--study", str(study)]
    first = subprocess.Popen(command, **settings)
    try:
        wait_for(first, storage.get_local_path(""), LEASE_PATH)
        held = read_lease(storage)
        assert held.pid == first.pid

        second = subprocess.run(command, **settings, timeout=TIMEOUT_S, check=False)
        assert second.returncode == 2
        assert second.stderr.startswith(f"error: a driver on {held.host} (process {first.pid}, ")
        assert second.stderr.count("\n") == 1
        dry = subprocess.run([*command, "--dry-run"], **settings, timeout=TIMEOUT_S, check=False)
        assert dry.returncode == 0, dry.stderr
        wait_for(first, storage.get_local_path(""), "trials/*/trial.json")  # one that trains

        write_lease(storage, FOREIGN[0])
        text, errors = first.communicate(timeout=TIMEOUT_S)
        assert first.returncode == 2, text + errors
        assert errors.startswith("error: a driver on elsewhere (process 1, since an unknown time)")
        assert errors.count("\n") == 1
    finally:
        first.kill()
    assert json.loads((tmp_path / "out/driver.json").read_text()) == asdict(FOREIGN[0])


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Wait until a running job has written a file."""
    wait_until(lambda: process.poll() is not None or bool(list(folder.glob(pattern))))
    assert process.poll() is None, process.communicate()
