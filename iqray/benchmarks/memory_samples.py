"""How much memory a driver, its Ray and its workers hold: samples of a tree of processes.

Reads /proc (Linux). RSS counts a page for every process that shares it, PSS (proportional set
size) once for all of them, so that only PSS can be added up.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

MIB = 2**20

# Ray names its Python processes so; agents of a node do no work of the driver's.
_WORKER_TITLE = "ray::"
_AGENT_TITLES = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")

_RAYLET = "raylet"


@dataclass(frozen=True)
class MemorySample:
    """What processes held at one moment, or each figure's peak over several.

    Attributes:
        driver_mib: RSS of the driver.
        worker_mib: RSS of the worker that holds most.
        total_mib: PSS of all processes together.
        object_store_mib: pages that Ray's object store has touched; they stay with it.
    """

    driver_mib: float = 0
    worker_mib: float = 0
    total_mib: float = 0
    object_store_mib: float = 0

    def take_larger(self, other: "MemorySample") -> "MemorySample":
        """The larger of each figure."""
        pairs = ((getattr(self, each.name), getattr(other, each.name)) for each in fields(self))
        return MemorySample(*map(max, pairs))


def find_peaks(
    is_running: Callable[[], bool], read: Callable[[], MemorySample], wait: Callable[[], object]
) -> MemorySample:
    """Peak of each figure while something is running.

    Args:
        is_running: asked before each sample.
        read: takes a sample.
        wait: called between samples.
    """
    peaks = MemorySample()
    while is_running():
        peaks = peaks.take_larger(read())
        wait()
    return peaks


def read_memory(pid: int) -> MemorySample:
    """Sample a driver and all processes below it; zeros for what has ended."""
    processes: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        driver = psutil.Process(pid)
        processes = [driver, *driver.children(recursive=True)]
    workers = [each for each in processes if _is_worker(each)]
    raylets = [each for each in processes if _read_name(each) == _RAYLET]
    return MemorySample(
        driver_mib=sum(map(_read_rss, processes[:1])) / MIB,
        worker_mib=max(map(_read_rss, workers), default=0) / MIB,
        total_mib=sum(map(_read_pss, processes)) / MIB,
        object_store_mib=sum(map(_read_store, raylets)) / MIB,
    )


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        title = " ".join(process.cmdline()[:1])
        return title.startswith(_WORKER_TITLE) and not title.startswith(_AGENT_TITLES)
    return False


def _read_name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return str(process.name())
    return ""


def _read_rss(process: psutil.Process) -> int:
    """Bytes in memory; 0 when the process has ended."""
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _read_pss(process: psutil.Process) -> int:
    """Bytes in memory, shared ones in parts; RSS where the system does not tell."""
    with contextlib.suppress(psutil.Error, AttributeError):
        return int(process.memory_full_info().pss)
    return _read_rss(process)


def _read_store(raylet: psutil.Process) -> int:
    """Bytes of the object store, whichever process has written them.

    The store is a file without a name, kept open by the raylet, that has pages only where it has
    been written to. The raylet's own shared pages would lack those that only workers have touched.
    """
    with contextlib.suppress(OSError):
        return sum(_list_store_bytes(raylet.pid))
    return 0


def _list_store_bytes(pid: int) -> Iterator[int]:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if entry.readlink().name.startswith("plasma"):
                yield entry.stat().st_blocks * 512
