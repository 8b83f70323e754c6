"""Stage `report`: from finished tables to one page, its figures and tables."""

from iqray.identity import hash_content
from iqray.progress import show_stage
from iqray.run import Run
from iqray.stages.intervention_results import list_keys
from iqray.stages.manifest import DUPLICATES_PATH, check_duplicates_current
from iqray.stages.report_sources import check_sources
from iqray.stages.results import CELLS_PATH, CROSS_DISTANCES_PATH, REPORT_RECORD_PATH
from iqray.stages.statistics import DIAGNOSTICS_PATH, STATISTICS_PATH
from iqray.storage import Storage
from iqray.study_record import STUDY_RECORD_PATH

# Raise when the same tables would give another page.
REPORT_VERSION = 7


def make_report(run: Run) -> None:
    """Write the page, its figures and its tables, unless they are of these very tables."""
    run.require(CELLS_PATH, "results")
    check_sources(run.storage)
    check_duplicates_current(run)
    key = make_report_key(run.storage)
    with show_stage("report", 1, "page") as line:
        if (
            run.storage.exists(REPORT_RECORD_PATH)
            and run.storage.read_json(REPORT_RECORD_PATH) == key
        ):
            line.skip(1)
            return
        from iqray.stages.report_page import write_report  # matplotlib takes a second

        write_report(
            run.storage, {dataset.name: run.open_images(dataset) for dataset in run.study.datasets}
        )
        run.storage.write_json(REPORT_RECORD_PATH, key)
        line(1)


def make_report_key(storage: Storage) -> str:
    """Key of the report that the finished tables below a root give."""
    paths = (
        *(CELLS_PATH, DUPLICATES_PATH, STATISTICS_PATH, DIAGNOSTICS_PATH),
        CROSS_DISTANCES_PATH,
    )
    tables = [storage.read_key(path) for path in paths]
    changed = list_keys(storage)
    return hash_content([tables, changed, storage.read_json(STUDY_RECORD_PATH), REPORT_VERSION])
