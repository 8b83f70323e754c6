"""Compare networks with brains: every RDM of a finished study beside RDMs of your own.

    uv run jobs/compare_rdms.py --root outputs/my_study --rdm subject1.csv subject2.csv
    uv run jobs/compare_rdms.py --root s3://bucket/my_study --rdm judgements.npy --names names.txt

The study must have `rdms.levels`. A file is a CSV table with names in its first row and column, a
.npy array with --names, or HDF5 as rsatoolbox saves it; files are subjects. Conditions are named as
iqray does: categories by name, images by their path. Writes correspondence/<name>.parquet and .csv
below the root: similarity with a 95 % bootstrap interval and, for several subjects, the noise
ceiling. Nothing is trained.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from iqray import schemas
from iqray.cli import open_output_root, run_job
from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.rdms.comparison import COMPARISONS
from iqray.rdms.correspondence import (
    CORRESPONDENCE_VERSION,
    compare_networks,
    summarise_correspondence,
)
from iqray.rdms.references import read_references
from iqray.stages.rdms import RDMS_PATH
from iqray.tables import write_with_csv


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, write the table, and print its means."""
    arguments = build_parser().parse_args(argv)
    if arguments.draws < 1:
        raise StudyError(f"--draws is {arguments.draws}; a bootstrap needs at least 1")
    storage = open_output_root(arguments.root)
    if not storage.exists(RDMS_PATH):
        raise StudyError(
            f"'{storage.describe(RDMS_PATH)}' is missing; give the study rdms.levels and run "
            "jobs/full_grid.py --only rdms"
        )
    references = read_references(arguments.rdm, arguments.names, arguments.descriptor)
    rdms = storage.read_table(RDMS_PATH).to_pandas()
    found = compare_networks(storage, rdms, references, arguments.comparisons, arguments.draws)
    path = f"correspondence/{arguments.name or arguments.rdm[0].stem}.parquet"
    key = hash_content([CORRESPONDENCE_VERSION, storage.read_key(RDMS_PATH)])
    write_with_csv(storage, path, found.table, schemas.CORRESPONDENCE, key)
    print(summarise_correspondence(found, references))
    print(f"\ncorrespondence: {storage.describe(path)}")


def build_parser() -> argparse.ArgumentParser:
    """Parser of this job's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", required=True, metavar="FOLDER_OR_URI", help="output root of the study"
    )
    parser.add_argument(
        "--rdm", required=True, nargs="+", type=Path, metavar="FILE", help="RDMs to compare with"
    )
    parser.add_argument(
        "--names", type=Path, metavar="FILE", help="names of the conditions of .npy files"
    )
    parser.add_argument(
        "--descriptor", metavar="NAME", help="of HDF5 files: what names their conditions"
    )
    parser.add_argument(
        "--comparisons",
        nargs="+",
        default=list(COMPARISONS),
        choices=COMPARISONS,
        help="default: all",
    )
    parser.add_argument(
        "--draws", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="of the table (default: that of the first file)"
    )
    return parser


if __name__ == "__main__":
    run_job(main)
