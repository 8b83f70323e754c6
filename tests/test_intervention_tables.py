"""What the page says of interventions follows their tables, of subsets as they are chosen now."""

import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from iqray import schemas
from iqray.report.intervention_tables import tabulate_changed_scores, tabulate_interventions
from iqray.stages.intervention_results import list_current_interventions, list_keys
from iqray.stages.report import make_report_key
from iqray.storage import Storage
from jobs.report import main

NAME = "d_one-musiq-avg_high"
WHERE = {"dataset": "d_one", "metric": "musiq", "subset": "avg_high"}


@pytest.fixture
def effects() -> pd.DataFrame:
    """Two architectures; of the second the changed trial has failed."""
    rows = [
        {**WHERE, "variant": variant, "control": "unchanged", "architecture": architecture}
        for variant in ("unchanged", "blur-0.5")
        for architecture in ("alexnet", "vgg16")
    ]
    frame = pd.DataFrame(rows, columns=schemas.INTERVENTION_EFFECTS.names)
    frame = frame.assign(seed=0, trial_id=["a", "b", "c", "d"], status=["ok"] * 3 + ["failed"])
    differences = {"top1_difference": [0, 0, -0.25, None], "top5_difference": [0, 0, -0.5, None]}
    return frame.assign(**differences, distance_difference=[0, 0, 3.0, None], weights="w")


@pytest.fixture
def scores() -> pd.DataFrame:
    """Test images were changed as well, and moved less; the other metric is no row of the page."""
    rows = [
        {**WHERE, "variant": variant, "split": split, "scored_by": metric, "average": average}
        for variant, split, metric, average in (
            ("unchanged", "train", "musiq", 60.0),
            ("blur-0.5", "train", "musiq", 40.0),
            ("blur-0.5", "train", "brisque", 7.0),
            ("unchanged", "test", "musiq", 55.0),
            ("blur-0.5", "test", "musiq", 50.0),
        )
    ]
    frame = pd.DataFrame(rows, columns=schemas.INTERVENTION_SCORES.names)
    frame = frame.assign(control="unchanged", num_images=8, num_scored=8, range=9.0, weights="w")
    differences = {
        "average_difference": [0, -20.0, 1, 0, -5],
        "range_difference": [0, -3.0, 1, 0, 2],
    }
    return frame.assign(**differences)


def test_measured_scores_are_the_own_metrics_of_either_split(scores: pd.DataFrame) -> None:
    table = tabulate_changed_scores(scores).frame.set_index(["split", "variant"])
    assert table.index.to_list() == [
        (split, variant) for split in ("train", "test") for variant in ("unchanged", "blur-0.5")
    ]
    assert table["mean score"].to_list() == [60, 40, 55, 50]
    assert table["score difference"].to_list() == [0, -20, 0, -5]
    assert table["range difference"].to_list() == [0, -3, 0, 2]


def test_effects_stand_beside_the_training_images_scores_and_are_means_over_pairs(
    effects: pd.DataFrame, scores: pd.DataFrame
) -> None:
    table = tabulate_interventions(effects, scores).frame.set_index("variant")
    assert table.index.to_list() == ["unchanged", "blur-0.5"]
    changed = table.loc["blur-0.5"]
    assert (changed["score difference"], changed["range difference"]) == (-20, -3)
    assert (changed["num_trials"], changed["num_compared"]) == (2, 1)
    assert changed["top-1 difference"] == -0.25
    assert changed["distance difference"] == 3
    assert (table.loc["unchanged", ["top-1 difference", "top-5 difference"]] == 0).all()


def write_intervention(
    root: Path, effects: pd.DataFrame, scores: pd.DataFrame, categories: list[str]
) -> Storage:
    storage = Storage(str(root))
    own = storage.below(f"interventions/{NAME}")
    for path, frame, schema in (
        ("effects.parquet", effects, schemas.INTERVENTION_EFFECTS),
        ("measured_scores.parquet", scores, schemas.INTERVENTION_SCORES),
    ):
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        own.write_table(path, table, key="k")
    own.write_table("subsets.parquet", pa.table({"category": categories}))
    return storage


def test_tables_that_an_older_version_has_written_are_left_out(
    tmp_path: Path, effects: pd.DataFrame, scores: pd.DataFrame
) -> None:
    storage = write_intervention(tmp_path / "root", effects, scores, ["ant"])
    subsets = pa.table({**{name: [value] for name, value in WHERE.items()}, "category": ["ant"]})
    storage.write_table("subsets.parquet", subsets)
    assert list_current_interventions(storage) == [f"interventions/{NAME}"]
    path = f"interventions/{NAME}/measured_scores.parquet"
    storage.write_table(path, storage.read_table(path).drop_columns(["split"]), key="k")
    assert list_current_interventions(storage) == []


def test_the_page_shows_interventions_on_subsets_as_they_are(
    report_root: Path, tmp_path: Path, effects: pd.DataFrame, scores: pd.DataFrame
) -> None:
    root = shutil.copytree(
        report_root, tmp_path / "root", ignore=shutil.ignore_patterns("report", "trials", "data")
    )
    plain = make_report_key(Storage(str(root)))
    chosen = pd.read_parquet(root / "subsets.parquet")
    chosen = chosen[(chosen[list(WHERE)] == pd.Series(WHERE)).all(axis="columns")]
    categories = chosen["category"].to_list()

    storage = write_intervention(root, effects, scores, categories[1:])
    assert list_current_interventions(storage) == []  # on another choice of categories
    assert make_report_key(storage) == plain

    write_intervention(root, effects, scores, categories)
    assert list_keys(storage) == ["k", "k"]
    assert make_report_key(storage) != plain
    main(["--root", str(root)])
    page = (root / "report/index.html").read_text()
    assert '<h2 id="interventions">' in page
    assert "blur-0.5" in page
    table = pd.read_parquet(root / "report/tables/interventions.parquet")
    assert table["score difference"].to_list() == [0, -20]
    table = pd.read_parquet(root / "report/tables/changed_scores.parquet")
    assert table["split"].to_list() == ["train", "train", "test", "test"]
