"""Memory's peaks by real processes, its limits by exact numbers, and one real pair of runs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iqray.benchmarks.memory import (
    MemoryRun,
    add_images,
    check_numbers,
    draw_small_images,
    format_growth,
    format_run,
    judge_growth,
    run_scoring_job,
    write_memory_study,
)
from iqray.benchmarks.memory_samples import MIB, MemorySample, find_peaks, read_memory
from iqray.errors import StudyError
from iqray.inputs.images import DecodedImage, decode_image
from iqray.study_file import read_study

JOB = Path(__file__).parent.parent / "jobs" / "benchmark.py"

# Says when it holds 64 MiB, also in the child that it has made; a worker by its name.
HOLDER = """
import multiprocessing, sys, time
def hold():
    kept = bytearray(64 * 2**20)
    kept[::4096] = b"x" * len(kept[::4096])
    print("held", flush=True)
    time.sleep(60)
multiprocessing.get_context("fork").Process(target=hold, daemon=True).start()
time.sleep(60)
"""


def test_peaks_are_of_each_figure_on_its_own() -> None:
    samples = iter([MemorySample(1, 20, 300, 4), MemorySample(10, 2, 30, 40), MemorySample()])
    running = iter([True, True, True, False])
    waits: list[int] = []
    peaks = find_peaks(lambda: next(running), lambda: next(samples), lambda: waits.append(1))
    assert peaks == MemorySample(10, 20, 300, 40)
    assert len(waits) == 3


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """A process whose child holds 64 MiB."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), 9)
        process.kill()


def test_children_count_in_the_total_but_not_as_the_driver(holder: subprocess.Popen[str]) -> None:
    sample = read_memory(holder.pid)
    assert 1 < sample.driver_mib < 64
    assert sample.total_mib > 64
    assert sample.worker_mib == sample.object_store_mib == 0  # no Ray there


def test_a_process_that_has_ended_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert read_memory(process.pid) == MemorySample()


@pytest.mark.usefixtures("local_ray")
def test_rays_workers_and_its_object_store_are_found() -> None:
    import ray

    @ray.remote
    def hold(num_bytes: int) -> bytes:
        kept = b"x" * num_bytes
        time.sleep(0.1)
        return kept

    before = read_memory(os.getpid())
    reference = hold.remote(20 * MIB)
    ray.wait([reference])
    after = read_memory(os.getpid())
    # Pages that earlier tests have touched are used again.
    assert after.object_store_mib >= 20
    assert after.object_store_mib - before.object_store_mib < 30
    assert after.worker_mib > 20


def make_run(num_images: int, driver: float, worker: float, store: float) -> MemoryRun:
    return MemoryRun(num_images, 1.0, MemorySample(driver, worker, 1000, store))


def test_limits_are_exact() -> None:
    first = make_run(1000, 100, 400, 4)
    rows = judge_growth([first, make_run(1000 + MIB, 1123.9, 500, 67.9)])
    assert [(row.name, row.holds) for row in rows] == [
        ("largest worker RSS", True),  # 1.25 x
        ("object store", True),  # 63.9 bytes an image
        ("driver RSS", True),  # 1023.9 bytes an image
    ]
    assert rows[2].bytes_per_image == pytest.approx(1023.9)
    rows = judge_growth([first, make_run(1000 + MIB, 1124, 500.1, 68)])
    assert [row.holds for row in rows] == [False] * 3
    assert "DOES NOT HOLD" in format_growth(rows[0])
    # Between the two only the ends count.
    middle = make_run(2000, 9999, 9999, 9999)
    assert all(row.holds for row in judge_growth([first, middle, make_run(3000, 100, 400, 5)]))


def test_a_figure_that_was_never_seen_does_not_hold() -> None:
    rows = judge_growth([make_run(1, 100, 400, 0), make_run(2, 100, 400, 0)])
    assert [row.holds for row in rows] == [True, False, True]


def test_runs_are_lines_of_a_table() -> None:
    assert format_run(make_run(10_000, 100, 400, 0.25)).split() == [
        *("10,000", "1", "100", "400", "1000", "0.25")
    ]


def test_growth_needs_two_numbers() -> None:
    assert check_numbers([60, 30, 60]) == [30, 60]
    for numbers in ([30], [30, 30], [0, 30]):
        with pytest.raises(StudyError, match="at least two different numbers"):
            check_numbers(numbers)


def test_images_are_many_with_bytes_of_their_own(tmp_path: Path) -> None:
    add_images(tmp_path, 0, 80)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
    add_images(tmp_path, 80, 501)
    files = sorted(tmp_path.glob("*/*.jpg"))
    assert len(files) == len({path.read_bytes() for path in files}) == 501
    assert len({path.parent.name for path in files}) == 2
    assert all(path.stat().st_mtime_ns == written for path, written in first.items())
    drawn = draw_small_images()
    for path, data in zip(files, drawn, strict=False):
        image, plain = decode_image(path.read_bytes()), decode_image(data)
        assert isinstance(image, DecodedImage)
        assert isinstance(plain, DecodedImage)
        assert (image.pixels == plain.pixels).all()
        assert all(64 <= side <= 96 for side in image.pixels.shape[:2])


def test_the_study_has_an_actor_for_each_cpu(tmp_path: Path) -> None:
    study = read_study(write_memory_study(tmp_path, 30))
    assert study.scoring.max_actors == os.cpu_count()
    assert study.root.endswith("out-30")
    assert read_study(write_memory_study(tmp_path, 60)).weights == study.weights


def test_a_job_that_fails_is_told_with_its_words(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    job = tmp_path / "job.py"
    job.write_text("import sys; print('no room', file=sys.stderr); sys.exit(2)")
    with pytest.raises(StudyError, match="scoring 30 images failed: no room"):
        run_scoring_job(job, study, 30)


@pytest.mark.slow
def test_the_job_measures_two_runs(tmp_path: Path) -> None:
    file = tmp_path / "memory.json"
    done = subprocess.run(
        [sys.executable, str(JOB), "memory", "--num-images", "60", "30", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.stderr == ""
    content = json.loads(file.read_text())
    assert [run["num_images"] for run in content["runs"]] == [30, 60]
    # Torch alone takes more; how much the few images added is noise, and decides the exit code.
    assert all(value > 0 for run in content["runs"] for value in run["peaks"].values())
    assert all(run["peaks"]["worker_mib"] > 200 for run in content["runs"])
    assert done.returncode == (0 if all(row["holds"] for row in content["rows"]) else 1)
    names = [row["name"] for row in content["rows"]]
    assert [line.split("  ")[0] for line in done.stdout.splitlines()[-3:]] == names
