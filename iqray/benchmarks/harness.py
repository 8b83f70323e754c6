"""Times two ways to one result in turn, and holds the ratio against a target.

A ratio counts only where both ways give the same result: whoever is fast and wrong has lost.
Both run in this process, with the same threads and the same memory settings.
"""

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from iqray.cluster import WORKER_ENVIRONMENT
from iqray.errors import StudyError

Result = TypeVar("Result")

# A median of fewer ratios moves with every hiccup of the machine.
MIN_REPEATS = 5

_COLUMNS = "{:<12} {:>10} {:>10} {:>8} {:>8}  {:<6} {}"


@dataclass(frozen=True)
class Fidelity:
    """Whether two ways gave the same result; `words` says how far they are apart."""

    is_kept: bool
    words: str


@dataclass(frozen=True)
class Benchmark(Generic[Result]):
    """Two ways to one result, ready to run.

    Attributes:
        name: of the benchmark.
        peer: what iqray is measured against, in words.
        target: ratio of the peer's time to iqray's that iqray has to reach.
        run_peer: does the whole work the peer's way.
        run_ours: does the whole work iqray's way.
        compare: judges the result of `run_ours` (first) by that of `run_peer`.
    """

    name: str
    peer: str
    target: float
    run_peer: Callable[[], Result]
    run_ours: Callable[[], Result]
    compare: Callable[[Result, Result], Fidelity]


@dataclass(frozen=True)
class BenchmarkRow:
    """What a benchmark came to; also one object of the JSON file.

    Attributes:
        name: of the benchmark.
        peer: what iqray was measured against, in words.
        peer_s: median over the repeats, wall-clock seconds for all images.
        ours_s: likewise.
        ratio: median of peer's over iqray's time, each pair measured back to back. Not the ratio
            of the medians, which a machine that slows down for a while would shift.
        target: smallest ratio that holds.
        fidelity: how far the results are apart, and what is allowed.
        holds: whether the results agree and the ratio reaches the target.
    """

    name: str
    peer: str
    peer_s: float
    ours_s: float
    ratio: float
    target: float
    fidelity: str
    holds: bool


def measure(
    benchmark: Benchmark[Result],
    num_repeats: int = MIN_REPEATS,
    clock: Callable[[], float] = time.perf_counter,
    warms_up: bool = True,
    report: Callable[[float, float], None] | None = None,
) -> BenchmarkRow:
    """Time both ways in turn, and compare what they give.

    Args:
        benchmark: what to run.
        num_repeats: pairs to time, peer first.
        clock: seconds from any start.
        warms_up: whether a pair runs first that does not count. A process of its own, whose start
            counts, has nothing to warm up.
        report: told each pair's times, in seconds, as soon as they are known.

    Raises:
        StudyError: fewer than `MIN_REPEATS` pairs.
    """
    if num_repeats < MIN_REPEATS:
        raise StudyError(
            f"repeats is {num_repeats}; a ratio is the median of at least {MIN_REPEATS}: raise it"
        )
    if warms_up:
        theirs, ours = benchmark.run_peer(), benchmark.run_ours()
        fidelity = benchmark.compare(ours, theirs)
    pairs_s = []
    for number in range(num_repeats):
        theirs, peer_s = _time(benchmark.run_peer, clock)
        ours, ours_s = _time(benchmark.run_ours, clock)
        pairs_s.append((peer_s, ours_s))
        if report is not None:
            report(peer_s, ours_s)
        if number == 0 and not warms_up:
            fidelity = benchmark.compare(ours, theirs)
    ratio = statistics.median(peer_s / ours_s for peer_s, ours_s in pairs_s)
    return BenchmarkRow(
        name=benchmark.name,
        peer=benchmark.peer,
        peer_s=statistics.median(peer_s for peer_s, _ in pairs_s),
        ours_s=statistics.median(ours_s for _, ours_s in pairs_s),
        ratio=ratio,
        target=benchmark.target,
        fidelity=fidelity.words,
        holds=fidelity.is_kept and ratio >= benchmark.target,
    )


def compare_scores(
    ours: Sequence[float], theirs: Sequence[float], tolerance: float, same_order: bool = False
) -> Fidelity:
    """Judge scores by those of the peer.

    Args:
        ours: one score per image; NaN where there is none, which is never faithful.
        theirs: the peer's, for the same images.
        tolerance: largest allowed difference, relative to the peer's score.
        same_order: whether the images must also sort alike.
    """
    largest = find_largest_deviation(ours, theirs)
    words = f"{largest:.1e} relative, {tolerance:g} allowed"
    if not same_order:
        return Fidelity(largest <= tolerance, words)
    is_same = _sort_positions(ours) == _sort_positions(theirs)
    words += ", same order" if is_same else ", ORDER DIFFERS"
    return Fidelity(largest <= tolerance and is_same, words)


def find_largest_deviation(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Largest difference, relative to the peer's score; infinite where a score is NaN."""
    pairs = zip(ours, theirs, strict=True)
    deviations = [_compute_deviation(our, their) for our, their in pairs]
    # A NaN has no place in an order, so `max` alone could pass over it.
    return math.inf if any(map(math.isnan, deviations)) else max(deviations)


def format_header() -> str:
    """Heading of the table of rows."""
    return _COLUMNS.format("name", "peer s", "ours s", "ratio", "target", "holds", "fidelity")


def format_row(row: BenchmarkRow) -> str:
    """One line of the table."""
    return _COLUMNS.format(
        row.name,
        f"{row.peer_s:.4f}",
        f"{row.ours_s:.4f}",
        f"{row.ratio:.3f}",
        f"{row.target:g}",
        "yes" if row.holds else "NO",
        row.fidelity,
    )


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Write rows, such as `BenchmarkRow`, as a JSON list of objects with their fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


def build_environment(num_threads: int) -> dict[str, str]:
    """Settings that both sides run under: those of iqray's workers, and threads of all libraries.

    glibc's allocator, OpenMP and OpenBLAS read them as a process starts, so they have to be there
    before it does.

    Raises:
        StudyError: fewer than one thread.
    """
    if num_threads < 1:
        raise StudyError(f"threads is {num_threads}; work needs at least 1")
    libraries = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return WORKER_ENVIRONMENT | dict.fromkeys(libraries, str(num_threads))


def ensure_environment(settings: Mapping[str, str]) -> None:
    """Start this command anew, once, in an environment with the settings, unless it has them."""
    if all(os.environ.get(name) == value for name, value in settings.items()):
        return
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, {**os.environ, **settings})  # noqa: S606 (this command)


def _time(run: Callable[[], Result], clock: Callable[[], float]) -> tuple[Result, float]:
    """A result and the seconds that it took."""
    started_s = clock()
    result = run()
    return result, clock() - started_s


def _compute_deviation(our: float, their: float) -> float:
    """Difference relative to the peer's score; 0 where they are equal, NaN where one is NaN."""
    if our == their:
        return 0.0
    return abs(our - their) / abs(their) if their else abs(our - their) * math.inf


def _sort_positions(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=scores.__getitem__)
