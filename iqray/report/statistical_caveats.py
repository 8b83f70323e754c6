"""Reasons to distrust a study's ranks that its own tests and diagnostics give.

Reads `schemas.STATISTICS` and `schemas.DIAGNOSTICS`; `iqray.report.caveats` has those of the other
tables. Each rule is one function that is silent when it has nothing to say. Pure.
"""

from collections.abc import Iterator

import pandas as pd

from iqray.report.caveats import Caveat
from iqray.results.cells import MEASURE_LABELS
from iqray.results.ranks import MEASURES
from iqray.statistics.diagnostics import SPLIT_HALF, SPLIT_HALF_UNCORRECTED
from iqray.statistics.statistics import ALL_SUBSETS, CLUSTERS, DATASETS

_ALPHA = 0.05

# At 0.7 two samples of images share half of the variance of the categories' ranks. The samples are
# as large as the dataset's for averages, which are corrected, and half as large for ranges.
_WEAK_RELIABILITY = 0.7
_STRONG_CONFOUND = 0.5  # Cohen's (1988) large correlation

_HALVES = {
    SPLIT_HALF: "orders by averages (split-half reliability, corrected to all images)",
    SPLIT_HALF_UNCORRECTED: "orders by ranges (correlation of halves, not corrected to all images)",
}


def list_statistical_caveats(statistics: pd.DataFrame, diagnostics: pd.DataFrame) -> list[Caveat]:
    """Collect what weakens the ranks, the gravest first.

    Args:
        statistics: a table of `schemas.STATISTICS`.
        diagnostics: a table of `schemas.DIAGNOSTICS`.
    """
    return [
        *_find_no_evidence(statistics),
        *_find_clusters_only(statistics),
        *_find_weak_order(diagnostics),
        *_find_confounds(diagnostics),
    ]


def _find_no_evidence(statistics: pd.DataFrame) -> Iterator[Caveat]:
    weak = [name for name in MEASURES if name not in _list_shown(statistics, CLUSTERS)]
    if weak:
        labels = ", ".join(MEASURE_LABELS[name] for name in weak)
        yield Caveat(
            "No difference shown",
            f"on {labels} the subsets' ranks do not differ beyond chance at {_ALPHA:.0%} (joint "
            "permutation in the (dataset, metric) clusters, Holm over the measures), or there is "
            "too little to test. A subset that leads there may lead by luck.",
        )


def _find_clusters_only(statistics: pd.DataFrame) -> Iterator[Caveat]:
    """Say where subsets differ over clusters, but not where the metrics of a dataset are one."""
    over_datasets = _list_shown(statistics, DATASETS)
    shown = [name for name in _list_shown(statistics, CLUSTERS) if name not in over_datasets]
    if not shown:
        return
    own = _select_joint(statistics, DATASETS)
    num_clusters = int(_select_joint(statistics, CLUSTERS).loc[shown, "n"].max())
    labels = ", ".join(MEASURE_LABELS[name] for name in shown)
    yield Caveat(
        "Shown for clusters, not for datasets",
        f"on {labels} the subsets' ranks differ over {num_clusters} clusters, evidence only "
        "if metrics of a dataset are independent, while they rank the same categories and may "
        f"choose the very same. {_explain_datasets(own.loc[shown])} Only more datasets "
        "tell an effect of quality from one of which categories these datasets have.",
    )


def _explain_datasets(tests: pd.DataFrame) -> str:
    """What the tests over datasets, by measure, can show at all, and what they show."""
    num = int(tests["n"].max())
    p_values = tests["p_holm"].dropna()
    if p_values.empty:
        return f"With {num} {'dataset' if num == 1 else 'datasets'} there is no test over datasets."
    smallest, num_tests = tests["smallest_p"].max(), len(MEASURES)
    text = f"Over {num} datasets p is {p_values.min():.2g} or more after Holm"
    if num_tests * smallest > _ALPHA:
        return (
            f"{text}: no test over {num} datasets can give less than {smallest:.2g}, "
            f"{num_tests * smallest:.2g} after Holm over {num_tests} measures."
        )
    return f"{text}."


def _list_shown(statistics: pd.DataFrame, unit: str) -> list[str]:
    """Measures whose subsets differ by the joint permutation over these units."""
    p_values = _select_joint(statistics, unit)["p_holm"].astype("float64")
    return [name for name in MEASURES if p_values.get(name, float("nan")) <= _ALPHA]


def _select_joint(statistics: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Permutation tests of all subsets of the whole study, by measure."""
    return statistics[
        (statistics["scope"] == "all")
        & (statistics["test"] == "permutation")
        & (statistics["comparison"] == ALL_SUBSETS)
        & (statistics["unit"] == unit)
    ].set_index("measure")


def _find_weak_order(diagnostics: pd.DataFrame) -> Iterator[Caveat]:
    own = diagnostics[diagnostics["measure"].isin(_HALVES)].dropna(subset=["value"])
    weak = own[own["value"] < _WEAK_RELIABILITY]
    if len(weak):
        lowest = weak.sort_values("value").iloc[0]
        parts = [
            f"{(weak['measure'] == measure).sum()} of {num} {text}"
            for measure, text in _HALVES.items()
            if (num := (own["measure"] == measure).sum())
        ]
        yield Caveat(
            "Unreliable order of categories",
            f"half of a category's images order the categories unlike the other half (below "
            f"{_WEAK_RELIABILITY}) in {' and '.join(parts)}; lowest is {lowest['value']:.2f}, "
            f"{lowest['quantity']} of {lowest['metric']} in {lowest['dataset']}. Other images "
            "would choose other categories.",
        )


def _find_confounds(diagnostics: pd.DataFrame) -> Iterator[Caveat]:
    sorted_by = diagnostics.loc[diagnostics["measure"].isin(_HALVES), "quantity"].unique()
    own = diagnostics[
        (diagnostics["measure"] == "spearman_statistics")
        & diagnostics["first"].isin(sorted_by)
        & diagnostics["second"].isin(["num_images", "median_pixels", "bytes_per_pixel"])
    ].dropna(subset=["value"])
    strong = own[own["value"].abs() >= _STRONG_CONFOUND]
    if len(strong):
        largest = strong.sort_values("value", key=abs).iloc[-1]
        yield Caveat(
            "Subsets differ in more than quality",
            f"{len(strong)} of {len(own)} correlations of what subsets are sorted by with image "
            f"counts, pixels or bytes per pixel are {_STRONG_CONFOUND} or larger; largest is "
            f"{largest['value']:.2f}, {largest['first']} of {largest['metric']} with "
            f"{largest['second']} in {largest['dataset']}. Matched controls tell these apart.",
        )
