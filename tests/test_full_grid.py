"""The whole study as a user runs it: a process of its own, a small study, real Ray."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from iqray import schemas
from tests.small_study import TIMEOUT_S, write_study

JOB = Path(__file__).parent.parent / "jobs" / "full_grid.py"


def run_job(
    study: Path, *arguments: str, cache: Path, timeout: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(JOB), "--study", str(study), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "IQRAY_CACHE": str(cache)},
        check=False,
    )


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output root and terminal text of an undisturbed run."""
    root = tmp_path_factory.mktemp("finished") / "out"
    controls = {"random": 2, "count_matched": 1, "image_halves": True, "untrained": True}
    study = write_study(inputs, root, controls=controls)
    done = run_job(study, cache=root.parent / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return root, done.stdout


COMPARED = [
    *("dataset", "architecture", "metric", "subset", "seed", "trial_id", "num_categories"),
    *("num_test_images", "top1", "top5", "distance", "rank_top1", "rank_top5", "rank_distance"),
    "status",
]


def test_every_cell_has_a_row_and_the_page_is_there(finished: tuple[Path, str]) -> None:
    root, text = finished
    cells = pd.read_parquet(root / "results/cells.parquet")
    assert len(cells) == 8
    assert list(cells.columns[: len(COMPARED)]) == COMPARED
    assert (cells["status"] == "ok").all()
    assert (cells["num_categories"] == 2).all()
    assert (cells["num_test_images"] == 4).all()
    assert cells["top1"].between(0, 1).all()
    assert (cells["distance"] > 0).all()
    ranks = cells.groupby("metric")[["rank_top1", "rank_top5", "rank_distance"]].sum()
    assert (ranks == 10).all(axis=None)
    assert len(pd.read_csv(root / "results/cells.csv")) == 8
    assert pd.read_parquet(root / "scores").groupby("metric").size().to_dict() == {
        "brisque": 24,
        "cnniqa": 24,
    }
    own = pd.read_parquet(root / "results/ranks.parquet")
    own = own[(own["orientation"] == "quality") & (own["definition"] == "euclidean_pairs")]
    own = own.dropna(subset=["seed"]).merge(cells, on=["metric", "subset"])
    assert (own["value"] == own["distance"]).all()
    assert (own["rank"] == own["rank_distance"]).all()
    assert f"report: {root}/report/index.html" in text
    assert "recipe 'demo (changed)' is a preview" in text
    assert "How far to trust it" in (root / "report/index.html").read_text()


def test_real_subsets_stand_among_the_controls(finished: tuple[Path, str]) -> None:
    root, _ = finished
    control_cells = pd.read_parquet(root / "results/control_cells.parquet")
    assert control_cells.groupby("control").size().to_dict() == {
        "best_half": 8,
        "count_matched": 8,
        "random": 2,
        "untrained": 8,
        "worst_half": 8,
    }
    assert (control_cells["status"] == "ok").all()
    controls = pd.read_parquet(root / "results/controls.parquet")
    assert controls.groupby("control")["num_draws"].unique().map(list).to_dict() == {
        "count_matched": [1],
        "image_halves": [1],
        "random": [2],
        "untrained": [1],
    }
    drawn = controls["control"].isin(["random", "count_matched"])
    assert controls.loc[drawn, "percentile"].between(0, 100).all()
    assert controls.loc[~drawn, ["percentile", "z"]].isna().all(axis=None)
    counts = pd.read_parquet(root / "results/rank_counts.parquet")
    assert counts["subset"].nunique() == 4


def test_halves_and_untrained_networks_stand_beside_their_subsets(
    finished: tuple[Path, str],
) -> None:
    root, _ = finished
    keys = ["metric", "subset"]
    cells = pd.read_parquet(root / "results/cells.parquet").set_index(keys)
    control_cells = pd.read_parquet(root / "results/control_cells.parquet")
    controls = pd.read_parquet(root / "results/controls.parquet")
    by_control = {name: own.set_index(keys) for name, own in control_cells.groupby("control")}
    best, worst, untrained = (
        by_control[name].loc[cells.index] for name in ("best_half", "worst_half", "untrained")
    )
    for control, first, second in (
        ("image_halves", best, worst),
        ("untrained", cells, untrained),
    ):
        own = controls[(controls["control"] == control) & (controls["measure"] == "distance")]
        found = own.set_index(keys).loc[cells.index, "difference"]
        pd.testing.assert_series_equal(
            found, first["distance"] - second["distance"], check_names=False
        )
    # Networks before training know their categories, and neither metric nor training images.
    assert untrained["trial_id"].nunique() == cells["trial_id"].nunique()
    assert (read_train_images(root, untrained["trial_id"].iloc[0])).empty
    log = root / f"trials/{untrained['trial_id'].iloc[0]}/log.jsonl"
    assert log.read_bytes() == b""

    scores = pd.read_parquet(root / "scores").set_index("image_id")
    for names in cells.index:
        halves = [read_train_images(root, each.loc[names, "trial_id"]) for each in (best, worst)]
        own = scores[scores["metric"] == names[0]]["score"]
        sign = -1 if names[0] == "brisque" else 1
        quality = [each.assign(quality=sign * own.loc[each.index]) for each in halves]
        better, worse = (each.groupby("category")["quality"] for each in quality)
        assert better.size().to_dict() == worse.size().to_dict()
        assert set(better.size()) == {2}  # of four training images
        assert (better.min() >= worse.max()).all()
        assert not set(halves[0].index) & set(halves[1].index)
    page = (root / "report/index.html").read_text()
    assert "the best half of each category" in page
    assert not (root / "report/figures/controls_untrained.png").exists()


def read_train_images(root: Path, trial_id: str) -> pd.DataFrame:
    """Training images of a trial that does not take all of them, by image_id."""
    return pd.read_parquet(root / f"trials/{trial_id}/train_images.parquet").set_index("image_id")


def test_one_line_per_stage(finished: tuple[Path, str]) -> None:
    _, text = finished
    # A stage that takes long has lines of its progress before its last.
    stages = [name for name, _ in groupby(line.split(" ")[0] for line in text.splitlines())][1:10]
    assert stages[:5] == ["ray", "images", "manifest", "scores", "subsets"]
    assert stages[5:] == ["trials", "results", "statistics", "report"]
    assert "dashboard at http://127.0.0.1:" in text
    assert "images, inspected and scored in" in text
    assert "48 of 48 scores" in text


def test_statistics_say_what_a_study_is_too_small_for(finished: tuple[Path, str]) -> None:
    root, _ = finished
    statistics = pd.read_parquet(root / "results/statistics.parquet")
    assert statistics.columns.tolist() == schemas.STATISTICS.names
    tests = statistics.groupby("test")
    assert (tests.get_group("friedman")["n"] == 2).all()
    assert (tests.get_group("interaction")["reason"].str.startswith("1 datasets")).all()
    assert (tests.get_group("without_metric")["reason"].str.startswith("1 clusters")).all()
    permutations = tests.get_group("permutation").groupby("unit")
    assert permutations.get_group("clusters")["p_value"].notna().all()
    assert (permutations.get_group("datasets")["reason"].str.startswith("1 datasets")).all()
    intervals = pd.read_parquet(root / "results/intervals.parquet")
    own = intervals[intervals["scope"] == "cell"]
    assert len(own) == 8 * 3
    assert (own["low"] <= own["high"]).all()
    assert own[own["measure"] == "top1"]["value"].between(0, 1).all()
    diagnostics = pd.read_parquet(root / "results/diagnostics.parquet")
    assert diagnostics.columns.tolist() == schemas.DIAGNOSTICS.names
    counts = diagnostics.groupby("measure")["n"].max()
    assert counts["spearman_images"] == 24
    assert counts["split_half"] == counts["spearman_categories"] == 6
    for name, table in (("statistics", statistics), ("diagnostics", diagnostics)):
        assert len(pd.read_csv(root / f"results/{name}.csv")) == len(table)
    stats = pd.read_parquet(root / "category_stats.parquet")
    assert (stats["median_pixels"] == 112 * 96).all()
    assert stats["bytes_per_pixel"].between(0.05, 3).all()


def test_second_run_does_nothing(finished: tuple[Path, str]) -> None:
    root, _ = finished
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    again = run_job(root.parent / "out.yaml", cache=root.parent / "cache")
    assert again.returncode == 0
    assert len(re.findall("all there before", again.stdout)) == 7
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    logs = set((root / "logs").iterdir())
    assert {path for path in after if after[path] != before.get(path)} <= logs


def test_dry_run_starts_nothing(inputs: Path, finished: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = finished
    done = run_job(root.parent / "out.yaml", "--dry-run", cache=tmp_path)
    assert "1 datasets x 1 architectures x 2 metrics x 4 subsets = 8 cells" in done.stdout
    assert re.search(r"trials +(\d+) of \1 there; 8 cells need \1 distinct trials", done.stdout)
    new = run_job(write_study(inputs, tmp_path / "new"), "--dry-run", cache=tmp_path)
    assert new.returncode == 0
    assert "manifest     0 of 36 images there" in new.stdout
    assert "trials       known when the subsets of 8 cells are chosen" in new.stdout
    assert not list((tmp_path / "new").rglob("*"))


def test_killed_run_continues_to_the_same_results(
    inputs: Path, finished: tuple[Path, str], tmp_path: Path
) -> None:
    """Killed while it trains; `test_scoring_kills` kills while it scores."""
    study = write_study(inputs, tmp_path / "out", training={"checkpoint_s": 0})
    cache = tmp_path / "cache"
    kill_when_present(study, tmp_path / "out", "trials/*/result.json", cache)
    finished_files = [*(tmp_path / "out").glob("trials/*/result.json")]
    finished_files += (tmp_path / "out").glob("scores/**/*.parquet")
    kept = {path: path.stat().st_mtime_ns for path in finished_files}
    assert kept
    assert not (tmp_path / "out/results/cells.parquet").exists()

    done = run_job(study, cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    whole = pd.read_parquet(finished[0] / "results/cells.parquet")[COMPARED]
    resumed = pd.read_parquet(tmp_path / "out/results/cells.parquet")[COMPARED]
    pd.testing.assert_frame_equal(resumed, whole)


def kill_when_present(study: Path, root: Path, pattern: str, cache: Path) -> None:
    """Start the job and kill -9 it as soon as a file of the pattern exists."""
    process = subprocess.Popen(
        [sys.executable, str(JOB), "--study", str(study)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "IQRAY_CACHE": str(cache)},
    )
    deadline = time.monotonic() + TIMEOUT_S
    while not list(root.glob(pattern)):
        assert process.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ["musik"]}, "'musik'"),
        ({"subset": {}}, "unknown key 'subset'"),
        ({"datasets": [{"name": "d", "root": "/nowhere/at/all"}]}, "'/nowhere/at/all/train'"),
        ({"scoring": {"num_gpus": 1}}, "scoring asks for 1 CPUs and 1 GPUs per worker"),
    ],
)
def test_mistakes_end_in_one_message(
    inputs: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    done = run_job(write_study(inputs, tmp_path / "out", **changes), cache=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "out/manifest").exists()


@pytest.mark.parametrize(
    ("changes", "stage", "way_out"),
    [
        ({"subsets": {"k": 3}}, "trials", "--only subsets"),
        ({"metrics": ["brisque", "cnniqa", "niqe"]}, "trials", "--only scores"),
        ({"scoring": {"shard_size": 8, "small_images": "upscale"}}, "subsets", "--only scores"),
    ],
)
def test_a_changed_study_does_not_take_what_is_not_its_own(
    inputs: Path,
    finished: tuple[Path, str],
    tmp_path: Path,
    changes: dict[str, Any],
    stage: str,
    way_out: str,
) -> None:
    shutil.copytree(finished[0], tmp_path / "out")
    study = write_study(inputs, tmp_path / "out", **changes)
    done = run_job(study, "--only", stage, cache=tmp_path)
    assert done.returncode == 2
    assert way_out in done.stderr
    dry = run_job(study, "--dry-run", cache=tmp_path)
    assert "trials       known when the subsets" in dry.stdout


def test_a_page_is_not_made_of_older_statistics(
    inputs: Path, finished: tuple[Path, str], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "out")
    study = write_study(inputs, tmp_path / "out")
    cells = tmp_path / "out/results/cells.parquet"
    pq.write_table(pq.read_table(cells).replace_schema_metadata({"iqray_key": "other"}), cells)
    done = run_job(study, "--only", "report", cache=tmp_path)
    assert done.returncode == 2
    assert "--only statistics" in done.stderr
    (tmp_path / "out/results/statistics.parquet").unlink()
    again = run_job(study, "--only", "report", cache=tmp_path)
    assert "results/statistics.parquet (stage statistics)" in again.stderr
    assert run_job(study, "--only", "statistics", cache=tmp_path).returncode == 0
    assert run_job(study, "--only", "report", cache=tmp_path).returncode == 0


def test_a_trial_that_fails_shows_in_the_exit_code(
    inputs: Path, finished: tuple[Path, str], tmp_path: Path
) -> None:
    """Of the stage trials alone too. The image changes behind its size and time."""
    root = shutil.copytree(finished[0], tmp_path / "out")
    [trial_id, *_] = pd.read_parquet(root / "results/cells.parquet")["trial_id"]
    (root / f"trials/{trial_id}/result.json").unlink()
    [category, *_] = json.loads((root / f"trials/{trial_id}/trial.json").read_text())["categories"]
    [image, *_] = sorted((inputs / f"images/train/{category}").iterdir())
    times, data = image.stat().st_mtime_ns, image.read_bytes()
    study = write_study(inputs, root)
    try:
        image.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        os.utime(image, ns=(times, times))
        done = run_job(study, "--only", "trials", cache=tmp_path)
    finally:
        image.write_bytes(data)
        os.utime(image, ns=(times, times))
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"1 trials failed, such as {trial_id}" in done.stdout


def test_stage_without_its_inputs_is_explained(inputs: Path, tmp_path: Path) -> None:
    done = run_job(write_study(inputs, tmp_path / "out"), "--only", "subsets", cache=tmp_path)
    assert done.returncode == 2
    assert "--only manifest" in done.stderr
