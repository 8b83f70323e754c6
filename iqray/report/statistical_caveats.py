"""Reasons to distrust a study's ranks that its own tests and diagnostics give.

Reads `schemas.STATISTICS` and `schemas.DIAGNOSTICS`; `iqray.report.caveats` has those of the other
tables. Each rule is one function that is silent when it has nothing to say. Pure.
"""

from collections.abc import Iterator

import pandas as pd

from iqray.report.caveats import Caveat
from iqray.results.cells import MEASURE_LABELS
from iqray.results.ranks import MEASURES
from iqray.statistics.statistics import ALL_SUBSETS

_ALPHA = 0.05

# At 0.7 two samples of images share half of the variance of the categories' ranks.
_WEAK_RELIABILITY = 0.7
_STRONG_CONFOUND = 0.5  # Cohen's (1988) large correlation


def list_statistical_caveats(statistics: pd.DataFrame, diagnostics: pd.DataFrame) -> list[Caveat]:
    """Collect what weakens the ranks, the gravest first.

    Args:
        statistics: a table of `schemas.STATISTICS`.
        diagnostics: a table of `schemas.DIAGNOSTICS`.
    """
    return [
        *_find_no_evidence(statistics),
        *_find_weak_order(diagnostics),
        *_find_confounds(diagnostics),
    ]


def _find_no_evidence(statistics: pd.DataFrame) -> Iterator[Caveat]:
    own = statistics[
        (statistics["scope"] == "all")
        & (statistics["test"] == "permutation")
        & (statistics["comparison"] == ALL_SUBSETS)
    ].set_index("measure")
    p_values = own["p_holm"].astype("float64")
    weak = [name for name in MEASURES if not p_values.get(name, float("nan")) <= _ALPHA]
    if weak:
        labels = ", ".join(MEASURE_LABELS[name] for name in weak)
        yield Caveat(
            "No difference shown",
            f"on {labels} the subsets' ranks do not differ beyond chance at {_ALPHA:.0%} (joint "
            "permutation in the (dataset, metric) clusters, Holm over the measures), or there is "
            "too little to test. A subset that leads there may lead by luck.",
        )


def _find_weak_order(diagnostics: pd.DataFrame) -> Iterator[Caveat]:
    own = diagnostics[diagnostics["measure"] == "split_half"].dropna(subset=["value"])
    weak = own[own["value"] < _WEAK_RELIABILITY]
    if len(weak):
        lowest = weak.sort_values("value").iloc[0]
        yield Caveat(
            "Unreliable order of categories",
            f"in {len(weak)} of {len(own)} cases half of a category's images order the categories "
            f"unlike the other half (split-half reliability below {_WEAK_RELIABILITY}); lowest is "
            f"{lowest['value']:.2f}, {lowest['quantity']} of {lowest['metric']} in "
            f"{lowest['dataset']}. Other images would choose other categories.",
        )


def _find_confounds(diagnostics: pd.DataFrame) -> Iterator[Caveat]:
    sorted_by = diagnostics.loc[diagnostics["measure"] == "split_half", "quantity"].unique()
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
