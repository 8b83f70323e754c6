"""The report: one HTML page that says what was run, what came out and what to distrust.

Reads finished tables through `ReportInputs` and returns the page as text. Everything it shows is
inside the page: styles, figures as SVG, tables. It loads nothing from a network or a disk.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from iqray.report.caveats import list_caveats
from iqray.report.control_tables import list_control_caveats
from iqray.report.figure_list import ReportFigure
from iqray.report.inputs import ReportInputs
from iqray.report.sections import Section, build_sections
from iqray.report.statistical_caveats import list_statistical_caveats
from iqray.report.tables import (
    PageTable,
    tabulate_overall,
)
from iqray.report.words import describe_evidence, list_facts, list_findings
from iqray.results.cells import DEMO_WEIGHTS


@dataclass(frozen=True)
class Report:
    """A report before it becomes text: its sections, and the table of its first screen."""

    inputs: ReportInputs
    overall: PageTable
    sections: Sequence[Section]

    @property
    def tables(self) -> list[PageTable]:
        """All tables, in the order of the page."""
        return [self.overall, *(table for section in self.sections for table in section.tables)]

    @property
    def figures(self) -> list[ReportFigure]:
        """All figures, in the order of the page."""
        return [figure for section in self.sections for figure in section.figures]


def compose_report(inputs: ReportInputs, figures: Sequence[ReportFigure]) -> Report:
    """Put tables and figures into the sections of a report.

    Args:
        inputs: finished tables and facts.
        figures: from `report_figures.build_figures`.
    """
    overall = tabulate_overall(inputs.rank_counts)
    return Report(inputs, overall, list(build_sections(inputs, figures)))


def render_page(report: Report) -> str:
    """Write a report as one self-contained HTML page.

    Returns:
        HTML text, the same for the same report. All names from the study are escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("iqray.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _encode_svg
    inputs = report.inputs
    return environment.get_template("report.html.j2").render(
        study=inputs.study,
        facts=list_facts(inputs),
        findings=list_findings(
            inputs.rank_counts,
            inputs.statistics,
            inputs.intervals,
            inputs.cells["seed"].nunique(),
        ),
        evidence=describe_evidence(inputs.cells),
        overall=report.overall,
        caveats=[
            *list_caveats(
                inputs.cells,
                inputs.rank_counts,
                inputs.score_counts,
                inputs.weights,
                inputs.recipe,
                is_preview=inputs.is_preview,
                num_leaked=inputs.num_leaked,
            ),
            *list_statistical_caveats(inputs.statistics, inputs.diagnostics),
            *list_control_caveats(inputs.controls, inputs.rank_counts, inputs.control_cells),
        ],
        notes=inputs.notes,
        demo_weights=DEMO_WEIGHTS,
        sections=report.sections,
    )


def _encode_svg(svg: bytes) -> str:
    encoded = base64.b64encode(svg).decode("ascii")
    return f"data:image/svg+xml;base64,{encoded}"
