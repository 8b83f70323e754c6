"""Ranks hold against a worked example and the laws that any ranking obeys."""

import itertools

import numpy as np
import pandas as pd
import pytest

from iqray.results.ranks import MEASURES, average_over_seeds, count_ranks, rank_cells
from iqray.schemas import RANK_COUNTS
from iqray.settings.subset import SUBSET_NAMES

RANKS = [f"rank_{measure}" for measure in MEASURES]


def make_cells(values, *, datasets=("d",), metrics=("niqe",), seeds=(0,)):
    """Cells of one architecture whose top1, top5 and distance are drawn by `values()`."""
    rows = [
        {
            "dataset": dataset,
            "architecture": "alexnet",
            "metric": metric,
            "subset": subset,
            "seed": seed,
            **{measure: values() for measure in MEASURES},
            "mean_distance": 1.0,
            "chance_top1": 0.1,
            "chance_top5": 0.5,
            "weights": "real",
        }
        for dataset, metric, seed, subset in itertools.product(
            datasets, metrics, seeds, SUBSET_NAMES
        )
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def cells():
    generator = np.random.default_rng(8)
    return make_cells(
        lambda: generator.integers(0, 5) / 5,
        datasets=("a", "b"),
        metrics=("niqe", "musiq"),
        seeds=(0, 1),
    )


@pytest.fixture
def example():
    """One combination with a worked answer; the two at 0.3 tie."""
    cells = make_cells(lambda: 0.0)
    cells["top1"] = [0.1 + 0.2, 0.5, 0.3, 0.1]
    cells["top5"] = [0.9, 0.9, 0.9, 0.2]
    cells["distance"] = [4e8, 3e8, 2e8, 5e8]
    return cells


def test_worked_example(example):
    ranked = rank_cells(example)
    assert ranked["rank_top1"].tolist() == [2.5, 1, 2.5, 4]
    assert ranked["rank_top5"].tolist() == [2, 2, 2, 4]
    assert ranked["rank_distance"].tolist() == [2, 3, 4, 1]


def test_nearly_equal_values_stay_apart(example):
    example["top1"] = [0.5, 0.5 + 1e-6, 0.5 - 1e-6, 0]
    assert rank_cells(example)["rank_top1"].tolist() == [2, 1, 3, 4]


def test_ranks_of_a_combination_sum_to_ten(cells):
    sums = rank_cells(cells).groupby(["dataset", "metric", "seed"])[RANKS].sum()
    assert len(sums) == 8
    assert (sums == 10).all(axis=None)


def test_negating_a_measure_reverses_its_ranks(cells):
    mirrored = cells.assign(distance=-cells["distance"])
    ranks = rank_cells(cells)["rank_distance"] + rank_cells(mirrored)["rank_distance"]
    assert (ranks == 5).all()


def test_row_order_does_not_matter(cells):
    shuffled = rank_cells(cells.sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(shuffled.sort_index(), rank_cells(cells))


def test_one_absent_value_leaves_only_its_combination_and_measure_unranked(cells):
    cells.loc[cells.index[0], "top1"] = np.nan
    ranked = rank_cells(cells)
    assert ranked["rank_top1"].isna().tolist() == [True] * 4 + [False] * 28
    assert ranked[["rank_top5", "rank_distance"]].notna().all(axis=None)


def test_one_absent_row_leaves_its_combination_unranked(cells):
    ranked = rank_cells(cells.iloc[1:])
    assert ranked["rank_distance"].isna().tolist() == [True] * 3 + [False] * 28


def test_seeds_are_averaged_before_ranking(example):
    second = example.assign(seed=1, top1=[0.0, 0.0, 0.0, 0.7])
    averaged = average_over_seeds(pd.concat([example, second]))
    assert averaged["top1"].tolist() == pytest.approx([0.15, 0.25, 0.15, 0.4])
    assert averaged["num_seeds"].tolist() == [2] * 4
    assert rank_cells(averaged)["rank_top1"].tolist() == [3.5, 2, 3.5, 1]


@pytest.mark.parametrize("absent", ["value", "row"])
def test_average_needs_every_seed(example, absent):
    cells = pd.concat([example, example.assign(seed=1)], ignore_index=True)
    cells.loc[5, "top1"] = np.nan
    if absent == "row":
        cells = cells.drop(index=5)
    assert average_over_seeds(cells)["top1"].isna().tolist() == [False, True, False, False]


def test_counts_of_the_worked_example(example):
    counts = count_ranks(example)
    assert list(counts.columns) == RANK_COUNTS.names
    top1 = counts[(counts["scope"] == "all") & (counts["measure"] == "top1")]
    assert top1["num_tied"].unique().tolist() == [1]
    held = top1[top1["count"] > 0].set_index("subset")["rank"].to_dict()
    assert held == {"avg_high": 2.5, "avg_low": 1, "range_high": 2.5, "range_low": 4}
    assert sorted(top1["rank"].unique()) == [1, 2, 2.5, 3, 4]


def test_counts_of_a_scope_add_up(cells):
    counts = count_ranks(cells)
    assert counts["scope"].unique().tolist() == [
        "all",
        "dataset:a",
        "dataset:b",
        "metric:niqe",
        "metric:musiq",
    ]
    totals = counts.groupby(["scope", "measure", "subset"])["count"].sum()
    expected = counts.groupby(["scope", "measure", "subset"])["num_combinations"].first()
    pd.testing.assert_series_equal(totals, expected, check_names=False)
    assert expected.loc["all"].eq(4).all()
    assert expected.loc["metric:niqe"].eq(2).all()


def test_an_incomplete_combination_is_not_counted(cells):
    cells.loc[cells.index[0], "top1"] = np.nan
    counts = count_ranks(cells).groupby(["scope", "measure"])["num_combinations"].first()
    assert counts["all", "top1"] == 3
    assert counts["dataset:a", "top1"] == 1
    assert counts["all", "distance"] == 4


def test_counts_name_every_provenance_of_their_scope(cells):
    cells.loc[cells["metric"] == "niqe", "weights"] = "demo weights"
    weights = count_ranks(cells).groupby("scope")["weights"].first()
    assert weights["all"] == "demo weights, real"
    assert weights["metric:musiq"] == "real"
