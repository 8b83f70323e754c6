"""What the jobs share on the command line: arguments, the log file, and how mistakes are told."""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from iqray.errors import StudyError
from iqray.storage import Storage, open_root
from iqray.study import Study
from iqray.study_file import read_study

# Ray sets it for the driver of a submitted job.
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"

EXIT_INCOMPLETE = 1  # cells without a result are left
EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130


def build_parser(description: str, default_study: Path) -> argparse.ArgumentParser:
    """Parser with the arguments that every job has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--study",
        type=Path,
        default=default_study,
        metavar="FILE",
        help=f"study file (default: jobs/studies/{default_study.name})",
    )
    add_common_arguments(parser)
    return parser


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to write, and which Ray to join."""
    parser.add_argument(
        "--root", metavar="FOLDER_OR_URI", help="output root instead of the study's"
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="Ray cluster to join, such as auto (default: RAY_ADDRESS if set, else start Ray here)",
    )


def load_study(arguments: argparse.Namespace) -> tuple[Study, Storage]:
    """The study that the arguments name, and its output root."""
    study = read_study(arguments.study, root=arguments.root)
    return study, open_output_root(study.root)


def open_output_root(root: str) -> Storage:
    """Storage of an output root, a folder or a URI; there need not be anything in it.

    A relative root lies below the working folder; in a submitted job, whose working folder is a
    copy that Ray deletes, below the home folder of the machine that runs the driver.

    Raises:
        StudyError: it cannot be reached.
    """
    return open_root(_resolve_root(root), "output root", "results")


def _resolve_root(root: str) -> str:
    if "://" in root:
        return root
    base = Path.home() if _JOB_VARIABLE in os.environ else Path.cwd()
    return str(base / Path(root).expanduser())


def open_log(storage: Storage, name: str) -> Path:
    """Send all log lines to a file: `<root>/logs/<name>.log`, or a temporary one for a URI root.

    Ray's core writes to file descriptor 2 past Python; that goes to the file as well, and
    `sys.stderr` keeps the terminal.
    """
    folder = storage.get_local_path("logs") if storage.is_local else Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.log"
    file = path.open("a", encoding="utf-8")
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(file.fileno(), 2)
    return path


def run_job(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run a job's main function; a user's mistake is one message and exit code 2."""
    try:
        main(None)
    except StudyError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_MISTAKE)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(EXIT_INTERRUPTED)
