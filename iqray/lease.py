"""One driver at a time on an output root: a lease, `driver.json`, which its holder renews.

Every job that runs work below a root holds it; a second would delete the notes, parts and
checkpoints of what the first is doing. Jobs that write small tables or a page whole, from finished
ones (report, compare_rdms, check_paper), and dry runs hold none: they may look at a running study.

Whether the holder is still there is told by its process on the same host, and elsewhere by its
renewals: clocks are never compared, since they differ between machines.
"""

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import psutil

from iqray.errors import StudyError
from iqray.progress import show_line
from iqray.storage import Storage

logger = logging.getLogger(__name__)

LEASE_PATH = "driver.json"

_RENEWAL_S = 10.0

# Renewals that a holder elsewhere may miss: more than two, as a store may repeat a failed request.
_NUM_MISSED = 3

# Until two drivers that have written at the same moment both see which of them came last.
_SETTLE_S = 1.0

_RETRY = "run the same command again: it continues with what is missing"


@dataclass(frozen=True)
class Lease:
    """What a driver says of itself. Without an id: a file that cannot be read, or not yet.

    Attributes:
        lease_id: random.
        host: name of the driver's machine.
        process_table: which processes `pid` counts, by boot and namespace; empty where unknown.
        pid: of the driver.
        started_ticks: when the process started, as the kernel counts; a later process of the same
            number has another.
        since: when the lease was taken, for people.
        num_renewals: how often it was renewed.
    """

    lease_id: str = ""
    host: str = "an unknown host"
    process_table: str = ""
    pid: int = 0
    started_ticks: str = ""
    since: str = "an unknown time"
    num_renewals: int = 0

    def describe(self) -> str:
        """Who holds it, for messages."""
        return f"a driver on {self.host} (process {self.pid}, since {self.since})"

    def encode(self) -> bytes:
        """Content of its file."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


@contextmanager
def hold_root(
    storage: Storage, renewal_s: float = _RENEWAL_S, settle_s: float = _SETTLE_S
) -> Iterator[None]:
    """Be the only driver on an output root while the block runs.

    A driver that was frozen for long may find that another has taken its lease. The main thread's
    block is then interrupted as by Ctrl-C, and another thread's fails at its end.

    Args:
        storage: the root, local or on an object store.
        renewal_s: seconds between renewals; the same for all drivers of a root.
        settle_s: how long a driver waits before it trusts what it has written.

    Raises:
        StudyError: another driver holds the root, or has taken it over.
    """
    renewal = _Renewal(storage, _take_lease(storage, renewal_s, settle_s), renewal_s)
    try:
        with _interrupt_main_thread(renewal):
            renewal.start()
            try:
                yield
            finally:
                renewal.end()
    except BaseException as error:
        if renewal.overtaken_by is None:
            raise
        raise _explain_loss(storage, renewal.overtaken_by) from error
    if renewal.overtaken_by is not None:
        raise _explain_loss(storage, renewal.overtaken_by)


def _take_lease(storage: Storage, renewal_s: float, settle_s: float) -> Lease:
    own = _describe_own_process()
    found = read_lease(storage)
    if found is None and storage.is_local:
        if storage.create(LEASE_PATH, own.encode()):
            return own
        found = read_lease(storage)
    if found is not None:
        _check_is_gone(storage, found, renewal_s)
    storage.write_bytes(LEASE_PATH, own.encode())
    # No store says whether it was the first to write; the last one stays.
    time.sleep(settle_s)
    found = read_lease(storage)
    if found is not None and found.lease_id not in ("", own.lease_id):
        raise _explain_refusal(storage, found)
    return own


def read_lease(storage: Storage) -> Lease | None:
    """The lease on a root; none where nobody has left one."""
    try:
        return Lease(**storage.read_json(LEASE_PATH))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # it is being created, or was broken off
        return Lease()


def _describe_own_process() -> Lease:
    return Lease(
        lease_id=uuid.uuid4().hex,
        host=socket.gethostname(),
        process_table=_identify_process_table(),
        pid=os.getpid(),
        started_ticks=_read_stat(os.getpid())[1],
        since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def _identify_process_table() -> str:
    """Boot of the machine and namespace of its processes; containers of one machine differ."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _read_stat(pid: int) -> tuple[str, str]:
    """State and start of a process (proc_pid_stat(5), fields 3 and 22); empty where hidden."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    fields = text.rpartition(")")[2].split()  # the name in parentheses may have spaces
    return fields[0], fields[19]


def _is_running(lease: Lease) -> bool | None:
    """Whether the process that wrote a lease is there; none where this host cannot know."""
    own_table = (socket.gethostname(), _identify_process_table())
    if not lease.process_table or (lease.host, lease.process_table) != own_table:
        return None
    if not psutil.pid_exists(lease.pid):
        return False
    state, started_ticks = _read_stat(lease.pid)
    if not state:
        return None
    return state not in "XZ" and started_ticks == lease.started_ticks  # dead, zombie


def _check_is_gone(storage: Storage, found: Lease, renewal_s: float) -> None:
    is_running = _is_running(found)
    if is_running:
        raise _explain_refusal(storage, found)
    if is_running is None:
        show_line("driver", f"waiting to see whether the driver on {found.host} is still there")
        _check_is_silent(storage, found, renewal_s)


def _check_is_silent(storage: Storage, found: Lease, renewal_s: float) -> None:
    """Wait until the holder would have renewed its lease."""
    ends_s = time.monotonic() + _NUM_MISSED * renewal_s
    while time.monotonic() < ends_s:
        time.sleep(renewal_s / 4)
        now = read_lease(storage)
        if now is None:  # it has ended meanwhile
            return
        if now.lease_id and now != found:
            raise _explain_refusal(storage, now)


class _Renewal:
    """Renews a lease from a thread of its own, until it ends or another driver has taken it.

    Attributes:
        overtaken_by: the lease of that driver.
    """

    def __init__(self, storage: Storage, lease: Lease, renewal_s: float) -> None:
        self.overtaken_by: Lease | None = None
        self.has_ended = threading.Event()
        self._storage = storage
        self._lease = lease
        self._renewal_s = renewal_s
        self._is_held_by_main = threading.current_thread() is threading.main_thread()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def end(self) -> None:
        """Stop, at once unless a renewal is under way, and give the lease back."""
        self.has_ended.set()
        self._thread.join()
        if self.overtaken_by is not None:
            return
        try:
            found = read_lease(self._storage)
            if found is not None and found.lease_id == self._lease.lease_id:
                self._storage.delete(LEASE_PATH)
        except Exception as error:  # the next driver finds that this one is gone
            logger.warning("'%s' stays: %s", self._storage.describe(LEASE_PATH), error)

    def _run(self) -> None:
        while self.overtaken_by is None and not self.has_ended.wait(self._renewal_s):
            try:
                self._renew()
            except Exception as error:  # a study does not end because its store fails for a while
                logger.warning("the lease could not be renewed, to be tried again: %s", error)
        if self.overtaken_by is not None and self._is_held_by_main:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)

    def _renew(self) -> None:
        found = read_lease(self._storage)
        if found is not None and found.lease_id not in ("", self._lease.lease_id):
            self.overtaken_by = found
            return
        self._lease = replace(self._lease, num_renewals=self._lease.num_renewals + 1)
        self._storage.write_bytes(LEASE_PATH, self._lease.encode())


@contextmanager
def _interrupt_main_thread(renewal: _Renewal) -> Iterator[None]:
    """Let a lost lease interrupt the main thread, also where it waits for Ray.

    Ray's waits end at a KeyboardInterrupt and at no other exception. SIGINT itself is ignored in
    jobs that a script has started in the background.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if not renewal.has_ended.is_set():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def _explain_refusal(storage: Storage, found: Lease) -> StudyError:
    return StudyError(
        f"{found.describe()} is at work in '{storage.describe('')}', and a second would delete "
        "what it has begun; wait until it has ended, or end it (kill "
        f"{found.pid} on {found.host}), and {_RETRY}"
    )


def _explain_loss(storage: Storage, found: Lease) -> StudyError:
    return StudyError(
        f"{found.describe()} has taken '{storage.describe('')}' over, since this one did not renew "
        f"'{LEASE_PATH}' in time, as when its machine sleeps; what is finished is kept. Let that "
        f"one work, or end it and {_RETRY}"
    )
