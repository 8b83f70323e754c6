"""The benchmark of reports makes real ones, and counts what is in them."""

from pathlib import Path

import pandas as pd
import pytest

from iqray.benchmarks.report_roots import RootSize
from iqray.benchmarks.reports import LIMIT_S, format_report, run_report, write_study
from iqray.errors import StudyError
from jobs.benchmark import main

JOB = Path(__file__).parent.parent / "jobs" / "report.py"


def test_a_run_counts_what_the_report_has(tmp_path: Path) -> None:
    size = RootSize(
        categories={"d": 10},
        metrics=("brisque", "musiq"),
        architectures=("alexnet",),
        seeds=(0,),
        num_train=6,
        num_test=3,
        num_epochs=2,
        dim=4,
        fraction=0.25,
    )
    num_rows = write_study(tmp_path, size)
    assert num_rows == len(pd.read_parquet(tmp_path / "results/cells.parquet")) == 8
    run = run_report(JOB, tmp_path, num_rows)
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert run.page_mib == pytest.approx(len(page.encode()) / 2**20)
    assert run.num_figures == page.count("<figure") > 5
    assert run.num_tables > 5
    assert run.holds == (run.seconds <= LIMIT_S)
    assert format_report(run).split()[0] == "8"


def test_a_report_that_fails_is_not_a_time(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no report can be made"):
        run_report(JOB, tmp_path / "nothing", 8)


def test_reports_do_not_use_a_gpu() -> None:
    with pytest.raises(StudyError, match="report does not use it"):
        main(["report", "--gpu"])
