"""Disk space of a node's packs: bounded, and freed of what has been unused for longest.

Beside a pack lies a file `.use`. All processes that have the pack open share a lock on it, and its
time is the pack's last use.
"""

import fcntl
import logging
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from iqray.errors import StudyError

logger = logging.getLogger(__name__)

_GIB = 2**30


class Lease:
    """Keeps a pack from being deleted until the last reference is gone or the process ends.

    Args:
        path: of the pack, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(f"{path}.use", os.O_RDWR | os.O_CREAT)
        weakref.finalize(self, os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)


@dataclass(frozen=True)
class PackRoom:
    """The space that packs may take.

    Attributes:
        folder: that holds them, each in a folder of that.
        limit_gib: if none, half of what the disk has free without them.
    """

    folder: Path
    limit_gib: float | None

    def check_fits(self, num_bytes: int) -> None:
        """Refuse what has no room even when all other packs are deleted.

        Raises:
            StudyError: so many bytes are more than packs may take.
        """
        limit = self._compute_limit(self._list_folders())
        if num_bytes > limit:
            raise StudyError(
                f"the images of one trial take {num_bytes / _GIB:.3f} GiB when packed, but packs "
                f"may take {limit / _GIB:.3f} GiB on this node; raise training.pack_cache_gib, "
                "name a folder on a larger disk in IQRAY_CACHE, or lower "
                "recipe.stored_short_side_px"
            )

    @contextmanager
    def make(self, num_bytes: int) -> Iterator[None]:
        """Hold so many bytes free, for no other process to take them inside the context.

        Packs that nobody uses are deleted for that, the longest unused first.

        Raises:
            StudyError: packs in use leave too little.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "room.lock"):
            self._free(num_bytes)
            yield

    def _free(self, num_bytes: int) -> None:
        folders = self._list_folders()
        limit = self._compute_limit(folders)
        taken = sum(folder.num_bytes for folder in folders)
        for folder in sorted(folders, key=lambda folder: (folder.used_ns, folder.path)):
            if taken + num_bytes <= limit:
                return
            if _delete_unused(folder.path):
                logger.info("deleted pack %s, unused for longest", folder.path)
                taken -= folder.num_bytes
        if taken + num_bytes > limit:
            raise StudyError(
                f"packed images need {num_bytes / _GIB:.3f} GiB more, but of the "
                f"{limit / _GIB:.3f} GiB that they may take on this node {taken / _GIB:.3f} GiB "
                "are in use by trials that run at the same time; raise training.pack_cache_gib, or "
                "lower training.num_concurrent"
            )

    def _compute_limit(self, folders: "list[_Folder]") -> float:
        """Bytes that packs may take, those of the folders included."""
        if self.limit_gib is not None:
            return self.limit_gib * _GIB
        self.folder.mkdir(parents=True, exist_ok=True)
        taken = sum(folder.num_bytes for folder in folders)
        return (shutil.disk_usage(self.folder).free + taken) / 2

    def _list_folders(self) -> "list[_Folder]":
        """Packs, those that are being made, and what dead processes have left of some."""
        return [_Folder.of(path) for path in self.folder.glob("*/*") if path.is_dir()]


def delete_pack(path: Path) -> None:
    """Delete a pack; its name goes first, so that it is never there in part."""
    gone = path.with_name(f".{path.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


@dataclass(frozen=True)
class _Folder:
    """A pack's folder, its size and its last use."""

    path: Path
    num_bytes: int
    used_ns: int

    @classmethod
    def of(cls, path: Path) -> "_Folder":
        num_bytes, used_ns = 0, 0
        with suppress(FileNotFoundError):  # another process is renaming it, or none has opened it
            num_bytes = sum(file.stat().st_size for file in path.iterdir())
            used_ns = Path(f"{path}.use").stat().st_mtime_ns
        return cls(path, num_bytes, used_ns)


def _delete_unused(path: Path) -> bool:
    """Delete a pack that no process has open, or what a dead process has left of one."""
    if path.name.startswith("."):
        return _delete_left_over(path)
    descriptor = os.open(f"{path}.use", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        delete_pack(path)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _delete_left_over(path: Path) -> bool:
    """Delete a pack that was never finished, unless a process is at work on it."""
    name = path.name.split(".")[1]
    try:
        with FileLock(path.with_name(f"{name}.build"), timeout=0):
            shutil.rmtree(path, ignore_errors=True)
    except Timeout:
        return False
    return True
