"""Write a report below an output root: its figures, its tables and, last, the page.

Reads finished artifacts through `report_sources`, and nothing of a study file or a cluster.
"""

from collections.abc import Mapping

import pyarrow as pa

from iqray.identity import hash_content
from iqray.inputs.sources import ImageSource
from iqray.report.figure_list import ReportFigure, build_figures
from iqray.report.page import compose_report, render_page
from iqray.report.tables import PageTable
from iqray.stages.report_sources import collect_inputs
from iqray.stages.results import REPORT_PATH, REPORT_RECORD_PATH
from iqray.storage import Storage
from iqray.tables import write_with_csv


def write_report(storage: Storage, sources: Mapping[str, ImageSource]) -> None:
    """Make everything below `report/` anew from finished artifacts.

    Args:
        storage: the output root, checked by `report_sources.check_sources`.
        sources: of images, by dataset; where these cannot be reached, figures go without.
    """
    if storage.exists(REPORT_RECORD_PATH):
        storage.delete(REPORT_RECORD_PATH)  # of the page that was there, which a study would keep
    inputs = collect_inputs(storage, sources)
    report = compose_report(inputs, list(build_figures(inputs)))
    for figure in report.figures:
        _write_figure(storage, figure)
    for table in report.tables:
        _write_table(storage, table)
    storage.write_bytes(REPORT_PATH, render_page(report).encode())


def _write_figure(storage: Storage, figure: ReportFigure) -> None:
    path = f"report/figures/{figure.name}"
    storage.write_bytes(f"{path}.png", figure.png)
    storage.write_bytes(f"{path}.svg", figure.svg)


def _write_table(storage: Storage, table: PageTable) -> None:
    path = f"report/tables/{table.name}.parquet"
    schema = pa.Schema.from_pandas(table.frame, preserve_index=False)
    write_with_csv(storage, path, table.frame, schema, hash_content(table.rows))
