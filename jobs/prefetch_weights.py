"""Fetches the metrics' weights once, so that a study needs no network.

    python jobs/prefetch_weights.py --directory weights
    python jobs/prefetch_weights.py --study my_study.yaml
    python jobs/prefetch_weights.py --metrics brisque niqe topiq_nr --directory s3://bucket/weights
    python jobs/prefetch_weights.py --directory /shared/weights --source copied_folder

Fills a folder or URI with the published weight files, verifies their sha256 sums where any is
published, turns what would need unpickling into safetensors, and writes weights.json last. Kill it
at any point; the same command fetches only what is missing. Where there is no internet, run it on a
machine that has, copy the folder, and name that as the study's weights.directory, or as --source to
fill another directory from it.

The paper's six are six files of about 0.6 GB: minutes, as fast as the hubs send them. A line per
file says its size and what its sum was held against.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from iqray.cli import run_job
from iqray.errors import StudyError
from iqray.filesystems import describe_uri
from iqray.metrics.prefetch import PrefetchedFile, prefetch_weights
from iqray.study import PAPER_METRICS
from iqray.study_file import read_study


def main(argv: Sequence[str] | None = None) -> None:
    """Fill the weights directory and print a line per file."""
    arguments = build_parser().parse_args(argv)
    directory, metrics = choose_weights(arguments)
    prefetch_weights(directory, metrics, arguments.source, print_file)
    print(f"weights of {', '.join(metrics)} are in {describe_uri(directory)}")


def build_parser() -> argparse.ArgumentParser:
    """Parser of this job's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--study", type=Path, metavar="FILE", help="take metrics and directory from a study file"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="pyiqa's names of no-reference metrics (default: the study's, else the paper's six)",
    )
    parser.add_argument(
        "--directory",
        metavar="FOLDER_OR_URI",
        help="what to fill, such as a folder or s3://bucket/weights (default: the study's "
        "weights.directory)",
    )
    parser.add_argument(
        "--source",
        metavar="URL_OR_FOLDER",
        help="base URL of a mirror that has the files under their names, or a folder of files, "
        "at any depth, such as ~/.cache (default: where they are published)",
    )
    return parser


def choose_weights(arguments: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """Directory to fill and metrics to fill it for.

    Raises:
        StudyError: neither the arguments nor the study name a directory.
    """
    study = read_study(arguments.study) if arguments.study is not None else None
    metrics = tuple(arguments.metrics or (study.metrics if study else PAPER_METRICS))
    directory = arguments.directory or (study.weights.directory if study else None)
    if directory is None:
        raise StudyError(
            "there is no weights directory to fill; name one with --directory, or with --study a "
            "study that has weights.directory"
        )
    return directory, metrics


def print_file(file: PrefetchedFile) -> None:
    """Say what was done about a file."""
    if not file.name:
        print(f"{file.metric:<10} {file.check}")
        return
    found = ", was there" if file.was_there else ""
    size_mb = file.num_bytes / 1e6
    print(f"{file.metric:<10} {file.name}  {size_mb:,.2f} MB  {file.check}{found}", flush=True)


if __name__ == "__main__":
    run_job(main)
