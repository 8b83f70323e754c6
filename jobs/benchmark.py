"""How fast iqray scores beside pyiqa, at equal scores.

    uv run jobs/benchmark.py scoring
    uv run jobs/benchmark.py scoring --images photos --weights weights --json scoring.json
    uv run jobs/benchmark.py scoring --only niqe brisque decode_once
    uv run jobs/benchmark.py memory --num-images 10000 100000

Each metric's scorer of iqray runs in turn with pyiqa's own network, which has the same weights and
is called on one image at a time; both start from decoded pixels. decode_once sets one decode of
each image against one per metric. A ratio is the median of pairs of wall-clock times measured back
to back in this process, after one run of each to warm up. A row holds when the scores agree and the
ratio reaches the target; exit code 1 says that one does not.

All of it takes 6 to 7 minutes on one core, of which clipiqa and dbcnn take two each.

memory scores small generated images with jobs/score.py, once for each number of images, and prints
the peaks of its processes' memory. It holds when the largest worker and the object store take at
most 1.25 times as much for the most images as for the fewest (for the object store also: less than
64 bytes more an image, which task descriptions take) and the driver grows by less than 1 KiB an
image. Linux only; 5 to 10 minutes and 0.5 GB of disk for 10,000 and 100,000 images on 2 cores.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from iqray.benchmarks.harness import (
    MIN_REPEATS,
    BenchmarkRow,
    build_environment,
    ensure_environment,
    format_header,
    format_row,
    measure,
    write_rows,
)
from iqray.cli import run_job
from iqray.errors import StudyError

EXIT_MISSED = 1  # a benchmark does not hold


def main(argv: Sequence[str] | None = None) -> None:
    """Run benchmarks, print a row for each, and say by the exit code whether all hold."""
    arguments = build_parser().parse_args(argv)
    if arguments.suite == "memory":  # in the user's environment, as the job runs in
        sys.exit(0 if run_memory(arguments) else EXIT_MISSED)
    ensure_environment(build_environment(arguments.threads))
    rows = run_scoring(arguments)
    if arguments.json is not None:
        write_rows(arguments.json, rows)
    if not all(row.holds for row in rows):
        sys.exit(EXIT_MISSED)


def build_parser() -> argparse.ArgumentParser:
    """Parser of this job's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=["scoring", "memory"], help="which benchmarks")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of photographs (default: generated images in common sizes of ImageNet)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="folder of pyiqa's weight files; a metric without one gets seeded random weights",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="niqe, brisque, clipiqa, cnniqa, musiq, dbcnn, decode_once (default: all)",
    )
    parser.add_argument(
        "--repeats", type=int, default=MIN_REPEATS, help="pairs to time (default: %(default)s)"
    )
    parser.add_argument(
        "--num-images",
        type=int,
        nargs="+",
        metavar="N",
        help="images in a run (default: 8; of memory, several numbers: 10000 100000)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the rows")
    parser.add_argument(
        "--threads", type=int, default=1, help="of both sides (default: %(default)s)"
    )
    return parser


def run_scoring(arguments: argparse.Namespace) -> list[BenchmarkRow]:
    """Run benchmarks of scoring one after another, each loaded only for its own turn."""
    # Imported here, as torch takes seconds and the process may have to start anew before.
    import torch

    from iqray.benchmarks.inputs import generate_images, read_images
    from iqray.benchmarks.scoring import SCORING_BENCHMARKS, build_benchmark, check_names

    names = arguments.only or SCORING_BENCHMARKS
    check_names(names)
    num_images = choose_num_images(arguments)
    torch.set_num_threads(arguments.threads)
    if arguments.images is None:
        images = generate_images(num_images)
    else:
        images = read_images(arguments.images, num_images)
    print(f"{len(images)} images, threads: {arguments.threads}, repeats: {arguments.repeats}")
    print(format_header())
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as spare:
            benchmark = build_benchmark(name, images, arguments.weights, Path(spare))
        rows.append(measure(benchmark, arguments.repeats))
        print(format_row(rows[-1]), flush=True)
    return rows


def choose_num_images(arguments: argparse.Namespace) -> int:
    """How many images benchmarks of scoring take."""
    numbers = arguments.num_images or [8]
    if len(numbers) > 1 or numbers[0] < 2:
        raise StudyError(
            f"num-images is {' '.join(map(str, numbers))}; scoring takes one number, and an order "
            "needs at least 2"
        )
    return int(numbers[0])


def run_memory(arguments: argparse.Namespace) -> bool:
    """Score ever more images, print the peaks of memory, and tell whether they stay flat."""
    from iqray.benchmarks import memory

    job = Path(__file__).with_name("score.py")
    numbers = memory.check_numbers(arguments.num_images or memory.NUM_IMAGES)
    print(memory.format_run_header())
    runs: list[memory.MemoryRun] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for start, stop in pairwise([0, *numbers]):
            memory.add_images(folder / "images", start, stop)
            study = memory.write_memory_study(folder, stop)
            runs.append(memory.run_scoring_job(job, study, stop))
            print(memory.format_run(runs[-1]), flush=True)
    rows = memory.judge_growth(runs)
    print("\n".join(map(memory.format_growth, rows)))
    if arguments.json is not None:
        memory.write_memory_report(arguments.json, runs, rows)
    return all(row.holds for row in rows)


if __name__ == "__main__":
    run_job(main)
