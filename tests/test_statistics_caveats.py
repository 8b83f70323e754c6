"""Each caveat speaks where its numbers call for it, and is silent elsewhere."""

import pandas as pd
import pytest

from iqray.report.statistical_caveats import list_statistical_caveats
from iqray.results.ranks import MEASURES


def make_statistics(**p_holm):
    return pd.DataFrame(
        [
            {"scope": "all", "test": "permutation", "comparison": "subsets", "measure": measure}
            | {"p_holm": p_holm.get(measure, 0.01)}
            for measure in MEASURES
        ]
    )


def make_diagnostics(reliability=0.9, confound=0.1):
    shared = {"dataset": "d", "metric": "niqe"}
    split = {"measure": "split_half", "quantity": "mean", "value": reliability}
    pair = {"measure": "spearman_statistics", "first": "mean", "value": confound}
    unsorted = {"measure": "spearman_statistics", "first": "iqr", "value": 1.0}
    names = {"second": "num_images"}
    return pd.DataFrame([shared | split, shared | pair | names, shared | unsorted | names])


def list_titles(statistics, diagnostics):
    return [caveat.title for caveat in list_statistical_caveats(statistics, diagnostics)]


def test_a_study_without_reasons_has_none():
    assert list_titles(make_statistics(), make_diagnostics()) == []


@pytest.mark.parametrize("p_value", [0.2, None])
def test_ranks_without_evidence_are_named(p_value):
    [caveat] = list_statistical_caveats(make_statistics(top1=p_value), make_diagnostics())
    assert caveat.title == "No difference shown"
    assert caveat.text.startswith("on top-1 the subsets")


def test_an_unreliable_order_and_a_confound_are_named():
    [first, second] = list_statistical_caveats(make_statistics(), make_diagnostics(0.4, -0.8))
    assert "0.40, mean of niqe in d" in first.text
    assert "-0.80, mean of niqe with num_images in d" in second.text
