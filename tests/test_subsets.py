from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from iqray import schemas
from iqray.categories.subsets import choose_subsets, swap_orientation
from iqray.errors import StudyError
from iqray.settings.subset import SUBSET_NAMES, SubsetRules


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


def test_any_statistic_makes_subsets() -> None:
    sizes = {category: {"median_pixels": 100.0 - MEANS[category]} for category in MEANS}
    names = ["avg_high", "max_min_high", "median_pixels_high", "median_pixels_low"]
    chosen = choose(make_stats(MEANS, RANGES, **sizes), lower_better=True, names=names)
    assert chosen == {
        "avg_high": ["a", "e"],
        "max_min_high": ["a", "b"],
        "median_pixels_high": ["a", "e"],  # no orientation
        "median_pixels_low": ["b", "d"],
    }


def test_disjoint_subsets_share_nothing_and_keep_their_best() -> None:
    categories = "abcdefghijkl"
    generator = np.random.default_rng(3)
    for _ in range(6):
        means, ranges = (
            dict(zip(categories, generator.permutation(12).tolist(), strict=True)) for _ in range(2)
        )
        stats = make_stats(means, ranges)
        chosen = choose(stats, disjoint=True)
        assert sorted(map(len, chosen.values())) == [2] * 4
        assert len(set().union(*chosen.values())) == 8
        assert choose(stats)["avg_high"][0] == chosen["avg_high"][0]  # at equal places it is first


def test_a_contested_category_goes_where_its_place_is_best() -> None:
    means = {"a": 9.0, "b": 8.0, "c": 7.0, "d": 6.0, "e": 1.0, "f": 2.0, "g": 3.0, "h": 4.0}
    ranges = {"a": 8.0, "b": 9.0, "c": 7.0, "d": 6.0, "e": 5.0, "f": 4.0, "g": 3.0, "h": 2.0}
    assert choose(make_stats(means, ranges), disjoint=True) == {
        "avg_high": ["a", "c"],
        "avg_low": ["e", "f"],
        "range_high": ["b", "d"],
        "range_low": ["h", "g"],
    }
    with pytest.raises(StudyError, match=r"7 of 7 .* 4 disjoint subsets need 8"):
        choose(make_stats({key: means[key] for key in "abcdefg"}, ranges), disjoint=True)


@pytest.mark.parametrize("disjoint", [False, True])
def test_the_other_orientation_is_the_same_subsets_by_other_names(disjoint: bool) -> None:
    """Also with ties at the cut."""
    generator = np.random.default_rng(5)
    names = ["median_high", *SUBSET_NAMES, "median_low"]
    for _ in range(6):
        values = [
            dict(zip("abcdefghijklmnop", generator.integers(0, 5, 16).tolist(), strict=True))
            for _ in range(3)
        ]
        medians = {category: {"median": value} for category, value in values[2].items()}
        stats = make_stats(values[0], values[1], **medians)
        rules = {"names": names, "disjoint": disjoint, "lower_better": True}
        native, raw = choose(stats, **rules), choose(stats, **rules, orientation="raw")
        swapped = {new: native[old] for old, new in swap_orientation(names).items()}
        assert swapped == raw


def test_without_a_partner_there_is_no_other_orientation() -> None:
    swapped = swap_orientation(["avg_high", "range_low", "iqr_high"])
    assert swapped == {"range_low": "range_low", "iqr_high": "iqr_high"}


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
