"""One line per stage on the terminal: what is counted, how far it is, how long it will take."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

_TERMINAL_INTERVAL_S = 0.5
_LOG_INTERVAL_S = 60.0  # where lines cannot be rewritten, as in a job's log


@dataclass
class StageLine:
    """The line of one running stage; call it with the number of things newly done."""

    name: str
    total: int
    unit: str
    stream: TextIO
    num_done: int = 0
    num_found: int = 0  # done before this run
    started_s: float = field(default_factory=time.monotonic)
    shown_s: float = field(default_factory=time.monotonic)

    def __call__(self, num_new: int) -> None:
        """Count, and show the line when it is due."""
        self.num_done += num_new
        interval = _TERMINAL_INTERVAL_S if self.stream.isatty() else _LOG_INTERVAL_S
        if time.monotonic() - self.shown_s >= interval:
            self._show(self._describe_running(), is_last=False)

    def skip(self, num_found: int) -> None:
        """Count what an earlier run has left."""
        self.num_done += num_found
        self.num_found += num_found

    @property
    def elapsed_s(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self.started_s

    def finish(self) -> None:
        """Show the line a last time."""
        counted = f"{self.num_done:,} of {self.total:,} {self.unit}"
        if self.num_found >= self.total:
            self._show(f"{counted}, all there before", is_last=True)
            return
        found = f", {self.num_found:,} there before" if self.num_found else ""
        self._show(f"{counted} in {format_seconds(self.elapsed_s)}{found}", is_last=True)

    def _describe_running(self) -> str:
        counted = f"{self.num_done:,} of {self.total:,} {self.unit}"
        num_new = self.num_done - self.num_found
        if not num_new:
            return counted
        left_s = self.elapsed_s / num_new * max(0, self.total - self.num_done)
        return f"{counted}, about {format_seconds(left_s)} left"

    def _show(self, text: str, is_last: bool) -> None:
        self.shown_s = time.monotonic()
        show_line(self.name, text, self.stream, is_last)


@contextmanager
def show_stage(
    name: str, total: int, unit: str, stream: TextIO | None = None
) -> Iterator[StageLine]:
    """Show a stage's line while its work runs; an exception leaves the line as it stands."""
    line = StageLine(name, total, unit, stream or sys.stdout)
    try:
        yield line
    except BaseException:
        if line.stream.isatty():
            line.stream.write("\n")
        raise
    line.finish()


def show_line(name: str, text: str, stream: TextIO | None = None, is_last: bool = True) -> None:
    """Show a line; on a terminal the next one replaces it unless it is the last of its kind."""
    stream = stream or sys.stdout
    line = f"{name:<12} {text}"
    if stream.isatty():
        stream.write(f"\r{line:<78}" + ("\n" if is_last else ""))
    else:
        stream.write(f"{line}\n")
    stream.flush()


def format_seconds(seconds: float) -> str:
    """A duration as people write it: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
