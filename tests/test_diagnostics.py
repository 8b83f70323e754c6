"""Diagnostics against worked examples and scipy; too little gives a reason."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import spearmanr

from iqray import schemas
from iqray.categories.category_stats import STATISTICS, compute_category_stats
from iqray.settings.subset import RANGES, SubsetRules
from iqray.statistics.diagnostics import (
    CONFOUNDS,
    build_diagnostics,
    diagnose_category_stats,
    diagnose_scores,
    diagnose_subsets,
)

RULES = SubsetRules(k=2)
CATEGORIES = ("ant", "bee", "cat", "dog", "eel")


def make_subsets(chosen):
    """Rows of the given categories by (dataset, metric, subset)."""
    rows = [
        {"dataset": d, "metric": m, "subset": s, "category": category, "weights": f"weights of {m}"}
        for (d, m, s), categories in chosen.items()
        for category in categories
    ]
    return pd.DataFrame(rows)


def make_scores(metric, spread=1.0, num_images=40, categories=CATEGORIES, seed=0):
    """Scores of one metric around category means that lie `spread` apart."""
    generator = np.random.default_rng(seed)
    names = np.repeat(categories, num_images)
    means = np.repeat(np.arange(len(categories)) * spread, num_images)
    return pa.Table.from_pylist(
        [
            {
                "dataset": "d",
                "category": category,
                "image_id": number,
                "metric": metric,
                "score": score,
                "status": "ok",
                "weights": f"weights of {metric}",
            }
            for number, (category, score) in enumerate(
                zip(names, means + generator.normal(size=len(means)), strict=True)
            )
        ],
        schema=schemas.SCORES,
    )


def make_stats(*scores):
    frame = pa.concat_tables(map(compute_category_stats, scores)).to_pandas()
    for position, name in enumerate(CONFOUNDS):
        frame[name] = np.random.default_rng(position).permutation(len(frame)) + 1.0
    return frame


def test_overlap_of_subsets_metrics_and_datasets():
    rows = build_diagnostics(
        diagnose_subsets(
            make_subsets(
                {
                    ("x", "niqe", "avg_high"): ("ant", "bee"),
                    ("x", "niqe", "avg_low"): ("cat", "dog"),
                    ("x", "musiq", "avg_high"): ("bee", "cat"),
                    ("y", "niqe", "avg_high"): ("ant", "bee"),
                }
            )
        )
    )
    found = rows.set_index(["measure", "first", "second"])
    assert len(found) == 3
    assert found["value"].to_dict() == {
        ("jaccard_subsets", "avg_high", "avg_low"): 0,
        ("jaccard_metrics", "niqe", "musiq"): pytest.approx(1 / 3),
        ("jaccard_datasets", "x", "y"): 1,
    }
    assert found["n"].tolist() == [4, 3, 2]
    by_metric = found.loc["jaccard_metrics"].iloc[0]
    assert (by_metric["dataset"], by_metric["quantity"]) == ("x", "avg_high")
    assert pd.isna(by_metric["metric"])
    assert by_metric["weights"] == "weights of musiq, weights of niqe"


def test_every_pair_of_the_paper_is_compared():
    keys = itertools.product("xy", ("a", "b", "c"), ("avg_high", "avg_low", "range_high"))
    rows = build_diagnostics(diagnose_subsets(make_subsets(dict.fromkeys(keys, ("ant",)))))
    assert rows["measure"].value_counts().to_dict() == {
        "jaccard_subsets": 2 * 3 * 3,
        "jaccard_metrics": 2 * 3 * 3,
        "jaccard_datasets": 3 * 3,
    }


def test_correlations_over_categories_equal_those_of_scipy():
    stats = make_stats(make_scores("niqe"), make_scores("musiq", seed=1))
    rows = build_diagnostics(diagnose_category_stats(stats, RULES))
    own = rows[rows["measure"] == "spearman_statistics"]
    assert len(own) == 2 * (len(RANGES) + len(STATISTICS) * len(CONFOUNDS))
    for row in own.itertuples():
        part = stats[stats["metric"] == row.metric]
        expected = spearmanr(part[row.first], part[row.second]).statistic
        assert row.value == pytest.approx(expected)
    between = rows[rows["measure"] == "spearman_categories"].set_index("quantity")
    assert between.index.tolist() == ["mean", "max_min"]
    by_metric = stats.pivot(index="category", columns="metric", values="max_min")
    expected = spearmanr(by_metric["niqe"], by_metric["musiq"]).statistic
    assert between["value"]["max_min"] == pytest.approx(expected)
    assert (rows["n"] == 5).all()


def test_agreement_of_images_uses_those_that_both_metrics_scored():
    first, second = make_scores("niqe"), make_scores("musiq", seed=1)
    lost = second.to_pandas()
    lost.loc[:9, ["score", "status"]] = [None, "too_small"]
    second = pa.Table.from_pandas(lost, schema=schemas.SCORES, preserve_index=False)
    rows = build_diagnostics(diagnose_scores("d", [first, second], RULES))
    [row] = rows[rows["measure"] == "spearman_images"].to_dict("records")
    expected = spearmanr(first["score"][10:], second["score"][10:]).statistic
    assert row["value"] == pytest.approx(expected)
    assert (row["n"], row["first"], row["second"]) == (190, "niqe", "musiq")


def test_split_halves_tell_order_from_noise():
    names = tuple(f"c{number:03d}" for number in range(100))
    tables = [make_scores("niqe", 0.1, categories=names), make_scores("musiq", 0, categories=names)]
    rows = build_diagnostics(diagnose_scores("d", tables, RULES))
    halves = rows[rows["measure"].str.startswith("split_half")]
    by_measure = halves.groupby("measure")["quantity"].unique()
    assert by_measure["split_half"].tolist() == ["mean"]
    assert by_measure["split_half_uncorrected"].tolist() == ["max_min"]
    halves = halves.set_index(["metric", "quantity"])
    assert halves["value"]["niqe", "mean"] > 0.95
    assert halves["value"]["musiq", "mean"] < 0.5
    assert halves["value"]["niqe", "max_min"] < 0.5
    assert (halves["low"] <= halves["value"]).all()
    assert (halves["value"] <= halves["high"]).all()
    assert (halves["n"] == 100).all()


def test_too_little_gives_a_reason():
    few = make_scores("niqe", num_images=2, categories=("ant", "bee"))
    single = make_scores("musiq", num_images=1, categories=("ant", "bee"))
    rows = build_diagnostics(
        [
            *diagnose_scores("d", [few, single], RULES),
            *diagnose_category_stats(make_stats(few, single), RULES),
        ]
    )
    assert rows["value"].isna().all()
    assert rows["reason"].str.endswith("3 or more are needed").all()
    assert set(rows["measure"]) == {
        "split_half",
        "split_half_uncorrected",
        "spearman_images",
        "spearman_statistics",
        "spearman_categories",
    }


def test_equal_values_give_a_reason():
    stats = make_stats(make_scores("niqe")).assign(num_images=7)
    rows = build_diagnostics(diagnose_category_stats(stats, RULES))
    constant = rows[rows["second"] == "num_images"]
    assert (constant["reason"] == "one value for all categories").all()
    assert constant["value"].isna().all()
    flat = make_scores("niqe", spread=0).to_pandas().assign(score=1.0)
    table = pa.Table.from_pandas(flat, schema=schemas.SCORES, preserve_index=False)
    halves = build_diagnostics(diagnose_scores("d", [table], RULES)).set_index("quantity")
    assert (halves["reason"] == "one value for all categories of a half").all()


@pytest.mark.parametrize("statistic", ["sd", "max_min"])
def test_categories_with_halves_of_one_image_are_left_out_and_said_to_be(statistic):
    """One category of three images once made the whole row null, for another reason."""
    few, many = make_scores("niqe", num_images=3), make_scores("niqe", seed=1)
    small = few.filter(pa.compute.equal(few["category"], "ant"))
    large = many.filter(pa.compute.not_equal(many["category"], "ant"))
    rules = SubsetRules(k=2, range=statistic)
    both, alone = (
        build_diagnostics(diagnose_scores("d", [table], rules)).set_index("quantity")
        for table in (pa.concat_tables([small, large]), large)
    )
    assert (both["n"]["mean"], both["reason"]["mean"]) == (5, "")
    assert both["n"][statistic] == 4
    assert both["reason"][statistic] == "left out: 1 categories of fewer than 4 scored images"
    assert both["value"][statistic] == alone["value"][statistic]
    assert alone["reason"][statistic] == ""
    tiny = build_diagnostics(diagnose_scores("d", [few], rules)).set_index("quantity")
    assert tiny["reason"][statistic] == "0 categories of 4 or more images; 3 or more are needed"


def test_the_table_follows_its_schema():
    tables = [make_scores("niqe"), make_scores("musiq", seed=1)]
    subsets = make_subsets({("d", "niqe", "avg_high"): ("ant",), ("d", "musiq", "avg_high"): "b"})
    frame = build_diagnostics(
        [
            *diagnose_subsets(subsets),
            *diagnose_category_stats(make_stats(*tables), RULES),
            *diagnose_scores("d", tables, RULES),
        ]
    )
    table = pa.Table.from_pandas(frame, schema=schemas.DIAGNOSTICS, preserve_index=False)
    assert table.num_rows == len(frame) > 0
    assert (frame["value"].isna() == (frame["reason"] != "")).all()
    assert frame["weights"].notna().all()
