"""The report's tables of statistics hold the numbers of theirs, and say why one is not there."""

import pytest

from iqray.report.trust_tables import (
    tabulate_critical_differences,
    tabulate_diagnostics,
    tabulate_mean_ranks,
    tabulate_tests,
)
from iqray.statistics.diagnostics import build_diagnostics, diagnose_subsets
from iqray.statistics.statistics import compute_statistics
from tests.test_diagnostics import make_subsets
from tests.test_statistics import find_one, make_cells


@pytest.fixture(scope="module")
def statistics():
    return compute_statistics(make_cells(3.0))


def find_row(table, *cells):
    [row] = [row for row in table.rows if row[: len(cells)] == cells]
    return dict(zip(table.header, row, strict=True))


def test_every_measure_has_its_tests(statistics):
    table = tabulate_tests(statistics)
    assert len(table.rows) == 3 * 5
    row = find_row(table, "distance", "permutation of subsets", "12 clusters")
    assert row["p"] == "< 0.001"
    assert row["smallest possible p"] == "< 0.001"
    assert row["best mean rank, or why not"] == "range_high"
    over_datasets = find_row(table, "distance", "permutation of subsets", "2 datasets")
    assert over_datasets["smallest possible p"] == "0.042"
    assert find_row(table, "top-1", "do datasets differ?")["over"] == "6 metrics"
    assert table.has_demo_weights


def test_mean_ranks_are_those_of_the_bootstrap(statistics):
    table = tabulate_mean_ranks(statistics)
    assert len(table.rows) == 3 * 4
    expected = find_one(
        statistics, scope="all", test="bootstrap", measure="top5", comparison="avg_low"
    )
    row = find_row(table, "top-5", "avg_low")
    assert row["mean rank"] == f"{expected['effect']:.2f}"
    assert row["95 % interval"] == f"{expected['low']:.2f} to {expected['high']:.2f}"


def test_pairs_beyond_the_critical_difference_are_named(statistics):
    table = tabulate_critical_differences(statistics)
    row = find_row(table, "distance", "12 clusters")
    assert row["critical difference"] == "1.354"
    pairs = row["pairs that differ by more"]
    assert "avg_high - range_high" in pairs
    assert "avg_high - avg_low" not in pairs


def test_a_small_study_reads_why_there_is_no_test():
    small = compute_statistics(make_cells(datasets=("d",), metrics=("niqe",)))
    reason = "1 clusters with all subsets; 2 or more are needed"
    row = find_row(tabulate_tests(small), "top-1", "permutation of subsets", "1 clusters")
    assert row["best mean rank, or why not"] == reason
    assert row["p"] == "–"
    differences = find_row(tabulate_critical_differences(small), "top-1", "1 clusters")
    assert differences["pairs that differ by more"] == reason
    assert tabulate_mean_ranks(small).rows == ()


def test_diagnostics_are_summed_up_by_dataset():
    chosen = {
        ("x", "niqe", "avg_high"): ("ant", "bee"),
        ("x", "niqe", "avg_low"): ("bee", "cat"),
        ("x", "niqe", "range_high"): ("ant", "bee"),
        ("y", "niqe", "avg_high"): ("dog",),
    }
    table = tabulate_diagnostics(build_diagnostics(diagnose_subsets(make_subsets(chosen))))
    within = find_row(table, "overlap of two subsets (Jaccard)", "x")
    assert [within[name] for name in ("comparisons", "median", "smallest", "largest")] == [
        "3",
        "0.333",
        "0.333",
        "1.000",
    ]
    between = find_row(table, "overlap of a subset in two datasets (Jaccard)", "all")
    assert between["median"] == "0.000"
