"""How fast iqray scores beside pyiqa, at equal scores.

    uv run jobs/benchmark.py scoring
    uv run jobs/benchmark.py scoring --images photos --weights weights --json scoring.json
    uv run jobs/benchmark.py scoring --only niqe brisque decode_once

Each metric's scorer of iqray runs in turn with pyiqa's own network, which has the same weights and
is called on one image at a time; both start from decoded pixels. decode_once sets one decode of
each image against one per metric. A ratio is the median of pairs of wall-clock times measured back
to back in this process, after one run of each to warm up. A row holds when the scores agree and the
ratio reaches the target; exit code 1 says that one does not.

All of it takes 6 to 7 minutes on one core, of which clipiqa and dbcnn take two each.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
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
    parser.add_argument("suite", choices=["scoring"], help="which benchmarks")
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
        "--num-images", type=int, default=8, help="images in a run (default: %(default)s)"
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
    if arguments.num_images < 2:
        raise StudyError(f"num-images is {arguments.num_images}; an order needs at least 2")
    torch.set_num_threads(arguments.threads)
    if arguments.images is None:
        images = generate_images(arguments.num_images)
    else:
        images = read_images(arguments.images, arguments.num_images)
    print(f"{len(images)} images, threads: {arguments.threads}, repeats: {arguments.repeats}")
    print(format_header())
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as spare:
            benchmark = build_benchmark(name, images, arguments.weights, Path(spare))
        rows.append(measure(benchmark, arguments.repeats))
        print(format_row(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    run_job(main)
