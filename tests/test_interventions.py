"""Interventions: what is chosen and changed, and a small one from images to effects."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from iqray.errors import StudyError
from iqray.interventions.image_changes import change_pixels, encode_png, load_function
from iqray.interventions.interventions import choose_images
from iqray.settings.intervention import Variant
from iqray.stages.intervention_results import list_current_interventions, list_keys
from iqray.storage import Storage
from iqray.study_file import parse_study
from tests.small_study import write_study

JOB = Path(__file__).parent.parent / "jobs" / "intervene.py"
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
    monkeypatch.syspath_prepend(str(tmp_path))
    restored = change_pixels(PIXELS, Variant("restore", function="my_restorer:invert"), 1, "x.jpg")
    np.testing.assert_array_equal(restored, 255 - PIXELS)
    with pytest.raises(StudyError, match=r"lose returns float64 of shape .* for 'x.jpg'"):
        change_pixels(PIXELS, Variant("restore", function="my_restorer:lose"), 1, "x.jpg")
    with pytest.raises(StudyError, match=r"fail fails on 'x.jpg'.*no memory"):
        change_pixels(PIXELS, Variant("restore", function="my_restorer:fail"), 1, "x.jpg")
    for name in ("my_restorer:nothing", "no_such_module:invert", "my_restorer"):
        with pytest.raises(StudyError, match="cannot be imported"):
            load_function(name)


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


def run_interventions(study: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(JOB), "--study", str(study)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "IQRAY_CACHE": str(study.parent / "cache")},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_subset_is_changed_scored_and_trained_on(inputs: Path, tmp_path: Path) -> None:
    changes = [
        {"kind": "blur", "strengths": [1.0]},
        {"kind": "blur", "strengths": [0.3], "test_images": "changed"},
        {"kind": "nearest", "share": 0.5},
    ]
    where = {"dataset": "d", "metric": "brisque", "subset": "avg_high"}
    study = write_study(
        inputs,
        tmp_path / "out",
        metrics=["brisque"],
        controls={"count_matched": 1},  # of the grid; a changed subset has no other categories
        interventions=[{**where, "changes": changes}],
    )
    text = run_interventions(study)
    base = tmp_path / "out/interventions/d-brisque-avg_high"
    effects = pd.read_parquet(base / "effects.parquet").set_index("variant")
    variants = ["unchanged", "random-0.5", "blur-1", "blur-0.3-test", "nearest-0.5"]
    assert effects.index.to_list() == variants
    assert (effects["status"] == "ok").all()
    assert effects.loc["nearest-0.5", "control"] == "random-0.5"
    expected = effects.loc["blur-1", "distance"] - effects.loc["unchanged", "distance"]
    assert effects.loc["blur-1", "distance_difference"] == pytest.approx(expected)
    assert effects.loc["unchanged", "top1_difference"] == 0

    scores = pd.read_csv(base / "measured_scores.csv").set_index("variant")
    assert scores["num_images"].to_list() == [8, 4, 8, 8, 4]
    assert scores.loc["blur-1", "average_difference"] != 0
    before = pd.read_parquet(tmp_path / "out/category_stats.parquet")
    own = pd.read_parquet(tmp_path / "out/subsets.parquet").query("subset == 'avg_high'")
    mean = before[before["category"].isin(own["category"])]["mean"].mean()
    assert scores.loc["unchanged", "average"] == pytest.approx(mean)

    manifests = {name: pd.read_parquet(base / f"manifest/{name}.parquet") for name in variants}
    sums = {name: frame.set_index(["split", "path"])["sha256"] for name, frame in manifests.items()}
    assert set(sums["blur-1"].index) == set(sums["unchanged"].index)  # paths are the user's own
    assert sums["blur-1"]["test"].equals(sums["unchanged"]["test"])
    assert not set(sums["blur-1"]["train"]) & set(sums["unchanged"]["train"])
    assert not set(sums["blur-0.3-test"]["test"]) & set(sums["unchanged"]["test"])
    assert set(sums["nearest-0.5"]["train"]) < set(sums["unchanged"]["train"])
    assert "trials       5 of 5 trials" in text

    storage = Storage(str(tmp_path / "out"))
    folder = "interventions/d-brisque-avg_high"
    assert list_current_interventions(storage) == [folder]  # what a report shows
    assert storage.read_key(f"{folder}/effects.parquet") in list_keys(storage)

    again = run_interventions(study)
    assert "trials       5 of 5 trials, all there before" in again
    assert "dashboard" not in again  # Ray was not needed
