"""jobs/report.py makes everything from an output root alone, wherever that lies."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from iqray.errors import StudyError
from jobs.report import main

JOB = Path(__file__).parent.parent / "jobs" / "report.py"


def copy_root(report_root: Path, target: Path) -> Path:
    return shutil.copytree(report_root, target, ignore=shutil.ignore_patterns("report"))


def test_one_command_makes_the_page_its_figures_and_its_tables(
    report_root: Path, tmp_path: Path
) -> None:
    copy_root(report_root, tmp_path / "root")
    command = [sys.executable, str(JOB), "--root", "root"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"report: {tmp_path}/root/report/index.html\n"
    made = list_report(tmp_path / "root")
    assert made == list_report(report_root)
    for path in made:
        if path.suffix in {".csv", ".parquet"}:
            assert (tmp_path / "root" / path).read_bytes() == (report_root / path).read_bytes()
    assert len({path.stem for path in made if path.suffix == ".png"}) == 13
    assert {path.stem for path in made if path.suffix == ".png"} == {
        path.stem for path in made if path.suffix == ".svg"
    }


def list_report(root: Path) -> list[Path]:
    files = (path for path in (root / "report").rglob("*") if path.is_file())
    return sorted(path.relative_to(root) for path in files)


def test_tables_are_the_same_as_csv_and_parquet(report_root: Path) -> None:
    folder = report_root / "report/tables"
    names = {path.stem for path in folder.glob("*.parquet")}
    assert names == {path.stem for path in folder.glob("*.csv")}
    assert {"firsts", "ranks", "accuracies", "cells", "tests", "mean_ranks", "subsets"} <= names
    for name in names:
        table = pd.read_parquet(folder / f"{name}.parquet")
        text = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        assert list(text.columns) == list(table.columns)
        assert len(text) == len(table)
    cells = pd.read_parquet(folder / "cells.parquet")
    whole = pd.read_parquet(report_root / "results/cells.parquet")
    pd.testing.assert_frame_equal(cells, whole[cells.columns])


def test_what_cannot_be_reached_costs_only_its_figures(report_root: Path, tmp_path: Path) -> None:
    assert b"<image" in (report_root / "report/figures/score_distributions_d_one.svg").read_bytes()
    root = copy_root(report_root, tmp_path / "root")
    shutil.rmtree(root / "data")
    shutil.rmtree(root / "trials")
    (root / "results/controls.parquet").unlink()
    (root / "results/cross_distances.parquet").unlink()
    main(["--root", str(root)])
    figures = {path.stem for path in (root / "report/figures").iterdir()}
    assert {"mean_distances", "score_distributions_d_one"} <= figures
    lost = {"centroid_maps", "learning_curves", "controls_random", "cross_distances_penultimate"}
    assert not figures & lost
    assert "Set controls.random in the study file" in (root / "report/index.html").read_text()
    assert b"<image" not in (root / "report/figures/score_distributions_d_one.svg").read_bytes()
    assert "could not be reached" in (root / "report/index.html").read_text()


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("results/cells.parquet", "results/cells.parquet (stage results)"),
        ("results/study.json", "results/study.json (stage results)"),
        ("manifest/d_two.parquet", "manifest/d_two.parquet (stage manifest)"),
        ("scores/d_one/musiq/_complete.json", "(stage scores)"),
    ],
)
def test_a_missing_table_is_named(report_root: Path, tmp_path: Path, lost: str, named: str) -> None:
    root = copy_root(report_root, tmp_path / "root")
    (root / lost).unlink()
    with pytest.raises(StudyError) as caught:
        main(["--root", str(root)])
    assert named in str(caught.value)
    assert str(root) in str(caught.value)
    assert not (root / "report").exists()


def test_a_root_without_anything_is_a_mistake(tmp_path: Path) -> None:
    command = [sys.executable, str(JOB), "--root", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no report can be made below '{tmp_path}/nothing'")
    assert "jobs/full_grid.py --study" in done.stderr
    assert not (tmp_path / "nothing").exists()


def test_tables_of_two_states_make_no_report(report_root: Path, tmp_path: Path) -> None:
    root = copy_root(report_root, tmp_path / "root")
    cells = root / "results/cells.parquet"
    pq.write_table(pq.read_table(cells).replace_schema_metadata({"iqray_key": "new"}), cells)
    with pytest.raises(StudyError, match=r"statistics.parquet' is of other cells"):
        main(["--root", str(root)])
