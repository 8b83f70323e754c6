"""Each caveat speaks where its numbers call for it, and is silent elsewhere."""

import pandas as pd
import pytest

from iqray.report.statistical_caveats import list_statistical_caveats
from iqray.results.ranks import MEASURES


def make_statistics(over_datasets=0.02, num_datasets=3, smallest_p=1 / 576, **p_holm):
    shared = {"scope": "all", "test": "permutation", "comparison": "subsets"}
    rows = []
    for measure in MEASURES:
        own = shared | {"measure": measure}
        rows.append(own | {"unit": "clusters", "n": 12, "p_holm": p_holm.get(measure, 0.01)})
        of_datasets = {"unit": "datasets", "n": num_datasets, "smallest_p": smallest_p}
        rows.append(own | of_datasets | {"p_holm": over_datasets})
    return pd.DataFrame(rows)


def make_diagnostics(reliability=0.9, confound=0.1):
    shared = {"dataset": "d", "metric": "niqe"}
    split = {"measure": "split_half", "quantity": "mean", "value": reliability}
    ranges = split | {"measure": "split_half_uncorrected", "quantity": "max_min", "value": 0.8}
    pair = {"measure": "spearman_statistics", "first": "mean", "value": confound}
    unsorted = {"measure": "spearman_statistics", "first": "iqr", "value": 1.0}
    names = {"second": "num_images"}
    return pd.DataFrame(
        [shared | split, shared | ranges, shared | pair | names, shared | unsorted | names]
    )


def list_titles(statistics, diagnostics):
    return [caveat.title for caveat in list_statistical_caveats(statistics, diagnostics)]


def test_a_study_without_reasons_has_none():
    assert list_titles(make_statistics(), make_diagnostics()) == []


@pytest.mark.parametrize("p_value", [0.2, None])
def test_ranks_without_evidence_are_named(p_value):
    [caveat] = list_statistical_caveats(make_statistics(top1=p_value), make_diagnostics())
    assert caveat.title == "No difference shown"
    assert caveat.text.startswith("on top-1 the subsets")


def test_what_clusters_show_and_datasets_do_not_is_named():
    statistics = make_statistics(0.3, top1=0.2)
    [_, caveat] = list_statistical_caveats(statistics, make_diagnostics())
    assert caveat.title == "Shown for clusters, not for datasets"
    assert caveat.text.startswith("on distance, top-5 the subsets' ranks differ over 12 clusters")
    assert "Over 3 datasets p is 0.3 or more after Holm." in caveat.text
    two = make_statistics(0.125, 2, 1 / 24)
    [caveat] = list_statistical_caveats(two, make_diagnostics())
    assert "no test over 2 datasets can give less than 0.042, 0.12 after Holm" in caveat.text
    one = make_statistics(None, 1, None)
    [caveat] = list_statistical_caveats(one, make_diagnostics())
    assert "With 1 dataset there is no test over datasets." in caveat.text
    nothing = make_statistics(0.3, distance=0.2, top1=0.2, top5=0.2)
    assert list_titles(nothing, make_diagnostics()) == ["No difference shown"]


def test_an_unreliable_order_and_a_confound_are_named():
    [first, second] = list_statistical_caveats(make_statistics(), make_diagnostics(0.4, -0.8))
    assert "0.40, mean of niqe in d" in first.text
    assert "1 of 1 orders by averages (split-half reliability, corrected" in first.text
    assert "0 of 1 orders by ranges (correlation of halves, not corrected" in first.text
    assert "-0.80, mean of niqe with num_images in d" in second.text
