"""Lower precision behind the rank gate, as a whole: the real job with bfloat16 on the CPU."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

from iqray import schemas
from iqray.categories.category_stats import compute_category_stats
from iqray.categories.subsets import choose_subsets
from iqray.scoring.gate import MIN_SPEARMAN, make_gate_key
from iqray.scoring.gated_scores import _replace_rows
from iqray.settings.subset import SubsetRules
from tests.conftest import make_pixels
from tests.small_study import TIMEOUT_S, write_study

JOB = Path(__file__).parent.parent / "jobs" / "score.py"
RULES = SubsetRules(k=2)
NUM_CATEGORIES = 40


def make_rows(scores: list[float], precision: str, first_id: int = 0) -> pa.Table:
    rows = [
        {"image_id": first_id + index, "score": score, "precision": precision}
        for index, score in enumerate(scores)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.SCORES)


def test_exact_rows_take_the_place_of_their_images() -> None:
    lower = make_rows([0.0, 1.0, 2.0, 3.0], "bf16")
    exact = make_rows([9.0, 8.0], "fp32", first_id=2)
    merged = _replace_rows(lower, exact)
    assert merged["image_id"].to_pylist() == [0, 1, 2, 3]
    assert merged["score"].to_pylist() == [0.0, 1.0, 9.0, 8.0]
    assert merged["precision"].to_pylist() == ["bf16", "bf16", "fp32", "fp32"]
    assert merged.schema.equals(schemas.SCORES)


def test_rules_and_images_that_move_a_cut_change_the_gate() -> None:
    key = make_gate_key(RULES, ["a"])
    assert key != make_gate_key(SubsetRules(k=3), ["a"])
    assert key != make_gate_key(SubsetRules(k=2, range="iqr"), ["a"])
    assert key != make_gate_key(RULES, ["a", "b"])
    assert key == make_gate_key(SubsetRules(k=2, orientation="raw"), ["a"])


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Categories from sharp to blurred, whose scores spread."""
    folder = tmp_path_factory.mktemp("graded")
    rng = np.random.default_rng(0)
    for category in range(NUM_CATEGORIES):
        for number in range(3):
            path = folder / "train" / f"c{category:02d}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(make_pixels(rng, 112, 96))
            image.filter(ImageFilter.GaussianBlur(category / 12)).save(path)
    return folder


def score(inputs: Path, images: Path, root: Path, precision: str) -> str:
    study = write_study(
        inputs,
        root,
        datasets=[{"name": "d", "root": str(images), "test": None}],
        metrics=["brisque", "cnniqa"],
        scoring={"shard_size": 16, "precision": precision},
    )
    command = [sys.executable, str(JOB), "--study", str(study)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def choose(root: Path, metric: str) -> pd.DataFrame:
    scores = pa.Table.from_pandas(
        pd.read_parquet(root / "scores" / "d" / metric), schema=schemas.SCORES
    )
    counts = {
        ("d", split, f"c{category:02d}"): 3
        for split in ("train", "test")
        for category in range(NUM_CATEGORIES)
    }
    chosen = choose_subsets(
        compute_category_stats(scores), RULES, {"cnniqa": False, "brisque": True}, counts
    )
    return chosen.to_pandas()[["subset", "position", "category"]]


@pytest.mark.slow
def test_subsets_of_lower_precision_are_those_of_full(
    inputs: Path, graded: Path, tmp_path: Path
) -> None:
    full, gated = tmp_path / "full", tmp_path / "gated"
    score(inputs, graded, full, "fp32")
    text = score(inputs, graded, gated, "bf16")
    for metric in ("brisque", "cnniqa"):
        a, b = choose(full, metric), choose(gated, metric)
        assert (
            a.groupby("subset")["category"]
            .agg(set)
            .equals(b.groupby("subset")["category"].agg(set))
        )

    exact = pd.read_parquet(full / "scores/d/cnniqa").set_index("path")["score"]
    rows = pd.read_parquet(gated / "scores/d/cnniqa").set_index("path")
    assert len(rows) == 3 * NUM_CATEGORIES
    rescored = rows["precision"] == "fp32"
    np.testing.assert_allclose(rows["score"][rescored], exact[rows.index[rescored]], rtol=1e-5)
    record = json.loads((gated / "scores/d/cnniqa/_complete.json").read_text())["gate"]
    assert record["num_categories_in_full_precision"] == rows[rescored]["category"].nunique()
    if record["spearman"] >= MIN_SPEARMAN:
        assert (rows["precision"] == "bf16").any()
        assert (rows["score"][~rescored] != exact[rows.index[~rescored]]).any()
    assert f"rank gate    d/cnniqa: {record['num_categories_in_full_precision']} of 40" in text
    assert (pd.read_parquet(gated / "scores/d/brisque")["precision"] == "fp32").all()

    # Killed when one category was scored in full: the errors of one tell nothing of the others'.
    shutil.rmtree(gated / "scores/d/cnniqa")
    for path in sorted((gated / "gate/exact/d/cnniqa").glob("*.parquet"))[1:]:
        path.unlink()
    score(inputs, graded, gated, "bf16")
    assert json.loads((gated / "scores/d/cnniqa/_complete.json").read_text())["gate"] == record
    pd.testing.assert_frame_equal(choose(gated, "cnniqa"), b)

    before = {path: path.stat().st_mtime_ns for path in (gated / "scores").rglob("*.parquet")}
    assert "all there before" in score(inputs, graded, gated, "bf16")
    assert before == {path: path.stat().st_mtime_ns for path in before}
