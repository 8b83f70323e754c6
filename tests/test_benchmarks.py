"""The harness by exact sums, the inputs by real files, and one real run; speed is never tested."""

import itertools
import json
import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqray.benchmarks.harness import (
    Benchmark,
    BenchmarkRow,
    Fidelity,
    build_environment,
    compare_scores,
    format_header,
    format_row,
    measure,
    write_rows,
)
from iqray.benchmarks.inputs import (
    RANDOM_WEIGHTS,
    SIZES_PX,
    generate_images,
    provide_weights,
    read_images,
)
from iqray.benchmarks.processes import NUM_FILES, PROCESS_TARGETS
from iqray.benchmarks.ray_tax import RAY_TAX
from iqray.benchmarks.scoring import KERNEL_BENCHMARKS, build_benchmark
from iqray.errors import StudyError
from iqray.inputs.images import decode_image, read_header
from iqray.metrics.registry import METRICS_WITH_FILES, find_metric
from iqray.metrics.scorer import Scorer
from jobs import benchmark as benchmark_job
from tests.conftest import MakeDataset, make_pixels

JOB = Path(__file__).parent.parent / "jobs" / "benchmark.py"
ROW_KEYS = ["name", "peer", "peer_s", "ours_s", "ratio", "target", "fidelity", "holds"]


def run_timed(
    peer_s: list[float], ours_s: list[float], target: float, kept: bool = True
) -> tuple[BenchmarkRow, str]:
    """Measure two ways that take the given times on a clock of their own; also who ran when."""
    turns: list[str] = []
    now_s = 0.0
    # The first run of each is the warm-up; its time must not count.
    durations_s = {"A": iter([1000.0, *peer_s]), "B": iter([0.001, *ours_s])}

    def work(who: str) -> str:
        nonlocal now_s
        now_s += next(durations_s[who])
        turns.append(who)
        return who

    benchmark = Benchmark(
        name="toy",
        peer="a slow way",
        target=target,
        run_peer=lambda: work("A"),
        run_ours=lambda: work("B"),
        compare=lambda ours, theirs: Fidelity(kept and (ours, theirs) == ("B", "A"), "words"),
    )
    return measure(benchmark, len(peer_s), clock=lambda: now_s), "".join(turns)


def test_ratio_is_the_median_of_pairs_and_warm_up_is_left_out() -> None:
    # Ratios 2, 3, 8, 1, 4: their median is 3, but the medians 8 and 2 have the ratio 4.
    row, turns = run_timed([2, 9, 8, 2, 16], [1, 3, 1, 2, 4], target=3)
    assert (row.ratio, row.peer_s, row.ours_s) == (3, 8, 2)
    assert turns == "AB" * 6
    assert row.holds


def test_a_ratio_below_the_target_does_not_hold() -> None:
    row, _ = run_timed([2] * 5, [1] * 5, target=2.001)
    assert row.ratio == 2
    assert not row.holds


def test_whoever_misses_the_fidelity_does_not_hold_whatever_the_speed() -> None:
    row, _ = run_timed([1000] * 5, [1] * 5, target=2, kept=False)
    assert row.ratio == 1000
    assert not row.holds


def test_too_few_repeats_are_refused() -> None:
    with pytest.raises(StudyError, match="repeats is 4; a ratio is the median of at least 5"):
        run_timed([1] * 4, [1] * 4, target=1)


def test_scores_are_compared_relative_to_the_peers() -> None:
    assert compare_scores([100.0009, 2.0], [100.0, 2.0], 1e-5).is_kept
    assert not compare_scores([100.0011, 2.0], [100.0, 2.0], 1e-5).is_kept
    assert not compare_scores([0.010001, 2.0], [0.01, 2.0], 1e-5).is_kept
    assert compare_scores([0.0], [0.0], 0).is_kept
    assert not compare_scores([1e-9], [0.0], 1e-5).is_kept


@pytest.mark.parametrize("scores", itertools.permutations([math.nan, 1.0, 2.0]))
def test_an_image_without_a_score_is_never_faithful(scores: tuple[float, ...]) -> None:
    kept = [1.0 if math.isnan(score) else score for score in scores]
    assert compare_scores(kept, kept, 1e-5).is_kept
    assert not compare_scores(scores, kept, 1e-5).is_kept
    assert not compare_scores(scores, scores, 1e-5, same_order=True).is_kept


def test_an_order_can_differ_within_the_tolerance() -> None:
    ours, theirs = [1.0, 1.000001, 3.0], [1.000001, 1.0, 3.0]
    assert compare_scores(ours, theirs, 1e-5).is_kept
    judged = compare_scores(ours, theirs, 1e-5, same_order=True)
    assert not judged.is_kept
    assert "ORDER DIFFERS" in judged.words
    assert compare_scores(theirs, theirs, 1e-5, same_order=True).is_kept


def test_rows_are_written_as_json_and_as_a_table(tmp_path: Path) -> None:
    row, _ = run_timed([2] * 5, [1] * 5, target=3)
    write_rows(tmp_path / "new" / "rows.json", [row, row])
    found = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert [list(entry) for entry in found] == [ROW_KEYS] * 2
    assert [BenchmarkRow(**entry) for entry in found] == [row, row]
    assert [field.name for field in fields(BenchmarkRow)] == ROW_KEYS
    assert format_header().split()[0] == "name"
    words = ["toy", "2.0000", "1.0000", "2.000", "3", "NO", "words"]
    assert format_row(row).split() == words


def test_both_sides_get_the_workers_memory_settings_and_threads() -> None:
    settings = build_environment(3)
    assert settings["MALLOC_MMAP_MAX_"] == "0"
    assert settings["OMP_NUM_THREADS"] == "3"
    with pytest.raises(StudyError, match="threads is 0"):
        build_environment(0)


def test_the_jobs_names_are_those_of_the_benchmarks() -> None:
    assert benchmark_job.KERNEL_NAMES == KERNEL_BENCHMARKS
    assert (*PROCESS_TARGETS, RAY_TAX) == benchmark_job.PROCESS_NAMES
    assert PROCESS_TARGETS.keys() == NUM_FILES.keys()


def test_generated_images_have_the_sizes_asked_for() -> None:
    images = generate_images(3)
    headers = [read_header(data) for data in images]
    assert [(header.width, header.height) for header in headers] == list(SIZES_PX[:3])
    assert generate_images(3) == images
    assert len(set(images)) == 3


def test_images_are_spread_over_a_folder_and_useless_files_passed_over(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(make_pixels(rng, 97 + number, 96)).save(tmp_path / f"{number}.png")
    widths = [read_header(data).width for data in read_images(tmp_path, 4)]
    assert widths == [97, 99, 101, 103]
    (tmp_path / "0.png").write_bytes(b"no image")
    Image.fromarray(make_pixels(rng, 300, 95)).save(tmp_path / "2.png")
    widths = [read_header(data).width for data in read_images(tmp_path, 4)]
    assert widths == [101, 103, 98, 100]
    assert len(read_images(tmp_path, 100)) == 6


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no image of at least 96 px a side"):
        read_images(tmp_path, 4)


@pytest.mark.parametrize("metric", [name for name in METRICS_WITH_FILES if name != "clipiqa"])
def test_random_weights_give_scores_that_differ(metric: str, tmp_path: Path) -> None:
    weights = provide_weights(metric, tmp_path / "absent", tmp_path)
    assert weights.provenance == RANDOM_WEIGHTS
    rng = np.random.default_rng(0)
    images = [make_pixels(rng, 112, 96) for _ in range(3)]
    results = Scorer(weights).score(images)
    assert {result.status for result in results} == {"ok"}
    assert len({result.score for result in results}) == len(images)


def test_the_users_weight_file_is_taken_where_there_is_one(tmp_path: Path) -> None:
    drawn = provide_weights("niqe", None, tmp_path)
    own = provide_weights("niqe", tmp_path / "niqe", tmp_path / "unused")
    assert own == drawn
    assert not (tmp_path / "unused").exists()
    assert own.names == find_metric("niqe").weight_files


@pytest.mark.parametrize("name", ["brisque", "cnniqa", "niqe"])
def test_a_benchmark_runs_both_ways_to_the_same_scores(name: str, tmp_path: Path) -> None:
    images = generate_images(2)
    benchmark = build_benchmark(name, images, None, tmp_path)
    ours, theirs = benchmark.run_ours(), benchmark.run_peer()
    assert len(set(ours)) == len(images)
    assert benchmark.compare(ours, theirs).is_kept
    assert not benchmark.compare(ours[::-1], theirs).is_kept


def test_decoding_once_gives_the_same_pixels(tmp_path: Path) -> None:
    images = generate_images(2)
    benchmark = build_benchmark("decode_once", images, None, tmp_path)
    ours, theirs = benchmark.run_ours(), benchmark.run_peer()
    assert np.array_equal(theirs[1], decode_image(images[1]).pixels)
    assert benchmark.compare(ours, theirs).is_kept
    ours[1] = ours[1].copy()
    ours[1][0, 0, 0] ^= 1
    judged = benchmark.compare(ours, theirs)
    assert judged == Fidelity(False, "1 of 2 images identical")


def run_job(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(JOB), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_job_writes_a_row_for_each_benchmark(make_dataset: MakeDataset, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    images = make_dataset(categories=("ant",))
    only = ["cnniqa", "decode_once"]
    done = run_job(
        *("scoring", "--images", str(images), "--num-images", "2", "--json", str(file)),
        *("--only", *only),
    )
    assert done.stderr == ""
    rows = [BenchmarkRow(**entry) for entry in json.loads(file.read_text())]
    assert [row.name for row in rows] == only
    assert RANDOM_WEIGHTS in rows[0].peer
    assert rows[1].fidelity == "2 of 2 images identical"
    assert all(row.peer_s > 0 and row.ours_s > 0 for row in rows)
    # How fast it was decides the exit code, and is not tested.
    assert done.returncode == (0 if all(row.holds for row in rows) else 1)
    assert done.stdout.splitlines()[-2:] == [format_row(row) for row in rows]


def test_a_mistake_is_one_message() -> None:
    done = run_job("scoring", "--only", "nique")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown benchmark 'nique'; choose from niqe, ")
    assert done.stderr.count("\n") == 1
