"""The report: one HTML page that says what was run, what came out and what to distrust.

Reads finished tables through `ReportInputs` and returns the page as text. Everything it shows is
inside the page: styles, figures as SVG, tables. It loads nothing from a network or a disk.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from iqray.caveats import list_caveats, list_demo_metrics
from iqray.figures import MdsExample, render_svg
from iqray.progress import format_seconds
from iqray.report_figures import ReportFigure, build_figures
from iqray.report_tables import (
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
from iqray.results import DEMO_WEIGHTS, describe_finding
from iqray.trust_tables import (
    tabulate_critical_differences,
    tabulate_diagnostics,
    tabulate_mean_ranks,
    tabulate_tests,
)


@dataclass(frozen=True)
class ReportInputs:
    """Finished tables and facts that a report is made from.

    Attributes:
        study: its name.
        cells: a table of `schemas.CELLS`.
        rank_counts: a table of `schemas.RANK_COUNTS`.
        category_stats: a table of `schemas.CATEGORY_STATS`.
        subsets: a table of `schemas.SUBSETS`.
        statistics: a table of `schemas.STATISTICS`.
        diagnostics: a table of `schemas.DIAGNOSTICS`.
        image_counts: as `results.count_images` returns it.
        score_counts: as `results.count_scores` returns it.
        weights: by metric: where its weights come from.
        recipe: its name.
        is_preview: the recipe's own word that its results are no findings.
        notes: sentences about how this study was run that a reader must know.
        stage_s: seconds by stage.
        versions: of the software that changes numbers, by name.
        num_leaked: test images that are also training images of their dataset.
        mds_examples: trials whose category centroids are shown.
    """

    study: str
    cells: pd.DataFrame
    rank_counts: pd.DataFrame
    category_stats: pd.DataFrame
    subsets: pd.DataFrame
    statistics: pd.DataFrame
    diagnostics: pd.DataFrame
    image_counts: pd.DataFrame
    score_counts: pd.DataFrame
    weights: Mapping[str, str]
    recipe: str
    is_preview: bool
    notes: Sequence[str]
    stage_s: Mapping[str, float]
    versions: Mapping[str, str]
    num_leaked: int = 0
    mds_examples: Sequence[MdsExample] = ()


@dataclass(frozen=True)
class _Section:
    id: str
    title: str
    text: str
    tables: Sequence[PageTable]
    figures: Sequence[ReportFigure] = ()


def build_report(inputs: ReportInputs, figures: Sequence[ReportFigure] | None = None) -> str:
    """Write the report as one self-contained HTML page.

    Args:
        inputs: finished tables and facts.
        figures: from `draw_figures`, where they were made already.

    Returns:
        HTML text, the same for the same inputs. All names from the study are escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("iqray", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _encode_figure
    shown = draw_figures(inputs) if figures is None else figures
    return environment.get_template("report.html.j2").render(
        study=inputs.study,
        facts=list_facts(inputs),
        finding=describe_finding(inputs.rank_counts),
        evidence=describe_evidence(inputs.cells),
        overall=tabulate_overall(inputs.rank_counts),
        caveats=list_caveats(
            inputs.cells,
            inputs.rank_counts,
            inputs.score_counts,
            inputs.weights,
            inputs.recipe,
            is_preview=inputs.is_preview,
            num_leaked=inputs.num_leaked,
        ),
        notes=inputs.notes,
        demo_weights=DEMO_WEIGHTS,
        sections=list(_build_sections(inputs, shown)),
    )


def draw_figures(inputs: ReportInputs) -> list[ReportFigure]:
    """All figures of the page."""
    return list(
        build_figures(
            inputs.rank_counts,
            inputs.cells,
            inputs.category_stats,
            inputs.subsets,
            inputs.mds_examples,
        )
    )


def _encode_figure(figure: Figure) -> str:
    encoded = base64.b64encode(render_svg(figure)).decode("ascii")
    return f"data:image/svg+xml;base64,{encoded}"


def list_facts(inputs: ReportInputs) -> dict[str, str]:
    """What was run, as the short lines of the first screen."""
    cells = inputs.cells
    num_cells = len(cells[["dataset", "architecture", "metric", "subset"]].drop_duplicates())
    seeds = sorted(cells["seed"].unique())
    return {
        "Data": "; ".join(_describe_data(inputs.image_counts)),
        "Metrics": ", ".join(inputs.weights),
        "Weights": _describe_weights(inputs.weights),
        "Architectures": ", ".join(cells["architecture"].unique()),
        "Recipe": inputs.recipe + (" (preview)" if inputs.is_preview else ""),
        "Seeds": ", ".join(map(str, seeds)),
        "Grid": f"{num_cells} cells, {cells['trial_id'].nunique()} distinct trials",
        "Time": format_seconds(sum(inputs.stage_s.values())),
    }


def _describe_weights(weights: Mapping[str, str]) -> str:
    provenances = sorted(set(weights.values()))
    if len(provenances) == 1:
        return f"{provenances[0]} for all metrics"
    return "; ".join(
        f"{provenance} for {', '.join(name for name in weights if weights[name] == provenance)}"
        for provenance in provenances
    )


def _describe_data(image_counts: pd.DataFrame) -> Iterator[str]:
    for dataset, splits in image_counts.groupby("dataset", sort=False):
        images = ", ".join(
            f"{num_images:,} {split}"
            for split, num_images in zip(splits["split"], splits["num_images"], strict=True)
        )
        yield f"{dataset}: {splits['num_categories'].max()} categories, {images} images"


def describe_evidence(cells: pd.DataFrame) -> str:
    """Say what the counts would be by chance, and how far combinations are independent."""
    num_subsets = cells["subset"].nunique()
    num_combinations = len(cells[["dataset", "architecture", "metric"]].drop_duplicates())
    num_choices = len(cells[["dataset", "metric"]].drop_duplicates())
    return (
        f"If order were random, a subset would take about one in {num_subsets} first places. "
        f"Architectures share the choice of categories, so the {num_combinations} combinations "
        f"stand for {num_choices} choices (dataset x metric), not for as many independent "
        "observations. The tests below take both into account."
    )


def _build_sections(inputs: ReportInputs, figures: Sequence[ReportFigure]) -> Iterator[_Section]:
    counts, cells = inputs.rank_counts, inputs.cells
    demo = bool(list_demo_metrics(inputs.weights))
    yield _Section(
        "ranks",
        "Ranks",
        "Within each combination of dataset, architecture and metric the subsets are ranked; "
        "1 is the highest accuracy or the largest distance. Seeds are averaged first.",
        [tabulate_by(counts, "dataset"), tabulate_by(counts, "metric"), tabulate_ranks(counts)],
        _pick(figures, "rank_distributions"),
    )
    yield _Section(
        "distance",
        "Distance and accuracy",
        "Distance is the sum over all pairs of test images of the Euclidean distance between "
        "their embeddings, taken before the last linear layer. Accuracies are means over "
        "categories.",
        [tabulate_accuracies(cells)],
        _pick(figures, "mean_distances", "centroid_map"),
    )
    yield _Section(
        "subsets",
        "Subsets",
        "For every dataset and metric, categories are sorted by the average and by the range of "
        "their scores; the ends of the two lists are the four subsets. A category may be in two.",
        [tabulate_subsets(inputs.subsets)],
        _pick(figures, "category_ranges"),
    )
    yield _Section(
        "trust",
        "How far to trust it",
        "Clusters are pairs of dataset and metric: their architectures share the categories, so "
        "they are permuted and drawn together. Chance ranks every subset in the middle. Holm's "
        "method allows for three measures, but not for any other choice of this study. All rows, "
        "those of each dataset and without each metric included, are in results/statistics.csv and "
        "results/diagnostics.csv.",
        [
            tabulate_tests(inputs.statistics),
            tabulate_mean_ranks(inputs.statistics),
            tabulate_critical_differences(inputs.statistics),
            tabulate_diagnostics(inputs.diagnostics),
        ],
    )
    yield _Section(
        "data",
        "Images, scores and cells",
        "Everything that went in and every cell that came out, failures included.",
        [
            tabulate_images(inputs.image_counts),
            tabulate_scores(inputs.score_counts, demo),
            *([tabulate_lost_cells(cells)] if (cells["status"] != "ok").any() else []),
            tabulate_cells(cells),
        ],
    )
    stage_times = {stage: format_seconds(value) for stage, value in inputs.stage_s.items()}
    yield _Section(
        "origin",
        "Origin of the numbers",
        "What changes the numbers, and what they cost on this machine.",
        [
            tabulate_mapping("Metric weights", inputs.weights, "metric", "weights"),
            tabulate_mapping("Time by stage", stage_times, "stage", "time"),
            tabulate_mapping("Versions", inputs.versions, "software", "version"),
        ],
    )


def _pick(figures: Sequence[ReportFigure], *prefixes: str) -> list[ReportFigure]:
    return [figure for figure in figures if figure.name.startswith(prefixes)]
