"""Find the image that kills a process: what a worker was doing is written down before it does it.

A worker notes in the storage that it begins a shard. When a note is there already, an earlier
process has died on the shard in this run: from then on the worker notes every step. A step on
which two processes have ended is not tried a third time. An ordinary shard costs one small file.
"""

import faulthandler
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from iqray.errors import StudyError
from iqray.storage import Storage

logger = logging.getLogger(__name__)

_MAX_REASON_LENGTH = 200

# Processes that may end on a shard before their first step, as by reading it.
_MAX_UNEXPLAINED = 5

# Processes that a step may end before it is given up. Two, since one can end for other reasons,
# such as a node that is taken away.
_MAX_DEATHS = 2


class Step(NamedTuple):
    """Something done with one image: decode it, or score it with a metric."""

    image: int  # its position in the shard
    action: str


@dataclass
class Attempt:
    """One process's try at a shard.

    Attributes:
        storage: the output root.
        folder: of the shard's notes.
        number: how many tries began before this one.
        deaths: how many of them ended in each step.
        reasons: what they could say about it.
    """

    storage: Storage
    folder: str
    number: int
    deaths: Counter[Step] = field(default_factory=Counter)
    reasons: dict[Step, str] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Whether no process has died on the shard, so that it need not go step by step."""
        return self.number == 0

    def enter(self, step: Step, reason: str = "") -> bool:
        """Note that a step begins; false when it has ended too many processes to be tried again.

        Args:
            step: what begins.
            reason: why the process is about to end in it, where that is known.
        """
        if self.deaths[step] >= _MAX_DEATHS:
            return False
        self.storage.write_json(self._path, {**step._asdict(), "reason": reason})
        return True

    def explain(self, step: Step) -> str:
        """Why a step is not tried again, for a table's row."""
        reason = self.reasons.get(step) or "the process ended each time"
        return f"{step.action} failed {self.deaths[step]} times: {reason}"

    def order(self, num_images: int) -> list[int]:
        """Positions of the shard's images, those first on which a process has ended."""
        suspects = sorted({step.image for step in self.deaths})
        return [*suspects, *(index for index in range(num_images) if index not in suspects)]

    @property
    def _path(self) -> str:
        return f"{self.folder}/{self.number:04d}.json"


@contextmanager
def begin_attempt(storage: Storage, folder: str) -> Iterator[Attempt]:
    """Begin a shard; its notes go when it ends without an exception.

    Args:
        storage: the output root.
        folder: for the notes of this shard in this run.

    Raises:
        StudyError: processes keep ending on the shard outside of any step.
    """
    attempt = Attempt(storage, folder, number=0)
    num_unexplained = 0
    for name in sorted(storage.list_names(folder)):
        attempt.number += 1
        note = storage.read_json(f"{folder}/{name}")
        if note:
            step = Step(note["image"], note["action"])
            attempt.deaths[step] += 1
            attempt.reasons[step] = note["reason"] or attempt.reasons.get(step, "")
        else:
            num_unexplained += 1
    if num_unexplained > _MAX_UNEXPLAINED:
        raise StudyError(
            f"{num_unexplained} processes have ended on the same images before they began with "
            f"any of them (notes in '{storage.describe(folder)}'); look for lack of memory or for "
            "nodes that are taken away, and lower scoring.shard_size if images are large"
        )
    storage.write_json(f"{folder}/{attempt.number:04d}.json", {})
    yield attempt
    storage.delete_folder(folder)


@contextmanager
def end_process_on(
    errors: tuple[type[BaseException], ...],
    attempt: Attempt | None = None,
    step: Step | None = None,
) -> Iterator[None]:
    """Let errors that say something of the process, such as lack of memory, end it.

    Ray starts it anew, and the next attempt finds the notes of this one.

    Args:
        errors: that end the process.
        attempt: gets the error's text, if a step is under way.
        step: that is under way.
    """
    try:
        yield
    except errors as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_REASON_LENGTH]
        if attempt is not None and step is not None:
            attempt.enter(step, text)
        logger.error("this process ends: %s", text)
        logging.shutdown()
        os._exit(1)


class Exclusion:
    """Lets any number of threads work together, or one alone: who is under suspicion."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_together = 0
        self._num_waiting = 0
        self._is_alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work beside others; waits while one works alone or wants to."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._is_alone or self._num_waiting))
            self._num_together += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work alone; waits until all others have ended."""
        with self._changed:
            self._num_waiting += 1
            self._changed.wait_for(lambda: not (self._is_alone or self._num_together))
            self._num_waiting -= 1
            self._is_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


class Watchdog:
    """Ends this process when a thread's step takes too long, even inside C code.

    Args:
        limit_s: seconds that a step may take.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._deadlines_s: dict[int, float] = {}
        self._lock = threading.Lock()

    def rearm(self) -> None:
        """This thread begins a step."""
        with self._lock:
            self._deadlines_s[threading.get_ident()] = time.monotonic() + self._limit_s
            self._schedule()

    def disarm(self) -> None:
        """This thread has nothing more to do."""
        with self._lock:
            self._deadlines_s.pop(threading.get_ident(), None)
            self._schedule()

    def _schedule(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._deadlines_s:
            left_s = max(0.1, min(self._deadlines_s.values()) - time.monotonic())
            # Its thread needs no GIL, which whatever hangs may hold; it exits with status 1.
            faulthandler.dump_traceback_later(left_s, exit=True)
