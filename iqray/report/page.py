"""The report: one HTML page that says what was run, what came out and what to distrust.

Reads finished tables through `ReportInputs` and returns the page as text. Everything it shows is
inside the page: styles, figures as SVG, tables. It loads nothing from a network or a disk.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jinja2

from iqray.progress import format_seconds
from iqray.report.caveats import list_caveats, list_demo_metrics
from iqray.report.control_tables import NO_CONTROLS, list_control_caveats, tabulate_controls
from iqray.report.cross_tables import tabulate_cross_distances
from iqray.report.definition_tables import tabulate_survival
from iqray.report.figure_list import ReportFigure
from iqray.report.inputs import ReportInputs
from iqray.report.interval_tables import tabulate_cell_intervals, tabulate_rank_intervals
from iqray.report.intervention_tables import INTERVENTIONS_TEXT, tabulate_interventions
from iqray.report.statistical_caveats import list_statistical_caveats
from iqray.report.tables import (
    PageTable,
    tabulate_accuracies,
    tabulate_by,
    tabulate_cells,
    tabulate_images,
    tabulate_lost_cells,
    tabulate_mapping,
    tabulate_overall,
    tabulate_ranks,
    tabulate_scores,
    tabulate_subsets,
)
from iqray.report.trust_tables import (
    tabulate_critical_differences,
    tabulate_diagnostics,
    tabulate_mean_ranks,
    tabulate_tests,
)
from iqray.report.words import describe_evidence, list_facts, list_findings
from iqray.results.cells import DEMO_WEIGHTS


@dataclass(frozen=True)
class Section:
    """A part of the page below its first screen."""

    id: str
    title: str
    text: str
    tables: Sequence[PageTable] = ()
    figures: Sequence[ReportFigure] = ()


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
    return Report(inputs, overall, list(_build_sections(inputs, figures)))


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
        findings=list_findings(inputs.rank_counts, inputs.statistics, inputs.intervals),
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


def _build_sections(inputs: ReportInputs, figures: Sequence[ReportFigure]) -> Iterator[Section]:
    counts, cells = inputs.rank_counts, inputs.cells
    yield Section(
        "ranks",
        "Ranks",
        "Within each combination of dataset, architecture and metric the subsets are ranked; "
        "1 is the highest accuracy or the largest distance. Seeds are averaged first. A leader has "
        "the most first places; by other definitions of distance and accuracy, or with the metrics "
        "in the other orientation (raw: high is a high score; quality: high is a good image), it "
        "may be another. All counts are in results/definition_counts.csv.",
        [
            tabulate_survival(counts, inputs.definition_counts),
            tabulate_by(counts, "dataset"),
            tabulate_by(counts, "metric"),
            tabulate_ranks(counts),
        ],
        _pick(figures, "rank_distributions"),
    )
    yield Section(
        "distance",
        "Distance and accuracy",
        "Distance is the sum over all pairs of test images of the Euclidean distance between "
        "their embeddings, taken before the last linear layer. Accuracies are means over "
        "categories.",
        [
            tabulate_accuracies(cells),
            tabulate_cell_intervals(inputs.intervals),
            *_tabulate_crossed(inputs),
        ],
        _pick(figures, "mean_distances", "centroid_maps", "accuracies", "cross_distances_"),
    )
    yield Section(
        "trust",
        "How far to trust it",
        "Clusters are pairs of dataset and metric: their architectures share the categories, so "
        "they are permuted and drawn together. Chance ranks every subset in the middle. Holm's "
        "method allows for three measures, but not for any other choice of this study. Intervals "
        "over drawn categories, images and seeds hold the metrics and architectures fixed; those "
        "of mean ranks of clusters draw these instead of images. All rows, "
        "those of each dataset and without each metric included, are in results/statistics.csv and "
        "results/diagnostics.csv.",
        [
            tabulate_tests(inputs.statistics),
            tabulate_rank_intervals(inputs.intervals),
            tabulate_mean_ranks(inputs.statistics),
            tabulate_critical_differences(inputs.statistics),
            tabulate_diagnostics(inputs.diagnostics),
        ],
    )
    has_controls = not inputs.controls.empty
    yield Section(
        "controls",
        "Controls",
        "What the subsets stand beside, as the study asks: subsets of as many categories that no "
        "metric has chosen, random or matched in image counts or difficulty; the best and the "
        "worst half of a subset's own images; its networks before training. With few draws the "
        "place of a subset is rough, and z needs two or more. All are in results/controls.csv."
        if has_controls
        else NO_CONTROLS,
        [tabulate_controls(inputs.controls)] if has_controls else [],
        _pick(figures, "controls_"),
    )
    if not inputs.effects.empty:
        yield Section(
            "interventions",
            "Interventions",
            INTERVENTIONS_TEXT,
            [tabulate_interventions(inputs.effects, inputs.changed_scores)],
        )
    yield Section(
        "subsets",
        "Scores and subsets",
        "For every dataset and metric, categories are sorted by the average and by the range of "
        "their scores; the ends of the two lists are the four subsets. A category may be in two.",
        [tabulate_subsets(inputs.subsets)],
        _pick(figures, "score_distributions", "category_ranges", "overlaps"),
    )
    yield from _build_records(inputs, figures)


def _tabulate_crossed(inputs: ReportInputs) -> Iterator[PageTable]:
    if not inputs.cross_distances.empty:
        yield tabulate_cross_distances(
            inputs.cross_distances, list(inputs.cells["subset"].unique())
        )


def _build_records(inputs: ReportInputs, figures: Sequence[ReportFigure]) -> Iterator[Section]:
    """What a reader looks up rather than reads."""
    cells = inputs.cells
    demo = bool(list_demo_metrics(inputs.weights))
    yield Section(
        "data",
        "Images, trainings and cells",
        "Everything that went in and every cell that came out, failures included.",
        [
            tabulate_images(inputs.image_counts),
            tabulate_scores(inputs.score_counts, demo),
            *([tabulate_lost_cells(cells)] if (cells["status"] != "ok").any() else []),
            tabulate_cells(cells),
        ],
        _pick(figures, "learning_curves"),
    )
    times = {stage: format_seconds(value) for stage, value in inputs.stage_s.items()}
    yield Section(
        "origin",
        "Origin of the numbers",
        "What changes the numbers, and how long each stage took by the clock.",
        [
            tabulate_mapping("weights", "Metric weights", inputs.weights, "metric", "weights"),
            tabulate_mapping("times", "Time by stage", times, "stage", "time"),
            tabulate_mapping("versions", "Versions", inputs.versions, "software", "version"),
        ],
    )


def _pick(figures: Sequence[ReportFigure], *prefixes: str) -> list[ReportFigure]:
    return [figure for prefix in prefixes for figure in figures if figure.name.startswith(prefix)]
