"""Halves of a category's images are disjoint, equally large and in order of quality."""

import numpy as np
import pandas as pd
import pytest

from iqray.categories.image_halves import split_halves
from iqray.errors import StudyError


def make_scores(counts, values=None):
    """Scores that are drawn, with image ids in no order of them."""
    generator = np.random.default_rng(3)
    categories = [name for name, count in counts.items() for _ in range(count)]
    num = len(categories)
    return pd.DataFrame(
        {
            "dataset": "d",
            "metric": "m",
            "image_id": generator.permutation(num),
            "category": categories,
            "score": generator.normal(size=num) if values is None else values,
        }
    ).sample(frac=1, random_state=0)


@pytest.mark.parametrize("lower_better", [False, True])
def test_halves_are_what_a_plain_loop_gives(lower_better):
    scores = make_scores({"a": 6, "b": 7, "c": 2, "d": 3})
    halves = split_halves(scores, lower_better)
    for category, own in scores.groupby("category"):
        images = sorted(zip(own["score"], own["image_id"], strict=True), reverse=not lower_better)
        ids = [image_id for _, image_id in images]
        half = len(ids) // 2
        for name, expected in (("best_half", ids[:half]), ("worst_half", ids[len(ids) - half :])):
            table = halves[name].to_pandas()
            assert table.loc[table["category"] == category, "image_id"].tolist() == expected


def test_swapping_the_orientation_swaps_the_halves():
    scores = make_scores({"a": 8, "b": 5})
    up, down = split_halves(scores, False), split_halves(scores, True)
    for name, other in (("best_half", "worst_half"), ("worst_half", "best_half")):
        assert set(up[name]["image_id"].to_pylist()) == set(down[other]["image_id"].to_pylist())


@pytest.mark.parametrize("lower_better", [False, True])
def test_equal_scores_are_ordered_by_image_id(lower_better):
    halves = split_halves(make_scores({"a": 5}, values=1.0), lower_better)
    assert halves["best_half"]["image_id"].to_pylist() == [0, 1]
    assert halves["worst_half"]["image_id"].to_pylist() == [3, 4]


def test_a_category_of_one_image_is_explained():
    with pytest.raises(
        StudyError, match=r"image_halves: category 'b' of 'd' has one .* score of m"
    ):
        split_halves(make_scores({"a": 4, "b": 1}), False)
