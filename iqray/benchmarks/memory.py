"""Benchmark of memory: scoring ten times as many images must not take more of it.

Writes generated images and a study, runs jobs/score.py on them as a process of its own, once for
each number of images, and samples the memory of all its processes. Nothing is compared with a peer.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from iqray.benchmarks.inputs import write_random_weights
from iqray.benchmarks.memory_samples import MIB, MemorySample, find_peaks, read_memory
from iqray.demo.textures import COLOURS, PATTERNS, Texture, draw_image
from iqray.distortions import encode_jpeg
from iqray.errors import StudyError

NUM_IMAGES = (10_000, 100_000)

# The cheapest of the paper's metrics: what counts is how many images pass, not what is computed.
_METRIC = "brisque"

_NUM_DRAWN = 36  # images that are drawn; the others differ from them only in a comment
_SIDES_PX = range(64, 97, 8)
_PER_CATEGORY = 500
_PERIOD_S = 0.5

# Largest growth from the fewest images to the most. A hundred thousand images of 96 px, decoded,
# are 2.7 GB; a listing with paths of 100 characters, 20 MB in Arrow, of which there are copies.
MAX_RATIO = 1.25
MAX_DRIVER_BYTES_PER_IMAGE = 1024
# What to do with a shard is told through the object store: 1 to 3 KiB for 256 images.
MAX_STORE_BYTES_PER_IMAGE = 64

_COLUMNS = "{:>10} {:>8} {:>12} {:>12} {:>12} {:>14}"


@dataclass(frozen=True)
class MemoryRun:
    """One run of scoring: how many images, how long, and the peaks of its memory."""

    num_images: int
    wall_s: float
    peaks: MemorySample


@dataclass(frozen=True)
class MemoryRow:
    """Whether one figure stays flat.

    Attributes:
        name: of the figure.
        smallest_mib: its peak with the fewest images.
        largest_mib: its peak with the most.
        ratio: of the two.
        bytes_per_image: growth for each image more.
        limit: in words.
        holds: whether the growth is within the limit.
    """

    name: str
    smallest_mib: float
    largest_mib: float
    ratio: float
    bytes_per_image: float
    limit: str
    holds: bool


def check_numbers(numbers: Sequence[int]) -> list[int]:
    """Numbers of images in the order in which they are run.

    Raises:
        StudyError: fewer than two, or one below 1; growth lies between two.
    """
    ordered = sorted(set(numbers))
    if len(ordered) < 2 or ordered[0] < 1:
        raise StudyError(
            f"num-images is {' '.join(map(str, numbers))}; growth lies between at least two "
            "different numbers, each 1 or more"
        )
    return ordered


def draw_small_images(seed: int = 0) -> list[bytes]:
    """Textures of 64 to 96 px a side, encoded (JPEG)."""
    generator = np.random.default_rng(seed)
    patterns, colours, sides = list(PATTERNS), list(COLOURS), list(_SIDES_PX)
    images = []
    for number in range(_NUM_DRAWN):
        texture = Texture(patterns[number % len(patterns)], colours[number % len(colours)])
        height, width = sides[number % len(sides)], sides[-1 - number % len(sides)]
        images.append(encode_jpeg(draw_image(texture, height, width, generator), 92, "4:2:0"))
    return images


def add_images(folder: Path, start: int, stop: int) -> None:
    """Write images number `start` to `stop - 1`, in folders by category.

    Each has bytes of its own, as photographs have: equal ones would all be listed as duplicates.
    """
    drawn = draw_small_images()
    for number in range(start, stop):
        path = folder / f"category_{number // _PER_CATEGORY:04d}" / f"image_{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_add_comment(drawn[number % len(drawn)], str(number).encode()))


def write_memory_study(folder: Path, num_images: int) -> Path:
    """Write weights and the study that scores `<folder>/images` with an actor on each CPU."""
    weights = folder / "weights"
    if not weights.exists():
        write_random_weights(weights, _METRIC)
    study = {
        "name": "memory",
        "root": str(folder / f"out-{num_images}"),
        "datasets": [{"name": "small", "root": str(folder / "images"), "train": ".", "test": None}],
        "metrics": [_METRIC],
        "recipe": "fast",
        "weights": {"directory": str(weights)},
        "scoring": {"max_actors": os.cpu_count()},
    }
    path = folder / f"study-{num_images}.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def run_scoring_job(job: Path, study: Path, num_images: int) -> MemoryRun:
    """Score a study's images by the job, in a process of its own, and watch its memory.

    Args:
        job: jobs/score.py.
        study: file, from `write_memory_study`.
        num_images: that the study has.

    Raises:
        StudyError: the job fails.
    """
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, str(job), "--study", str(study)]
    log = study.with_suffix(".log")
    started_s = time.monotonic()
    with log.open("wb") as file:
        # Ours alone: no shell, and nothing of the user's in the command.
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)  # noqa: S603
        try:
            peaks = find_peaks(
                lambda: process.poll() is None,
                partial(read_memory, process.pid),
                partial(time.sleep, _PERIOD_S),
            )
        finally:
            process.terminate()  # only where this process was interrupted
            process.wait()
    if process.returncode:
        raise StudyError(f"scoring {num_images} images failed: {_read_end(log)}")
    return MemoryRun(num_images, time.monotonic() - started_s, peaks)


def judge_growth(runs: Sequence[MemoryRun]) -> list[MemoryRow]:
    """Hold the growth of memory from the first run to the last against its limits.

    Args:
        runs: with the fewest images first.
    """
    times = f"at most {MAX_RATIO:g} x"
    return [
        _judge("largest worker RSS", "worker_mib", runs, times, MAX_RATIO, 0),
        _judge(
            "object store",
            "object_store_mib",
            runs,
            f"{times}, or below {MAX_STORE_BYTES_PER_IMAGE} B an image",
            MAX_RATIO,
            MAX_STORE_BYTES_PER_IMAGE,
        ),
        _judge(
            "driver RSS",
            "driver_mib",
            runs,
            f"below {MAX_DRIVER_BYTES_PER_IMAGE} B an image",
            0,
            MAX_DRIVER_BYTES_PER_IMAGE,
        ),
    ]


def format_run_header() -> str:
    """Heading of the table of runs."""
    return _COLUMNS.format(
        "images", "seconds", "driver MiB", "worker MiB", "all PSS MiB", "obj. store MiB"
    )


def format_run(run: MemoryRun) -> str:
    """One line of the table of runs; figures are peaks."""
    peaks = run.peaks
    return _COLUMNS.format(
        f"{run.num_images:,}",
        f"{run.wall_s:.0f}",
        f"{peaks.driver_mib:.0f}",
        f"{peaks.worker_mib:.0f}",
        f"{peaks.total_mib:.0f}",
        f"{peaks.object_store_mib:.2f}",
    )


def format_growth(row: MemoryRow) -> str:
    """One line on a figure's growth."""
    return (
        f"{row.name:<20} {row.ratio:6.2f} x, {row.bytes_per_image:7.1f} B an image "
        f"({row.limit}): {'holds' if row.holds else 'DOES NOT HOLD'}"
    )


def write_memory_report(path: Path, runs: Sequence[MemoryRun], rows: Sequence[MemoryRow]) -> None:
    """Write runs and rows as JSON: `{"runs": [...], "rows": [...]}`."""
    content = {"runs": [asdict(run) for run in runs], "rows": [asdict(row) for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _judge(
    name: str,
    figure: str,
    runs: Sequence[MemoryRun],
    limit: str,
    max_ratio: float,
    max_bytes_per_image: float,
) -> MemoryRow:
    """A figure holds when it is within either limit; a limit of 0 is none."""
    smallest, largest = (getattr(run.peaks, figure) for run in (runs[0], runs[-1]))
    added = runs[-1].num_images - runs[0].num_images
    # Where a figure was never seen, nothing is known, and nothing holds.
    ratio = largest / smallest if smallest else float("inf")
    bytes_per_image = (largest - smallest) * MIB / added
    is_flat = ratio <= max_ratio or bytes_per_image < max_bytes_per_image
    holds = is_flat and smallest > 0
    return MemoryRow(name, smallest, largest, ratio, bytes_per_image, limit, holds)


def _add_comment(jpeg: bytes, text: bytes) -> bytes:
    """Put a comment behind the marker that begins a JPEG file."""
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def _read_end(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return " ".join(" ".join(lines[-5:]).split())[:500]
