"""How long a report takes at the paper's size: jobs/report.py on an invented finished study.

There is no peer; the limit is a minute for 192 cells and three seeds.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from iqray.benchmarks.report_roots import RootSize, write_report_root
from iqray.errors import StudyError
from iqray.storage import Storage

# Seconds that a report of the paper's study may take, its process included.
LIMIT_S = 60.0


@dataclass(frozen=True)
class ReportRun:
    """One report of a study.

    Attributes:
        num_rows: cells x seeds.
        seconds: of the whole process, imports included.
        page_mib: size of the page.
        num_figures: on it.
        num_tables: on it.
        holds: whether it took no longer than `LIMIT_S`.
    """

    num_rows: int
    seconds: float
    page_mib: float
    num_figures: int
    num_tables: int
    holds: bool


def write_study(folder: Path, size: RootSize) -> int:
    """Write an invented study of this size; gives its cells x seeds."""
    write_report_root(Storage(str(folder)), size)
    per_dataset = len(size.architectures) * len(size.metrics) * 4 * len(size.seeds)
    return len(size.categories) * per_dataset


def run_report(job: Path, root: Path, num_rows: int) -> ReportRun:
    """Make the report of a root anew, in a process of its own.

    Raises:
        StudyError: the job has failed; the message has what it printed.
    """
    started_s = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(job), "--root", str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started_s
    if done.returncode:
        raise StudyError(f"'{job.name}' failed:\n{done.stdout}{done.stderr}")
    report = root / "report"
    return ReportRun(
        num_rows=num_rows,
        seconds=seconds,
        page_mib=(report / "index.html").stat().st_size / 2**20,
        num_figures=len(list((report / "figures").glob("*.png"))),
        num_tables=len(list((report / "tables").glob("*.csv"))),
        holds=seconds <= LIMIT_S,
    )


def format_report_header() -> str:
    """Heading of `format_report`."""
    return f"{'rows':>6} {'seconds':>8} {'page MiB':>9} {'figures':>8} {'tables':>7}  limit"


def format_report(run: ReportRun) -> str:
    """One run, a line."""
    verdict = f"{LIMIT_S:.0f} s, {'kept' if run.holds else 'MISSED'}"
    return (
        f"{run.num_rows:>6,} {run.seconds:>8.1f} {run.page_mib:>9.1f} {run.num_figures:>8} "
        f"{run.num_tables:>7}  {verdict}"
    )
