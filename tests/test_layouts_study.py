"""A whole study over the same images in three layouts: the results must be the same."""

from pathlib import Path

import pandas as pd
import pytest

from tests.layout_files import LAYOUTS, write_folders, write_parquet, write_tars
from tests.small_study import write_study
from tests.test_full_grid import run_job


@pytest.mark.slow
def test_results_do_not_depend_on_the_layout(inputs: Path, tmp_path: Path) -> None:
    # Names that do not repeat: the order of an image's paths in its category decides when it is
    # trained on, and repeated names in tar files get their shard in front.
    images = {
        f"{path.parts[-3]}/{path.parts[-2]}/{path.parts[-3]}_{path.name}": path.read_bytes()
        for path in sorted((inputs / "images").rglob("*.jpg"))
    }
    write_folders(tmp_path / "folders", images)
    write_parquet(tmp_path / "parquet", images, row_group_size=5)
    write_tars(tmp_path / "tars", images, shard_size=100)
    roots = {
        "folders": str(tmp_path / "folders"),
        "parquet": (tmp_path / "parquet").as_uri(),
        "webdataset": str(tmp_path / "tars"),
    }
    datasets = [
        {"name": layout, "layout": layout, "root": roots[layout], **LAYOUTS[layout]}
        for layout in LAYOUTS
    ]
    study = write_study(inputs, tmp_path / "out", datasets=datasets, metrics=["brisque"])
    done = run_job(study, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "duplicates   72 images repeat another: 72 across datasets\n" in done.stdout

    cells = pd.read_parquet(tmp_path / "out/results/cells.parquet")
    cells = cells.sort_values(["subset", "dataset"])
    assert (cells["status"] == "ok").all()
    for name in ("top1", "top5", "distance", "final_loss", "num_test_images"):
        assert (cells.groupby("subset")[name].nunique() == 1).all(), name
    duplicates = pd.read_csv(tmp_path / "out/manifest/duplicates.csv")
    assert len(duplicates) == 3 * 36
    assert set(duplicates["kind"]) == {"across datasets"}
    page = (tmp_path / "out/report/index.html").read_text()
    assert "72 images repeat another: 72 across datasets. manifest/duplicates.csv lists all" in page
