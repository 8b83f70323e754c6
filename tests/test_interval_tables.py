"""The page's intervals are those of the finished table."""

import pytest

from iqray.report.interval_tables import tabulate_cell_intervals, tabulate_rank_intervals
from iqray.report.words import describe_certainty
from tests.report_inputs import make_inputs


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


def find_mean_rank(intervals, subset):
    own = intervals[(intervals["scope"] == "all") & (intervals["measure"] == "top1")]
    return own.set_index("subset").loc[subset]


def test_mean_ranks_have_their_intervals(inputs):
    table = tabulate_rank_intervals(inputs.intervals, 2)
    assert len(table.rows) == 3 * (1 + 2) * 4  # measures, scopes, subsets
    expected = find_mean_rank(inputs.intervals, "avg_low")
    [row] = [row for row in table.rows if row[:3] == ("top-1", "all", "avg_low")]
    interval = f"{expected['rank_low']:.2f} to {expected['rank_high']:.2f}"
    assert row[3:] == (f"{expected['rank']:.2f}", interval, "8")


def test_every_cell_and_measure_has_a_row(inputs):
    table = tabulate_cell_intervals(inputs.intervals, 2)
    assert len(table.rows) == 32 * 3
    assert (table.frame["low"] <= table.frame["value"]).all()
    assert (table.frame["value"] <= table.frame["high"]).all()


def test_the_finding_says_what_its_interval_draws(inputs):
    statistics, intervals = inputs.statistics, inputs.intervals
    text = describe_certainty(statistics, intervals, "top1", 2)
    best = text.removeprefix("Best mean rank: ").partition(",")[0]
    expected = find_mean_rank(intervals, best)
    interval = f"{expected['rank_low']:.2f} to {expected['rank_high']:.2f}"
    assert f"{interval} over drawn categories, images and seeds" in text
    assert "Over 2 datasets p = " in text
    assert "after Holm; before Holm it cannot be below 0.042." in text
    without = describe_certainty(statistics, intervals[:0], "top1", 2)
    assert "over drawn clusters, architectures and seeds" in without


def test_seeds_are_drawn_where_there_are_several(inputs):
    statistics, intervals = inputs.statistics, inputs.intervals
    assert "images and seeds" in tabulate_cell_intervals(intervals, 3).title
    for title in (
        tabulate_cell_intervals(intervals, 1).title,
        tabulate_rank_intervals(intervals, 1).title,
    ):
        assert title.endswith("over drawn categories and images")
    text = describe_certainty(statistics, intervals, "top1", 1)
    assert "over drawn categories and images;" in text
    without = describe_certainty(statistics, intervals[:0], "top1", 1)
    assert "over drawn clusters and architectures;" in without
