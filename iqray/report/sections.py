"""The sections of the report below its first screen: their words, tables and figures. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iqray.progress import format_seconds
from iqray.report.caveats import list_demo_metrics
from iqray.report.control_tables import NO_CONTROLS, tabulate_controls
from iqray.report.cross_tables import tabulate_cross_distances
from iqray.report.definition_tables import tabulate_survival
from iqray.report.figure_list import ReportFigure
from iqray.report.inputs import ReportInputs
from iqray.report.interval_tables import (
    name_draws,
    tabulate_cell_intervals,
    tabulate_rank_intervals,
)
from iqray.report.intervention_tables import (
    INTERVENTIONS_TEXT,
    tabulate_changed_scores,
    tabulate_interventions,
)
from iqray.report.tables import (
    PageTable,
    tabulate_accuracies,
    tabulate_by,
    tabulate_cells,
    tabulate_images,
    tabulate_lost_cells,
    tabulate_mapping,
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


@dataclass(frozen=True)
class Section:
    """A part of the page below its first screen."""

    id: str
    title: str
    text: str
    tables: Sequence[PageTable] = ()
    figures: Sequence[ReportFigure] = ()


def build_sections(inputs: ReportInputs, figures: Sequence[ReportFigure]) -> Iterator[Section]:
    """Sections in the order of the page; those that a study has nothing for are left out.

    Args:
        inputs: finished tables and facts.
        figures: from `figure_list.build_figures`.
    """
    yield _build_ranks(inputs, figures)
    yield _build_distance(inputs, figures)
    yield _build_trust(inputs)
    yield _build_controls(inputs, figures)
    if not inputs.effects.empty:
        yield _build_interventions(inputs)
    yield _build_subsets(inputs, figures)
    yield _build_data(inputs, figures)
    yield _build_origin(inputs)


def _build_ranks(inputs: ReportInputs, figures: Sequence[ReportFigure]) -> Section:
    counts = inputs.rank_counts
    return Section(
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


def _build_distance(inputs: ReportInputs, figures: Sequence[ReportFigure]) -> Section:
    return Section(
        "distance",
        "Distance and accuracy",
        "Distance is the sum over all pairs of test images of the Euclidean distance between "
        "their embeddings, taken before the last linear layer. Accuracies are means over "
        "categories.",
        [
            tabulate_accuracies(inputs.cells),
            tabulate_cell_intervals(inputs.intervals, inputs.cells["seed"].nunique()),
            *_tabulate_crossed(inputs),
        ],
        _pick(figures, "mean_distances", "centroid_maps", "accuracies", "cross_distances_"),
    )


def _tabulate_crossed(inputs: ReportInputs) -> Iterator[PageTable]:
    if not inputs.cross_distances.empty:
        yield tabulate_cross_distances(
            inputs.cross_distances, list(inputs.cells["subset"].unique())
        )


def _build_trust(inputs: ReportInputs) -> Section:
    num_seeds = inputs.cells["seed"].nunique()
    return Section(
        "trust",
        "How far to trust it",
        "Clusters are pairs of dataset and metric: their architectures share the categories, so "
        "they are permuted and drawn together. Tests and intervals over clusters, Nemenyi's and "
        "the interaction included, take metrics of a dataset for independent, though they rank the "
        "same categories: the more the metrics agree, the more p-values are too small and "
        "intervals too narrow. The permutation over datasets permutes all metrics and "
        "architectures of a dataset together and takes only datasets for independent; of few "
        "datasets it can show little, as the smallest p-value that it can give says. "
        "Chance ranks every subset in the middle. The p-value of one subset's mean rank is "
        "adjusted for the number of subsets as if none of them differed; where one does, it pushes "
        "the others off the middle, so that their small p-values say nothing more. Holm's method "
        "allows for three measures, but not for any other choice of this study. Intervals "
        f"over drawn {name_draws(num_seeds, 'categories', 'images')} hold the metrics and "
        "architectures fixed; those of mean ranks of clusters draw "
        f"{name_draws(num_seeds, 'clusters', 'architectures')}. Noise pulls ranks to the middle, "
        "and drawn ranks once more, so that draws give an interval's width and the measured rank "
        "its place. All rows, "
        "those of each dataset and without each metric included, are in results/statistics.csv and "
        "results/diagnostics.csv.",
        [
            tabulate_tests(inputs.statistics),
            tabulate_rank_intervals(inputs.intervals, num_seeds),
            tabulate_mean_ranks(inputs.statistics),
            tabulate_critical_differences(inputs.statistics),
            tabulate_diagnostics(inputs.diagnostics),
        ],
    )


def _build_controls(inputs: ReportInputs, figures: Sequence[ReportFigure]) -> Section:
    has_controls = not inputs.controls.empty
    return Section(
        "controls",
        "Controls",
        "What the subsets stand beside, as the study asks: subsets of as many categories that no "
        "metric has chosen, random or matched in image counts or difficulty; the best and the "
        "worst half of a subset's own images; its networks before training. With few draws the "
        "place of a subset is rough, and z needs two or more: 95 % of further control subsets "
        "would lie within t(0.975, n - 1) * sqrt(1 + 1/n) standard deviations of the mean of n "
        "draws, 15.6 for two, 2.8 for six, 2.1 for 20. All are in results/controls.csv."
        if has_controls
        else NO_CONTROLS,
        [tabulate_controls(inputs.controls)] if has_controls else [],
        _pick(figures, "controls_"),
    )


def _build_interventions(inputs: ReportInputs) -> Section:
    return Section(
        "interventions",
        "Interventions",
        INTERVENTIONS_TEXT,
        [
            tabulate_changed_scores(inputs.changed_scores),
            tabulate_interventions(inputs.effects, inputs.changed_scores),
        ],
    )


def _build_subsets(inputs: ReportInputs, figures: Sequence[ReportFigure]) -> Section:
    return Section(
        "subsets",
        "Scores and subsets",
        "For every dataset and metric, categories are sorted by the average and by the range of "
        "their scores; the ends of the two lists are the four subsets. A category may be in two.",
        [tabulate_subsets(inputs.subsets)],
        _pick(figures, "score_distributions", "category_ranges", "overlaps"),
    )


def _build_data(inputs: ReportInputs, figures: Sequence[ReportFigure]) -> Section:
    cells = inputs.cells
    demo = bool(list_demo_metrics(inputs.weights))
    return Section(
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


def _build_origin(inputs: ReportInputs) -> Section:
    times = {stage: format_seconds(value) for stage, value in inputs.stage_s.items()}
    return Section(
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
