from collections import defaultdict
from typing import Any

import pyarrow as pa
import pytest

from iqray import schemas
from iqray.errors import StudyError
from iqray.study import SubsetRules
from iqray.subsets import choose_subsets


def make_stats(means: dict[str, float], ranges: dict[str, float], **changes: Any) -> pa.Table:
    rows = [
        {
            "dataset": "d",
            "metric": "m",
            "category": category,
            "num_images": 100,
            "num_scored": 100,
            "mean": means[category],
            "max_min": ranges[category],
            "weights": "demo weights",
            **changes.get(category, {}),
        }
        for category in means
    ]
    return pa.Table.from_pylist(rows, schema=schemas.CATEGORY_STATS)


def choose(stats: pa.Table, lower_better: bool = False, **rules: Any) -> dict[str, list[str]]:
    table = choose_subsets(
        stats, SubsetRules(k=2, **rules), {"m": lower_better}, defaultdict(lambda: 7)
    )
    chosen: dict[str, list[str]] = {}
    for row in table.to_pylist():
        chosen.setdefault(row["subset"], []).append(row["category"])
    return chosen


MEANS = {"a": 1.0, "b": 5.0, "c": 3.0, "d": 4.0, "e": 2.0}
RANGES = {"a": 9.0, "b": 8.0, "c": 1.0, "d": 2.0, "e": 5.0}


def test_extremes_of_mean_and_range() -> None:
    assert choose(make_stats(MEANS, RANGES)) == {
        "avg_high": ["b", "d"],
        "avg_low": ["a", "e"],
        "range_high": ["a", "b"],
        "range_low": ["c", "d"],
    }


def test_lower_better_swaps_means_and_leaves_ranges() -> None:
    stats = make_stats(MEANS, RANGES)
    plain, flipped = choose(stats), choose(stats, lower_better=True)
    assert flipped["avg_high"] == plain["avg_low"]
    assert flipped["avg_low"] == plain["avg_high"]
    assert flipped["range_high"] == plain["range_high"]
    assert flipped["range_low"] == plain["range_low"]
    assert choose(stats, lower_better=True, orientation="raw") == plain


def test_ties_go_by_category_name_in_every_subset() -> None:
    equal = dict.fromkeys("edcba", 1.0)
    chosen = choose(make_stats(equal, equal))
    assert set(map(tuple, chosen.values())) == {("a", "b")}


def test_categories_with_too_few_scores_are_left_out() -> None:
    stats = make_stats(MEANS, RANGES, b={"num_scored": 94})
    assert choose(stats)["avg_high"] == ["d", "c"]
    assert choose(stats, min_scored_share=0.94)["avg_high"] == ["b", "d"]


def test_too_few_eligible_categories_are_explained() -> None:
    poor = {category: {"num_scored": 10} for category in "abcd"}
    with pytest.raises(StudyError, match=r"1 of 5 categories have at least 95%.*needs 2"):
        choose(make_stats(MEANS, RANGES, **poor))


def test_fraction_rounds_half_up() -> None:
    rules = SubsetRules(fraction=0.05)
    assert [rules.compute_k(c) for c in (1000, 565, 50, 49, 30)] == [50, 28, 3, 2, 2]
