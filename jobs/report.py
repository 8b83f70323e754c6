"""Make a study's report from its finished tables alone: no study file, no images, no Ray.

    uv run jobs/report.py --root outputs/demo
    uv run jobs/report.py --root s3://bucket/iqray-paper

Writes <root>/report/: index.html (one page with everything in it), figures/ as PNG and SVG, tables/
as CSV and Parquet. Pictures of images are shown where the study's image roots can be reached from
here; everything else needs only the output root. Takes seconds: 192 cells x 3 seeds under a minute.
"""

import argparse
from collections.abc import Sequence

from iqray.cli import open_output_root, run_job
from iqray.stages.report_page import write_report
from iqray.stages.report_sources import check_sources, open_recorded_images
from iqray.stages.results import REPORT_PATH


def main(argv: Sequence[str] | None = None) -> None:
    """Make the whole report anew and say where it is."""
    storage = open_output_root(build_parser().parse_args(argv).root)
    check_sources(storage)
    write_report(storage, open_recorded_images(storage))
    print(f"report: {storage.describe(REPORT_PATH)}")


def build_parser() -> argparse.ArgumentParser:
    """Parser of this job's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root",
        required=True,
        metavar="FOLDER_OR_URI",
        help="output root of a study whose stages up to statistics have run",
    )
    return parser


if __name__ == "__main__":
    run_job(main)
