"""Interventions: what is chosen and changed, and how scores are compared."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from iqray.errors import StudyError
from iqray.interventions.image_changes import (
    change_pixels,
    encode_png,
    hash_function,
    load_function,
)
from iqray.interventions.interventions import choose_images, summarise_scores
from iqray.settings.intervention import Intervention, Variant
from iqray.study_file import parse_study

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)


@pytest.fixture
def scores() -> pd.DataFrame:
    values = {"a": [1.0, 2, 3, 4, 10], "b": [5.0, 5, 6, 9], "c": [7.0]}
    rows = [(name, score) for name, own in values.items() for score in own]
    frame = pd.DataFrame(rows, columns=["category", "score"])
    return frame.assign(status="ok", image_id=np.random.default_rng(1).permutation(10))


def test_choices_take_equally_many_and_narrow_or_widen_the_range(scores: pd.DataFrame) -> None:
    scores["apart"] = (
        scores["score"] - scores.groupby("category")["score"].transform("mean")
    ).abs()
    found = {}
    for choice in ("nearest", "random", "farthest"):
        kept = scores[scores["image_id"].isin(choose_images(scores, choice, 0.6))]
        assert kept["category"].value_counts().to_dict() == {"a": 3, "b": 2, "c": 1}
        found[choice] = kept.groupby("category")["apart"].mean()
        if choice == "nearest":
            assert set(kept.loc[kept["category"] == "a", "score"]) == {2, 3, 4}
    assert (found["nearest"] <= found["random"]).all()
    assert (found["random"] <= found["farthest"]).all()
    assert found["nearest"]["a"] < found["farthest"]["a"]


def test_images_without_a_score_are_never_chosen(scores: pd.DataFrame) -> None:
    scores.loc[4, "status"] = "truncated"
    lost = int(scores.loc[4, "image_id"])
    for choice in ("nearest", "random", "farthest"):
        assert lost not in choose_images(scores, choice, 0.9)


def test_noise_is_an_images_own_and_grows_with_its_strength() -> None:
    weak, again, strong, other = (
        change_pixels(PIXELS, Variant("noise", amount), image_id, "x")
        for amount, image_id in ((0.1, 5), (0.1, 5), (0.9, 5), (0.1, 6))
    )
    np.testing.assert_array_equal(weak, again)
    assert not np.array_equal(weak, other)
    apart = [np.abs(each.astype(int) - PIXELS).mean() for each in (weak, strong)]
    assert 0 < apart[0] < apart[1]


def test_png_keeps_every_pixel() -> None:
    with Image.open(io.BytesIO(encode_png(PIXELS))) as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS)


def test_restoring_takes_a_function_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_restorer.py").write_text(
        "def invert(image):\n    return 255 - image\n\n"
        "def lose(image):\n    return image / 2\n\n"
        "def fail(image):\n    raise ValueError('no memory')\n"
    )
    (tmp_path / "my_broken_restorer.py").write_text("def invert(image)\n    return image\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    restored = change_pixels(PIXELS, Variant("restore", function="my_restorer:invert"), 1, "x.jpg")
    np.testing.assert_array_equal(restored, 255 - PIXELS)
    with pytest.raises(StudyError, match=r"lose returns float64 of shape .* for 'x.jpg'"):
        change_pixels(PIXELS, Variant("restore", function="my_restorer:lose"), 1, "x.jpg")
    with pytest.raises(StudyError, match=r"fail fails on 'x.jpg'.*no memory"):
        change_pixels(PIXELS, Variant("restore", function="my_restorer:fail"), 1, "x.jpg")
    for name in (
        "my_restorer:nothing",
        "no_such_module:invert",
        "my_restorer",
        "my_broken_restorer:invert",
    ):
        with pytest.raises(StudyError, match="cannot be imported"):
            load_function(name)


def test_a_function_is_known_by_all_that_it_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_keyed_restorer.py").write_text("def keep(image):\n    return image\n")
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"first")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "my_keyed_restorer:keep"
    alone, first = hash_function(name), hash_function(name, [str(weights)])
    weights.rename(tmp_path / "moved.bin")
    assert hash_function(name, [str(tmp_path / "moved.bin")]) == first != alone
    weights.write_bytes(b"second")
    assert hash_function(name, [str(weights)]) not in (alone, first)
    with pytest.raises(StudyError, match=r"depends on '.*nowhere.bin', which cannot be read"):
        hash_function(name, [str(tmp_path / "nowhere.bin")])


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        ({"dataset": "moon"}, "dataset 'moon', which the study has not; choose from d"),
        ({"changes": [{"kind": "blur"}]}, "change blur has strengths and no other"),
        ({"changes": [{"kind": "blur", "strengths": [1.5]}]}, "above 0 and at most 1"),
        ({"changes": [{"kind": "nearest", "strengths": [1]}]}, "nearest has share and no other"),
        (
            {"changes": [{"kind": "nearest", "share": 0.5, "test_images": "changed"}]},
            "leave test_images untouched",
        ),
        ({"changes": [{"kind": "blur", "strengths": [1], "files": ["a"]}]}, "blur has no files"),
    ],
)
def test_mistakes_in_the_study_say_what_to_give(intervention: dict, message: str) -> None:
    whole = {
        "dataset": "d",
        "metric": "brisque",
        "subset": "avg_high",
        "changes": [{"kind": "blur", "strengths": [0.5]}],
        **intervention,
    }
    content = {
        "name": "s",
        "root": "out",
        "datasets": [{"name": "d", "root": "images"}],
        "recipe": "demo",
        "weights": {"directory": "w"},
        "interventions": [whole],
    }
    with pytest.raises(StudyError, match=message):
        parse_study(content)


def make_stats(values: dict[str, list[tuple[float, float]]]) -> pd.DataFrame:
    """Rows of category statistics: by variant the average and the range of two categories."""
    rows = [
        (variant, "niqe", category, 4, 4, average, extent, "w")
        for variant, own in values.items()
        for category, (average, extent) in zip("ab", own, strict=True)
    ]
    columns = ["dataset", "metric", "category", "num_images", "num_scored", "mean", "max_min"]
    return pd.DataFrame(rows, columns=[*columns, "weights"])


def test_scores_are_compared_within_a_split() -> None:
    blur = {"kind": "blur", "strengths": [0.5]}
    intervention = Intervention(
        dataset="d",
        metric="niqe",
        subset="avg_high",
        changes=[{**blur, "test_images": "changed"}, {"kind": "nearest", "share": 0.5}],
    )
    stats = {
        "train": make_stats(
            {
                "unchanged": [(1, 4), (3, 6)],
                "random-0.5": [(2, 3), (2, 5)],
                "blur-0.5-test": [(8, 2), (8, 1)],
                "nearest-0.5": [(2, 1), (2, 1)],
            }
        ),
        "test": make_stats({"unchanged": [(1, 1), (2, 1)], "blur-0.5-test": [(4, 3), (5, 3)]}),
    }
    table = summarise_scores(intervention, stats, "mean", "max_min")
    found = table.set_index(["split", "variant"])[["average_difference", "range_difference"]]
    assert {key: tuple(row) for key, row in zip(found.index, found.to_numpy(), strict=True)} == {
        ("train", "unchanged"): (0, 0),
        ("train", "random-0.5"): (0, 0),  # a control, and its own
        ("train", "blur-0.5-test"): (6, -3.5),
        ("train", "nearest-0.5"): (0, -3),
        ("test", "unchanged"): (0, 0),
        ("test", "blur-0.5-test"): (3, 2),
    }
    assert (table["num_images"] == 8).all()
