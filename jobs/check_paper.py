"""Compare a finished study with the paper's headline numbers. Needs its tables only.

    uv run jobs/check_paper.py --root outputs/paper
    uv run jobs/check_paper.py --root s3://bucket/study --imagenet in1k --ecoset ecoset565

Prints a verdict for each headline, with the 95 % interval of your share, and which of them survive
which definition of distance, accuracy and orientation; leaves both in
<root>/results/paper_check.parquet and .csv. Takes seconds.
"""

import argparse
from collections.abc import Sequence

import pandas as pd

from iqray import schemas
from iqray.cli import open_output_root, run_job
from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.results.paper_check import (
    CONSISTENT,
    DIRECTION,
    EXACT,
    NOT_RUN,
    PAPER_DATASETS,
    PAPER_DEFINITIONS,
    check_headlines,
)
from iqray.tables import write_with_csv

RANKS_PATH = "results/ranks.parquet"
PAPER_CHECK_PATH = "results/paper_check.parquet"

# As the survival table shows verdicts; one letter leaves room for every definition.
_SIGNS = {EXACT: "E", CONSISTENT: "C", DIRECTION: "D", NOT_RUN: "-"}


def main(argv: Sequence[str] | None = None) -> None:
    """Check the headlines, write the table and print what it says."""
    arguments = build_parser().parse_args(argv)
    storage = open_output_root(arguments.root)
    if not storage.exists(RANKS_PATH):
        raise StudyError(
            f"'{storage.describe(RANKS_PATH)}' is missing; give the output root of a study whose "
            "stage results has run (jobs/full_grid.py)"
        )
    names = {name: getattr(arguments, name) for name in PAPER_DATASETS}
    check = check_headlines(storage.read_table(RANKS_PATH).to_pandas(), names)
    key = hash_content([storage.read_key(RANKS_PATH), names])
    write_with_csv(storage, PAPER_CHECK_PATH, check, schemas.PAPER_CHECK, key)
    print(describe_check(check))
    print(f"\ntable: {storage.describe(PAPER_CHECK_PATH)} and .csv")


def build_parser() -> argparse.ArgumentParser:
    """Parser of this job's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", required=True, metavar="FOLDER_OR_URI", help="output root of a finished study"
    )
    for name in PAPER_DATASETS:
        parser.add_argument(
            f"--{name}", default=name, metavar="NAME", help=f"the study's name for {name}"
        )
    return parser


def describe_check(check: pd.DataFrame) -> str:
    """The headlines by the paper's definitions, then the survival table."""
    lines = []
    is_own = check["definition"].isin(PAPER_DEFINITIONS) & (check["orientation"] == "quality")
    for row in check[is_own].to_dict("records"):
        paper = "?" if pd.isna(row["paper_count"]) else f"{row['paper_count']:.0f}"
        ours = row["reason"] or (
            f"{row['count']:.0f} of {row['n']:.0f} ({row['low']:.0%} to {row['high']:.0%})"
        )
        lines.append(
            f"{row['headline']:<4} {row['dataset']:<9} {row['measure']:<9} {row['subset']:<11}"
            f"rank {row['rank']}: paper {paper:>2} of {row['paper_n']}, ours {ours}: "
            f"{row['verdict']}"
        )
    weights = sorted(set(check["weights"]) - {""})
    if weights:
        lines.append(f"weights: {'; '.join(weights)}")
    lines.append("Intervals and chance take combinations for independent, which they are not.")
    lines.append("\nWhich headline survives which definition")
    lines.append("E exact, C consistent, D direction, . not reproduced, - not run\n")
    for names, own in check.groupby(["orientation", "definition"], sort=False):
        orientation, definition = map(str, names)
        pairs = zip(own["headline"], own["verdict"], strict=True)
        signs = "  ".join(f"{headline} {_SIGNS.get(verdict, '.')}" for headline, verdict in pairs)
        lines.append(f"{orientation:<8} {definition:<24} {signs}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_job(main)
