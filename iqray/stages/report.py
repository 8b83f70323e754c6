"""Stage `report`: from finished tables to one page and its figures."""

from iqray.identity import hash_content
from iqray.progress import show_stage
from iqray.run import Run
from iqray.stages.manifest import DUPLICATES_PATH, check_duplicates_current
from iqray.stages.results import CELLS_PATH
from iqray.stages.statistics import (
    DIAGNOSTICS_PATH,
    STATISTICS_PATH,
    check_statistics_current,
)

# Raise when the same tables would give another page.
REPORT_VERSION = 3


def make_report(run: Run) -> None:
    """Write the page and its figures from finished tables."""
    run.require(CELLS_PATH, "results")
    check_duplicates_current(run)
    check_statistics_current(run)
    settings = run.study.model_dump(mode="json", exclude={"root"})
    paths = (CELLS_PATH, DUPLICATES_PATH, STATISTICS_PATH, DIAGNOSTICS_PATH)
    tables = [run.storage.read_key(path) for path in paths]
    key = hash_content([tables, settings, REPORT_VERSION])
    record_path = "report/record.json"
    with show_stage("report", 1, "page") as line:
        if run.storage.exists(record_path) and run.storage.read_json(record_path) == key:
            line.skip(1)
            return
        from iqray.stages.report_page import write_page  # matplotlib takes a second

        write_page(run)
        run.storage.write_json(record_path, key)
        line(1)
