"""jobs/score.py on a folder of images, as a user without a study file calls it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import make_pixels
from tests.metric_weights import write_random_weights
from tests.small_study import TIMEOUT_S

JOB = Path(__file__).parent.parent / "jobs" / "score.py"


def score(folder: Path, images: str) -> pd.DataFrame:
    command = [sys.executable, str(JOB), "--images", images, "--weights", str(folder / "weights")]
    done = subprocess.run(
        [*command, "--metrics", "brisque"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [root] = (folder / "outputs").iterdir()
    assert root.name.startswith("photos-")
    return pd.read_parquet(root / "scores").sort_values("path")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paths", "categories"),
    [
        (["1.jpg", "2.png", "3.jpg", "4.jpg"], ["photos"] * 4),
        (["1.jpg", "a/2.jpg", "a/b/3.jpg", "c/4.jpg"], ["photos", "a", "a", "c"]),
    ],
    ids=["flat", "nested"],
)
def test_every_image_of_a_folder_gets_a_score(
    paths: list[str], categories: list[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for path in paths:
        target = tmp_path / "photos" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_pixels(rng, 112, 96)).save(target)
    (tmp_path / "weights").mkdir()
    write_random_weights(tmp_path / "weights")
    rows = score(tmp_path, "photos")
    assert rows["path"].tolist() == paths
    assert rows["category"].tolist() == categories
    assert (rows["status"] == "ok").all()
    assert np.isfinite(rows["score"]).all()
