"""The report's tables of statistics: how far ranks and the choice of categories can be trusted.

Reads `schemas.STATISTICS` and `schemas.DIAGNOSTICS`; every function returns one `PageTable`. Pure.
"""

from collections.abc import Sequence

import pandas as pd

from iqray.report.tables import ABSENT, PageTable, format_value, has_demo
from iqray.results.cells import MEASURE_LABELS
from iqray.results.ranks import MEASURES
from iqray.statistics.diagnostics import SPLIT_HALF, SPLIT_HALF_UNCORRECTED
from iqray.statistics.statistics import ALL_SUBSETS, CLUSTERS, CRITICAL_DIFFERENCE

_TEST_LABELS = {
    "friedman": "Friedman",
    "permutation": "permutation of subsets",
    "interaction": "do datasets differ?",
}

_DIAGNOSTIC_LABELS = {
    "jaccard_subsets": "overlap of two subsets (Jaccard)",
    "jaccard_metrics": "overlap of a subset by two metrics (Jaccard)",
    "jaccard_datasets": "overlap of a subset in two datasets (Jaccard)",
    "spearman_images": "order of images by two metrics (Spearman)",
    "spearman_categories": "order of categories by two metrics (Spearman)",
    SPLIT_HALF: "order of categories by averages of half of the images, corrected to all",
    SPLIT_HALF_UNCORRECTED: "order of categories by ranges of half of the images, uncorrected",
}


def tabulate_tests(statistics: pd.DataFrame) -> PageTable:
    """Tests of all subsets at once, over combinations, clusters and datasets."""
    chosen = statistics[
        (statistics["scope"] == "all") & statistics["test"].isin(list(_TEST_LABELS))
    ]
    chosen = chosen[chosen["comparison"].str.startswith(ALL_SUBSETS)]
    rows = [
        (
            MEASURE_LABELS[row["measure"]],
            _TEST_LABELS[row["test"]],
            f"{row['n']} {'metrics' if row['test'] == 'interaction' else row['unit']}",
            _format_p(row["p_value"]),
            _format_p(row["p_holm"]),
            _format_p(row["smallest_p"]),
            format_value(row["effect"]),
            row["reason"] or (row["leader"] if pd.notna(row["leader"]) else ABSENT),
        )
        for row in _sort_measures(chosen).to_dict("records")
    ]
    header = (
        "measure",
        "test",
        "over",
        "p",
        "p (Holm)",
        "smallest possible p",
        "Kendall's W",
        "best mean rank, or why not",
    )
    return _make_table(
        "tests", "Do the subsets differ?", header, rows, range(3, 7), has_demo(chosen)
    )


def tabulate_mean_ranks(statistics: pd.DataFrame) -> PageTable:
    """Mean rank of every subset with its bootstrap interval, and the p-value of its permutation.

    That p-value is adjusted for the number of subsets where none differs (weak control).
    """
    own = statistics[(statistics["scope"] == "all") & (statistics["effect"].notna())]
    chosen = own[own["test"] == "bootstrap"]
    is_permuted = (own["test"] == "permutation") & (own["unit"] == CLUSTERS)
    permuted = own[is_permuted].set_index(["measure", "comparison"])["p_value"]
    rows = [
        (
            MEASURE_LABELS[row["measure"]],
            row["comparison"],
            f"{row['effect']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            _format_p(permuted[row["measure"], row["comparison"]]),
        )
        for row in _sort_measures(chosen).to_dict("records")
    ]
    p_label = "p (not the middle), if no other differs"
    header = ("measure", "subset", "mean rank", "95 % interval", p_label)
    return _make_table(
        "mean_ranks", "Mean ranks of drawn clusters", header, rows, range(2, 5), has_demo(chosen)
    )


def tabulate_critical_differences(statistics: pd.DataFrame) -> PageTable:
    """Nemenyi's critical difference, and the pairs of subsets that differ by more."""
    chosen = statistics[(statistics["scope"] == "all") & (statistics["test"] == "nemenyi")]
    rows: list[tuple[str, ...]] = []
    for (measure, unit), part in _sort_measures(chosen).groupby(["measure", "unit"], sort=False):
        limit = part[part["comparison"] == CRITICAL_DIFFERENCE].iloc[0]
        pairs = part.loc[part["effect"].abs().gt(limit["effect"]), "comparison"]
        rows.append(
            (
                MEASURE_LABELS[str(measure)],
                f"{limit['n']} {unit}",
                format_value(limit["effect"]),
                limit["reason"] or ", ".join(pairs) or "none",
            )
        )
    header = ("measure", "over", "critical difference", "pairs that differ by more")
    return _make_table(
        "critical_differences", "Which subsets differ?", header, rows, range(2, 3), has_demo(chosen)
    )


def tabulate_diagnostics(diagnostics: pd.DataFrame) -> PageTable:
    """Median, smallest and largest value of each kind of diagnostic, by dataset."""
    chosen = diagnostics[diagnostics["measure"].isin(list(_DIAGNOSTIC_LABELS))]
    chosen = chosen.assign(dataset=chosen["dataset"].fillna("all"))
    rows: list[tuple[str, ...]] = []
    for (measure, dataset), part in chosen.groupby(["measure", "dataset"], sort=False):
        values = part["value"].astype("float64")
        summary = (values.median(), values.min(), values.max())
        label = _DIAGNOSTIC_LABELS[str(measure)]
        rows.append((label, str(dataset), str(values.count()), *map(format_value, summary)))
    header = ("what", "dataset", "comparisons", "median", "smallest", "largest")
    return _make_table(
        "diagnostics", "The choice of categories", header, rows, range(2, 6), has_demo(chosen)
    )


def _make_table(
    name: str,
    title: str,
    header: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    numbers: range,
    has_demo_weights: bool,
) -> PageTable:
    is_number = tuple(column in numbers for column in range(len(header)))
    frame = pd.DataFrame(rows, columns=list(header), dtype=str)
    return PageTable(name, title, header, tuple(rows), is_number, frame, has_demo_weights)


def _sort_measures(statistics: pd.DataFrame) -> pd.DataFrame:
    return statistics.sort_values(
        "measure", key=lambda names: names.map(MEASURES.index), kind="stable"
    )


def _format_p(value: float) -> str:
    return "< 0.001" if value < 0.001 else format_value(value)
