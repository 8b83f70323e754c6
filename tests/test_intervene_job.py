"""jobs/intervene.py with every kind of change on a small study, from images to effects."""

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from iqray.distortions import distort
from iqray.metrics.scorer import Scorer
from iqray.metrics.weights import find_weights
from iqray.stages.intervention_results import list_current_interventions, list_keys
from iqray.storage import Storage
from tests.small_study import write_study

JOB = Path(__file__).parent.parent / "jobs" / "intervene.py"

# Every kind of change, by the variants that it makes.
CHANGES: dict[str, dict[str, Any]] = {
    "blur-1": {"kind": "blur", "strengths": [1.0]},
    "noise-0.5": {"kind": "noise", "strengths": [0.5]},
    "jpeg-0.8-test": {"kind": "jpeg", "strengths": [0.8], "test_images": "changed"},
    "downscale-0.6": {"kind": "downscale", "strengths": [0.6]},
    "nearest-0.5": {"kind": "nearest", "share": 0.5},
    "farthest-0.5": {"kind": "farthest", "share": 0.5},
    "restore-small_restorer.invert": {"kind": "restore", "function": "small_restorer:invert"},
}
VARIANTS = ["unchanged", "random-0.5", *CHANGES]
CHOSEN = ["random-0.5", "nearest-0.5", "farthest-0.5"]
REPAINTED = [variant for variant in CHANGES if variant not in CHOSEN]


def run_interventions(study: Path) -> str:
    search = [str(study.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(JOB), "--study", str(study)],
        capture_output=True,
        text=True,
        timeout=400,
        env={
            **os.environ,
            "IQRAY_CACHE": str(study.parent / "cache"),
            "PYTHONPATH": os.pathsep.join(search),
        },
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_subset_is_changed_scored_and_trained_on(inputs: Path, tmp_path: Path) -> None:
    """Four training and two test images in each of the subset's two categories."""
    (tmp_path / "small_restorer.py").write_text("def invert(image):\n    return 255 - image\n")
    where = {"dataset": "d", "metric": "brisque", "subset": "avg_high"}
    study = write_study(
        inputs,
        tmp_path / "out",
        metrics=["brisque"],
        controls={"count_matched": 1},  # of the grid; a changed subset has no other categories
        training={"save_models": False},
        interventions=[{**where, "changes": list(CHANGES.values())}],
    )
    text = run_interventions(study)
    assert f"trials       {len(VARIANTS)} of {len(VARIANTS)} trials" in text
    base = tmp_path / "out/interventions/d-brisque-avg_high"
    check_categories(base, tmp_path / "out")
    check_images(base, tmp_path / "out", inputs / "images")
    check_choices(base, tmp_path / "out")
    check_scores(base, tmp_path / "out")
    check_test_scores(base, inputs / "weights")
    check_effects(base)

    storage = Storage(str(tmp_path / "out"))
    folder = "interventions/d-brisque-avg_high"
    assert list_current_interventions(storage) == [folder]  # what a report shows
    assert storage.read_key(f"{folder}/effects.parquet") in list_keys(storage)

    written_ns = {path: path.stat().st_mtime_ns for path in base.rglob("*.parquet")}
    again = run_interventions(study)
    assert f"trials       {len(VARIANTS)} of {len(VARIANTS)} trials, all there before" in again
    assert "dashboard" not in again  # Ray was not needed
    assert {path: path.stat().st_mtime_ns for path in base.rglob("*.parquet")} == written_ns


def list_categories(root: Path) -> list[str]:
    subsets = pd.read_parquet(root / "subsets.parquet")
    return sorted(subsets.loc[subsets["subset"] == "avg_high", "category"])


def check_categories(base: Path, root: Path) -> None:
    trained = pd.read_parquet(base / "subsets.parquet").groupby("dataset")["category"].agg(sorted)
    assert trained.to_dict() == dict.fromkeys(VARIANTS, list_categories(root))
    for variant in VARIANTS:
        manifest = pd.read_parquet(base / f"manifest/{variant}.parquet")
        found = manifest.groupby("split")["category"].agg(lambda own: sorted(own.unique()))
        assert found.to_dict() == dict.fromkeys(["test", "train"], list_categories(root))


def read_derived(base: Path, variant: str, split: str) -> pd.DataFrame:
    """Paths, categories and encoded images of a derived dataset's split, by path."""
    [folder] = base.glob(f"images/{variant}-{'?' * 12}")
    return pd.read_parquet(folder / split).sort_values("path")


def decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def change_again(pixels: np.ndarray, variant: str, image_id: int) -> np.ndarray:
    kind, amount, *_ = variant.split("-")
    if kind == "restore":
        return 255 - pixels
    return distort(pixels, kind, float(amount), np.random.default_rng(image_id))


def measure_roughness(images: Iterable[np.ndarray]) -> float:
    """Mean difference between neighbouring pixels."""
    return float(np.mean([np.abs(np.diff(own.astype(float), axis=1)).mean() for own in images]))


def check_images(base: Path, root: Path, originals: Path) -> None:
    """Paths are the user's own; pixels are changed as asked, bytes only where asked."""
    ids = pd.read_parquet(root / "manifest/d.parquet").set_index("path")["image_id"]
    roughness = {}
    for variant in VARIANTS:
        derived = read_derived(base, variant, "train")
        for path, data in zip(derived["path"], derived["image"], strict=True):
            original = (originals / path).read_bytes()
            if variant in REPAINTED:
                expected = change_again(decode(original), variant, ids[path])
                np.testing.assert_array_equal(decode(data), expected, err_msg=f"{variant} {path}")
            else:
                assert data == original, (variant, path)
        roughness[variant] = measure_roughness(map(decode, derived["image"]))
    assert roughness["blur-1"] < roughness["unchanged"] < roughness["noise-0.5"]
    assert roughness["downscale-0.6"] < roughness["unchanged"]

    manifests = {name: pd.read_parquet(base / f"manifest/{name}.parquet") for name in VARIANTS}
    sums = {name: own.set_index(["split", "path"])["sha256"] for name, own in manifests.items()}
    untouched = {
        path: hashlib.sha256((originals / path).read_bytes()).hexdigest()
        for path in sums["unchanged"]["test"].index
    }
    assert len(untouched) == 4
    for variant in VARIANTS:
        found = sums[variant]["test"].to_dict()
        assert set(found) == set(untouched)
        if variant == "jpeg-0.8-test":
            assert not set(found.values()) & set(untouched.values())
        else:
            assert found == untouched, variant
        if variant not in CHOSEN:
            assert set(sums[variant]["train"].index) == set(sums["unchanged"]["train"].index)


def check_choices(base: Path, root: Path) -> None:
    """Half of each category's four images: by the scores of the study, counted by hand here."""
    kept = {name: read_derived(base, name, "train") for name in CHOSEN}
    scores = pd.read_parquet(root / "scores/d/brisque").set_index("path")
    for category in list_categories(root):
        own = scores.loc[scores["category"] == category, "score"]
        apart = (own - own.mean()).abs()
        found = {
            name: sorted(apart[each.loc[each["category"] == category, "path"]])
            for name, each in kept.items()
        }
        assert found["nearest-0.5"] == sorted(apart)[:2]
        assert found["farthest-0.5"] == sorted(apart)[2:]
        assert len(found["random-0.5"]) == 2


def read_measured(base: Path, split: str) -> pd.DataFrame:
    scores = pd.read_csv(base / "measured_scores.csv")
    assert (scores["scored_by"] == "brisque").all()
    assert (scores["num_scored"] == scores["num_images"]).all()
    return scores[scores["split"] == split].set_index("variant")


def check_scores(base: Path, root: Path) -> None:
    """Of the training images."""
    scores = read_measured(base, "train")
    assert scores["num_images"].to_dict() == {
        variant: 4 if variant in CHOSEN else 8 for variant in VARIANTS
    }
    before = pd.read_parquet(root / "category_stats.parquet").set_index("category")
    before = before.loc[list_categories(root)]
    assert scores.loc["unchanged", "average"] == pytest.approx(before["mean"].mean())
    assert scores.loc["unchanged", "range"] == pytest.approx(before["max_min"].mean())
    assert (scores.loc[REPAINTED, "average_difference"] != 0).all()
    assert (scores.loc[["unchanged", "random-0.5"], "average_difference"] == 0).all()
    # Of four numbers the two farthest from their mean lie on either side of it.
    assert scores.loc["farthest-0.5", "range_difference"] >= 0
    assert scores.loc["nearest-0.5", "range"] < scores.loc["farthest-0.5", "range"]
    for measure in ("average", "range"):
        moved = scores[measure] - scores[measure].loc[list(scores["control"])].to_numpy()
        np.testing.assert_allclose(scores[f"{measure}_difference"], moved, rtol=0, atol=1e-9)


def check_test_scores(base: Path, weights: Path) -> None:
    """Of changed test images and of untouched ones, scored here once more; of no others."""
    scores = read_measured(base, "test")
    assert scores.index.to_list() == ["unchanged", "jpeg-0.8-test"]
    scorer = Scorer(find_weights(str(weights), "brisque"))
    expected = {}
    for variant in scores.index:
        derived = read_derived(base, variant, "test")
        results = scorer.score([decode(data) for data in derived["image"]])
        groups = pd.Series([own.score for own in results]).groupby(derived["category"].to_numpy())
        extent = (groups.max() - groups.min()).mean()
        expected[variant] = np.array([groups.mean().mean(), extent], dtype=float)
        assert scores.loc[variant, "num_images"] == 4
        found = scores.loc[variant, ["average", "range"]].to_numpy(dtype=float)
        np.testing.assert_allclose(found, expected[variant], rtol=1e-5)
    moved = scores.loc["jpeg-0.8-test", ["average_difference", "range_difference"]]
    apart = expected["jpeg-0.8-test"] - expected["unchanged"]
    np.testing.assert_allclose(moved.to_numpy(dtype=float), apart, rtol=1e-3, atol=1e-3)
    assert moved["average_difference"] != 0


def check_effects(base: Path) -> None:
    effects = pd.read_parquet(base / "effects.parquet").set_index("variant")
    assert effects.index.to_list() == VARIANTS
    assert (effects["status"] == "ok").all()
    controls = {variant: "random-0.5" if variant in CHOSEN else "unchanged" for variant in VARIANTS}
    assert effects["control"].to_dict() == controls
    for measure in ("top1", "distance"):
        moved = effects[measure] - effects[measure].loc[list(controls.values())].to_numpy()
        np.testing.assert_allclose(effects[f"{measure}_difference"], moved, rtol=0, atol=1e-6)
