"""Statistics of a table of cells: the right units, reasons instead of crashes, planted effects."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from iqray import schemas
from iqray.results.ranks import MEASURES
from iqray.settings.subset import SUBSET_NAMES
from iqray.statistics.rank_tests import adjust_holm, permute_labels, run_friedman
from iqray.statistics.statistics import compute_statistics

DATASETS = ("imagenet", "ecoset")
ARCHITECTURES = ("alexnet", "resnet50", "vgg16")
METRICS = ("brisque", "clipiqa", "cnniqa", "dbcnn", "musiq", "niqe")


def make_cells(
    effect=0.0,
    *,
    datasets=DATASETS,
    architectures=ARCHITECTURES,
    metrics=METRICS,
    seeds=(0, 1),
    subsets=SUBSET_NAMES,
    seed=0,
):
    """Cells whose architectures agree; `range_high` has a larger distance by `effect`."""
    generator = np.random.default_rng(seed)
    rows = []
    for dataset, metric, subset in itertools.product(datasets, metrics, subsets):
        shared = generator.normal(size=3)
        shared[0] += effect * (subset == "range_high")
        for architecture, seed_ in itertools.product(architectures, seeds):
            values = shared + generator.normal(0, 0.2, size=3)
            rows.append(
                {
                    "dataset": dataset,
                    "architecture": architecture,
                    "metric": metric,
                    "subset": subset,
                    "seed": seed_,
                    **dict(zip(MEASURES, 100 + values, strict=True)),
                    "mean_distance": 1.0,
                    "chance_top1": 0.1,
                    "chance_top5": 0.5,
                    "weights": "real" if dataset == "ecoset" else "demo weights",
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def planted():
    return compute_statistics(make_cells(3.0))


def find(statistics, **values):
    """Rows with these values."""
    kept = np.logical_and.reduce([statistics[name] == value for name, value in values.items()])
    return statistics[kept]


def find_one(statistics, **values):
    rows = find(statistics, **values)
    assert len(rows) == 1
    return rows.iloc[0]


def test_the_table_follows_its_schema(planted):
    assert list(planted.columns) == schemas.STATISTICS.names
    table = pa.Table.from_pandas(planted, schema=schemas.STATISTICS, preserve_index=False)
    assert table.num_rows == len(planted)
    assert planted["scope"].unique().tolist() == ["all", "dataset:imagenet", "dataset:ecoset"]
    assert (planted["reason"] == "").all()
    assert not planted.duplicated(["scope", "measure", "unit", "test", "comparison"]).any()
    assert planted["p_value"].dropna().between(0, 1).all()
    intervals = planted.dropna(subset=["low"])
    assert (intervals["low"] <= intervals["effect"]).all()
    assert (intervals["effect"] <= intervals["high"]).all()


def test_units_are_combinations_and_clusters(planted):
    counts = find(planted, test="friedman", measure="top1").set_index(["scope", "unit"])["n"]
    assert counts["all", "combinations"] == 36
    assert counts["all", "clusters"] == 12
    assert counts["dataset:ecoset", "combinations"] == 18
    assert counts["dataset:ecoset", "clusters"] == 6
    assert find_one(planted, test="interaction", measure="top1")["n"] == 6


def test_a_planted_effect_is_found_where_it_is(planted):
    permutation = find(planted, scope="all", test="permutation", unit="clusters").set_index(
        ["measure", "comparison"]
    )
    assert permutation["p_holm"]["distance", "subsets"] < 0.01
    assert permutation["leader"]["distance", "subsets"] == "range_high"
    assert permutation["p_value"]["distance", "range_high"] < 0.01
    assert permutation["effect"]["distance", "range_high"] < 1.5
    assert permutation["p_holm"]["top1", "subsets"] > 0.05
    bootstrap = find_one(
        planted, scope="all", test="bootstrap", measure="distance", comparison="range_high"
    )
    assert bootstrap["high"] < 2.5
    pair = find_one(
        planted,
        scope="all",
        test="nemenyi",
        unit="clusters",
        measure="distance",
        comparison="avg_high - range_high",
    )
    assert pair["p_value"] < 0.05
    assert pair["low"] > 0


def test_no_effect_in_three_measures_is_found_at_the_stated_rate():
    """Any of the three at 0.05 after Holm; three standard errors at 200 are 0.046."""
    found = []
    for seed in range(200):
        cells = make_cells(seed=seed, architectures=("alexnet", "vgg16"), seeds=(0,))
        tables = [rank_clusters(cells, measure) for measure in MEASURES]
        p_values = adjust_holm([permute_labels(table, 0, 199).p_value for table in tables])
        found.append((p_values <= 0.05).any())
    assert 0.004 < np.mean(found) < 0.096


def rank_clusters(cells, measure):
    """Mean ranks by cluster, in a second way."""
    averaged = cells.groupby(["dataset", "architecture", "metric", "subset"])[measure].mean()
    wide = averaged.unstack("subset")[list(SUBSET_NAMES)].rank(axis=1, ascending=False)
    return wide.groupby(["dataset", "metric"]).mean().to_numpy()


def test_numbers_are_those_of_a_second_way(planted):
    cells = make_cells(3.0)
    averaged = cells.groupby(["dataset", "architecture", "metric", "subset"])["top5"].mean()
    wide = averaged.unstack("subset")[list(SUBSET_NAMES)].rank(axis=1, ascending=False)
    combinations = find_one(
        planted, scope="all", test="friedman", measure="top5", unit="combinations"
    )
    assert combinations["effect"] == pytest.approx(run_friedman(wide.to_numpy()).kendall_w)
    clusters = rank_clusters(cells, "top5")
    of_clusters = find_one(planted, scope="all", test="friedman", measure="top5", unit="clusters")
    assert of_clusters["effect"] == pytest.approx(run_friedman(clusters).kendall_w)
    bootstrap = find(planted, scope="all", test="bootstrap", measure="top5")
    assert bootstrap["effect"].tolist() == pytest.approx(clusters.mean(axis=0).tolist())
    raw = [
        find_one(
            planted,
            scope="all",
            test="permutation",
            unit="clusters",
            measure=name,
            comparison="subsets",
        )
        for name in MEASURES
    ]
    expected = adjust_holm([row["p_value"] for row in raw])
    assert [row["p_holm"] for row in raw] == pytest.approx(expected)


def test_labels_of_datasets_are_permuted_for_all_their_metrics(planted):
    """Every order of the second dataset's labels, by hand."""
    rows = find(planted, test="permutation", unit="datasets").set_index("measure")
    assert (rows["scope"] == "all").all()
    assert (rows["n"] == 2).all()
    assert rows["smallest_p"].tolist() == pytest.approx([1 / 24] * 3)
    for measure in MEASURES:
        tables = np.split(rank_clusters(make_cells(3.0), measure), 2)
        first, second = (table.mean(axis=0) for table in tables)
        sums = [
            (((first + second[list(order)]) / 2 - 2.5) ** 2).sum()
            for order in itertools.permutations(range(4))
        ]
        assert rows["statistic"][measure] == pytest.approx(sums[0])
        assert rows["p_value"][measure] == pytest.approx(np.mean(np.array(sums) >= sums[0] - 1e-9))
    expected = adjust_holm(rows["p_value"][list(MEASURES)])
    assert rows["p_holm"][list(MEASURES)].tolist() == pytest.approx(expected)


def test_metrics_that_repeat_each_other_are_no_evidence_over_datasets():
    """Six copies of one metric: 12 clusters are sure of what two datasets cannot tell."""
    cells = make_cells(metrics=("niqe",), seed=3)
    copies = pd.concat([cells.assign(metric=metric) for metric in METRICS], ignore_index=True)
    tests = find(compute_statistics(copies), scope="all", test="permutation", comparison="subsets")
    p_values = tests.set_index(["unit", "measure"])["p_value"]
    assert (p_values["clusters"] < 0.01).sum() == 2  # in the third the datasets disagree
    assert (p_values["datasets"] >= 1 / 24).all()


def test_without_a_metric_its_clusters_are_gone(planted):
    rows = find(planted, test="without_metric", measure="distance")
    assert rows["comparison"].tolist() == [f"without {metric}" for metric in METRICS]
    assert (rows["n"] == 10).all()
    assert (rows["leader"] == "range_high").all()


def test_an_effect_of_one_dataset_is_an_interaction():
    cells = make_cells()
    cells.loc[(cells["dataset"] == "ecoset") & (cells["subset"] == "avg_low"), "top1"] += 5
    statistics = find(compute_statistics(cells), test="interaction").set_index("measure")
    assert statistics["p_value"]["top1"] == pytest.approx(2 / 64)
    assert statistics["p_value"]["top5"] > 0.05


def test_the_order_of_rows_does_not_matter(planted):
    cells = make_cells(3.0)
    shuffled = cells.sample(frac=1, random_state=0, ignore_index=True)
    first = shuffled["subset"].map(list(SUBSET_NAMES).index).sort_values(kind="stable").index
    again = compute_statistics(shuffled.loc[first])
    keys = ["scope", "measure", "unit", "test", "comparison"]
    pd.testing.assert_frame_equal(
        again.drop(columns="weights").set_index(keys).sort_index(),
        planted.drop(columns="weights").set_index(keys).sort_index(),
    )


def test_rows_name_the_weights_of_their_scope(planted):
    weights = planted.groupby("scope")["weights"].unique()
    assert weights["all"].tolist() == ["demo weights, real"]
    assert weights["dataset:ecoset"].tolist() == ["real"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"datasets": ("d",), "metrics": ("niqe",)}, "1 clusters with all subsets; 2 or more"),
        ({"subsets": ("avg_high", "avg_low")}, "2 subsets; 3 or more are needed"),
        ({"subsets": ("avg_high",)}, "1 subsets; 3 or more are needed"),
    ],
)
def test_too_little_gives_a_reason(changes, expected):
    statistics = compute_statistics(make_cells(**changes))
    rows = find(statistics, unit="clusters", test="permutation")
    assert len(rows) >= 3
    assert rows["reason"].str.startswith(expected).all()
    assert rows["p_value"].isna().all()


def test_one_dataset_has_no_scope_of_its_own_and_no_interaction():
    statistics = compute_statistics(make_cells(datasets=("d",), metrics=("niqe", "musiq")))
    assert statistics["scope"].unique().tolist() == ["all"]
    reasons = statistics.set_index(["test", "measure"])["reason"]
    assert reasons["interaction", "top1"] == "1 datasets with all subsets; 2 or more are needed"
    assert (reasons["without_metric"] == "1 clusters with all subsets; 2 or more are needed").all()
    assert set(reasons["permutation"]) == {"", "1 datasets with all subsets; 2 or more are needed"}
    over_datasets = find(statistics, test="permutation", unit="datasets")
    assert (over_datasets["reason"] != "").all()


def test_missing_cells_leave_their_combination_out_and_others_in():
    cells = make_cells()
    is_lost = (cells["architecture"] == "vgg16") & (cells["metric"] == "niqe")
    cells.loc[cells.index[is_lost][0], "top1"] = np.nan
    statistics = compute_statistics(cells)
    counts = find(statistics, scope="all", test="friedman").set_index(["measure", "unit"])["n"]
    assert counts["top1", "combinations"] == 35
    assert counts["top1", "clusters"] == 12
    assert counts["top5", "combinations"] == 36


def test_nothing_left_gives_reasons_only():
    cells = make_cells().assign(distance=np.nan, top1=np.nan, top5=np.nan)
    statistics = compute_statistics(cells)
    assert (statistics["reason"] != "").all()
    assert (statistics["n"] == 0).all()


def test_ties_everywhere_give_a_reason_and_no_effect():
    statistics = compute_statistics(make_cells().assign(top5=0.0))
    tied = find(statistics, scope="all", measure="top5")
    friedman = find(tied, test="friedman")
    assert (friedman["reason"] == "all subsets tie in every unit").all()
    assert (find(tied, test="permutation", comparison="subsets")["p_value"] == 1).all()
    assert (find(tied, test="bootstrap")["effect"] == 2.5).all()
    untied = find_one(statistics, scope="all", measure="top1", test="friedman", unit="clusters")
    assert untied["p_holm"] <= min(1, 2 * untied["p_value"]) + 1e-12
