"""Whole processes side by side, on a few images: both give the same scores. Speed is not tested."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from iqray.benchmarks.harness import measure
from iqray.benchmarks.inputs import generate_images
from iqray.benchmarks.processes import _compare_gated, build_process_benchmark
from iqray.benchmarks.ray_tax import build_ray_tax

SCORE_JOB = Path(__file__).parent.parent / "jobs" / "score.py"


def grade(change: float = 0.0) -> dict[str, dict[str, float]]:
    """Scores of 40 images, in ten categories whose means and ranges rise."""
    scores = {f"{n:06d}.jpg": (n // 4) + (n % 4) * (n // 4) / 40 for n in range(40)}
    scores["000038.jpg"] += change
    return {"musiq": scores}


def test_gated_scores_are_judged_by_subsets_and_order() -> None:
    assert _compare_gated(grade(0.001), grade()).is_kept
    judged = _compare_gated(grade(-30), grade())  # its category falls from the top to the bottom
    assert not judged.is_kept
    assert "subsets differ in 1 metrics" in judged.words


@pytest.mark.slow
def test_both_processes_give_the_same_scores(tmp_path: Path) -> None:
    benchmark = build_process_benchmark(
        "nss_metrics", generate_images(6), None, tmp_path, SCORE_JOB, num_threads=1, num_files=8
    )
    ours, theirs = benchmark.run_ours(), benchmark.run_peer()
    assert list(theirs) == ["brisque", "niqe"]
    assert sorted(theirs["niqe"]) == [f"{number:06d}.jpg" for number in range(8)]
    assert benchmark.compare(ours, theirs).is_kept
    spoilt = {**ours, "niqe": {**ours["niqe"], "000003.jpg": 1.01 * ours["niqe"]["000003.jpg"]}}
    assert not benchmark.compare(spoilt, theirs).is_kept


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_actors_and_processes_write_the_same_rows(tmp_path: Path) -> None:
    benchmark = build_ray_tax(generate_images(4), None, tmp_path, num_actors=1, num_images=6)
    ours, theirs = benchmark.run_ours(), benchmark.run_peer()
    assert ours.num_rows == 2 * 6
    assert np.isfinite(ours["score"].to_numpy()).all()
    assert benchmark.compare(ours, theirs).is_kept
    changed = ours.set_column(0, "dataset", pa.array(["e"] * ours.num_rows))
    assert not benchmark.compare(changed, theirs).is_kept


def test_without_warm_up_the_first_pair_is_compared_and_counts() -> None:
    from iqray.benchmarks.harness import Benchmark, Fidelity

    times_s = iter(range(1000))
    runs: list[str] = []
    benchmark = Benchmark(
        name="toy",
        peer="a toy",
        target=1.0,
        run_peer=lambda: runs.append("peer"),
        run_ours=lambda: runs.append("ours"),
        compare=lambda *_: Fidelity(True, "equal"),
    )
    pairs_s: list[tuple[float, float]] = []
    row = measure(
        benchmark,
        5,
        clock=lambda: next(times_s),
        warms_up=False,
        report=lambda *pair_s: pairs_s.append(pair_s),
    )
    assert pairs_s == [(1, 1)] * 5
    assert runs == ["peer", "ours"] * 5
    assert (row.ratio, row.holds) == (1.0, True)
