import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from iqray import schemas
from iqray.control_trials import plan_controls, plan_untrained
from iqray.identity import hash_strings
from iqray.stages.subsets import _count_images
from iqray.study import Study
from iqray.study_file import parse_study
from iqray.trials import (
    Cell,
    Trial,
    TrialPlanner,
    order_longest_first,
    plan_trials,
)
from iqray.usable_images import ImageIndex

VERSIONS = {"torch": "2.15.0", "training": "1"}
CATEGORIES = ("a", "b", "c", "d")


def make_study(**changes: Any) -> Study:
    return parse_study(
        {
            "name": "s",
            "root": "out",
            "datasets": [{"name": "d", "root": "images"}],
            "metrics": ["niqe", "brisque"],
            "architectures": ["resnet50", "vgg16"],
            "recipe": "paper",
            "weights": {"directory": "w"},
            **changes,
        }
    )


def make_manifest(**sums: str) -> pa.Table:
    rows = [
        {
            "dataset": "d",
            "split": split,
            "category": category,
            "path": f"{split}/{category}/{number}.jpg",
            "sha256": sums.get(f"{split}_{category}_{number}", f"{split}{category}{number}"),
            "status": "ok",
        }
        for split, count in (("train", 100), ("test", 5))
        for category in CATEGORIES
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.MANIFEST)


def make_subsets(chosen: dict[tuple[str, str], str]) -> pa.Table:
    rows = [
        {"dataset": "d", "metric": metric, "subset": subset, "category": category}
        for (metric, subset), categories in chosen.items()
        for category in categories
    ]
    return pa.Table.from_pylist(rows, schema=schemas.SUBSETS)


CHOSEN = {
    ("niqe", "avg_high"): "ab",
    ("niqe", "avg_low"): "cd",
    ("niqe", "range_high"): "ac",
    ("niqe", "range_low"): "bd",
    ("brisque", "avg_high"): "ba",  # the same set as niqe's, in another order
    ("brisque", "avg_low"): "cd",
    ("brisque", "range_high"): "ad",
    ("brisque", "range_low"): "bd",
}


def plan(
    study: Study | None = None, manifest: pa.Table | None = None
) -> tuple[list[Cell], dict[str, Trial]]:
    manifests = {"d": manifest if manifest is not None else make_manifest()}
    return plan_trials(study or make_study(), make_subsets(CHOSEN), manifests, VERSIONS)


def test_cells_of_equal_content_share_a_trial() -> None:
    cells, trials = plan()
    assert len(cells) == 2 * 2 * 4
    assert len(trials) == 2 * 5  # ab, cd, ac, bd, ad for each architecture
    ids = {(c.architecture, c.metric, c.subset): c.trial_id for c in cells}
    assert ids["vgg16", "niqe", "avg_high"] == ids["vgg16", "brisque", "avg_high"]
    assert ids["vgg16", "niqe", "range_high"] != ids["vgg16", "brisque", "range_high"]
    assert ids["vgg16", "niqe", "avg_high"] != ids["resnet50", "niqe", "avg_high"]


def test_each_seed_is_a_trial() -> None:
    assert len(plan(make_study(seeds=[0, 1, 2]))[1]) == 3 * len(plan()[1])


def test_ids_are_readable_and_stable() -> None:
    cells, _ = plan()
    assert cells[0].trial_id.startswith("d-resnet50-k2-s0-")
    assert [cell.trial_id for cell in plan()[0]] == [cell.trial_id for cell in cells]


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"base": "paper", "epochs": 91}},
        {"recipe": {"base": "paper", "momentum": 0.8}},
        {"recipe": {"base": "paper", "architectures": {"resnet50": {"input_px": 192}}}},
    ],
)
def test_whatever_changes_numbers_changes_the_id(changes: dict[str, Any]) -> None:
    before = {cell.trial_id for cell in plan()[0] if cell.architecture == "resnet50"}
    after = {cell.trial_id for cell in plan(make_study(**changes))[0]}
    assert not before & after


def test_another_architectures_settings_do_not_change_the_id() -> None:
    recipe = {"base": "paper", "architectures": {"vgg16": {"input_px": 192}}}
    before, after = plan()[1], plan(make_study(recipe=recipe))[1]
    assert {i for i in before if "resnet50" in i} == {i for i in after if "resnet50" in i}


@pytest.mark.parametrize("changed", ["train_a_7", "test_a_0"])
def test_one_changed_image_changes_only_the_trials_that_use_it(changed: str) -> None:
    before, after = plan()[0], plan(manifest=make_manifest(**{changed: "other bytes"}))[0]
    for old, new in zip(before, after, strict=True):
        uses_a = "a" in CHOSEN[old.metric, old.subset]
        assert (old.trial_id != new.trial_id) == uses_a


def test_unreadable_images_are_not_trained_on() -> None:
    manifest = make_manifest().to_pylist()
    manifest[3]["status"] = "truncated"
    _, trials = plan(manifest=pa.Table.from_pylist(manifest, schema=schemas.MANIFEST))
    counts = {t.num_train_images for t in trials.values() if "a" in t.categories}
    assert counts == {199}


def test_steps_are_equal_in_a_dataset() -> None:
    manifest = make_manifest().to_pylist()
    fewer = [row for row in manifest if not (row["category"] == "a" and row["path"] > "train/a/5")]
    _, trials = plan(manifest=pa.Table.from_pylist(fewer, schema=schemas.MANIFEST))
    assert len({trial.num_steps for trial in trials.values()}) == 1
    sizes = {trial.num_train_images for trial in trials.values()}
    assert len(sizes) > 1
    # Median of the 8 subsets: bd, cd, cd, bd with 200 images, four with a have fewer.
    assert next(iter(trials.values())).num_steps == pytest.approx(
        90 * (200 + min(sizes)) / 2 / 256, abs=1
    )


def test_distances_are_matched_over_the_whole_dataset() -> None:
    manifest = make_manifest().to_pylist()
    kept = [row for row in manifest if row["path"] not in ("test/a/1.jpg", "test/a/2.jpg")]
    _, trials = plan(manifest=pa.Table.from_pylist(kept, schema=schemas.MANIFEST))
    assert {trial.num_matched for trial in trials.values()} == {3}
    assert {trial.num_matched for trial in plan()[1].values()} == {5}


def test_controls_are_trained_as_the_grid_is_and_share_its_trials() -> None:
    study = make_study(seeds=[0, 1])
    rows = [
        {"dataset": "d", "control": "random", "draw": draw, "category": category}
        for draw, categories in ((1, "ba"), (2, "bc"))
        for category in categories
    ]
    planner = TrialPlanner(study, "d", make_subsets(CHOSEN), make_manifest(), VERSIONS)
    table = pa.Table.from_pylist(rows, schema=schemas.CONTROL_SUBSETS)
    cells, trials = plan_controls(study, planner, table)
    grid = plan(study)[1]
    assert len(cells) == 2 * 2 * 2
    assert {cell.metric for cell in cells} == {None}
    assert all((cell.trial_id in grid) == (cell.draw == 1) for cell in cells)
    for own, other in zip(trials.values(), grid.values(), strict=False):
        assert own.num_matched == other.num_matched
    assert {own.num_steps for own in trials.values()} == {own.num_steps for own in grid.values()}


def test_ids_of_trials_that_were_trained_before_stay_the_same() -> None:
    """Another id would train a finished trial again: raise `TRAINING_VERSION` where that is due."""
    cells, _ = plan()
    assert cells[0].trial_id == "d-resnet50-k2-s0-80fdcc14db24"
    assert cells[-1].trial_id == "d-vgg16-k2-s0-97966f6c9c19"


def number_images(manifest: pa.Table) -> pa.Table:
    ids = pa.array(range(manifest.num_rows), pa.int64())
    return manifest.set_column(manifest.schema.get_field_index("image_id"), "image_id", ids)


def plan_half(manifest: pa.Table, ids: range) -> Trial:
    """ResNet-50 on some training images of a and b: ids 0 to 99 are of a, 100 to 199 of b."""
    planner = TrialPlanner(make_study(), "d", make_subsets(CHOSEN), manifest, VERSIONS)
    images = manifest.filter(pc.is_in(manifest["image_id"], value_set=pa.array(ids, pa.int64())))
    return planner.plan("resnet50", "ab", 0, planner.choose_images("ab", images))


def test_only_chosen_images_are_in_the_id() -> None:
    manifest = number_images(make_manifest())
    half, whole = plan_half(manifest, range(50, 150)), plan(manifest=manifest)[0][0].trial_id
    assert half.num_train_images == 100
    assert half.trial_id != whole
    # Ids of other categories are passed over, and a choice of all images is none.
    assert plan_half(manifest, range(400)).trial_id == whole
    assert plan_half(manifest, range(50, 150)).trial_id == half.trial_id
    for image, is_in in (("train_a_7", False), ("train_a_70", True), ("test_a_0", True)):
        changed = number_images(make_manifest(**{image: "other bytes"}))
        assert (plan_half(changed, range(50, 150)).trial_id != half.trial_id) == is_in


def test_untrained_networks_are_shared_by_equal_categories() -> None:
    study = make_study(seeds=[0, 1])
    planner = TrialPlanner(study, "d", make_subsets(CHOSEN), make_manifest(), VERSIONS)
    cells, trials = plan_untrained(study, planner)
    grid = plan(study)
    assert len(cells) == len(grid[0])
    assert len(trials) == len(grid[1])
    assert not set(trials) & set(grid[1])
    assert {(trial.num_steps, trial.num_train_images) for trial in trials.values()} == {(0, 0)}
    changed = make_manifest(train_a_7="other bytes")
    other = TrialPlanner(study, "d", make_subsets(CHOSEN), changed, VERSIONS)
    assert set(plan_untrained(study, other)[1]) == set(trials)


def test_longest_trials_come_first() -> None:
    ordered = order_longest_first(plan()[1].values())
    assert [trial.architecture for trial in ordered] == ["vgg16"] * 5 + ["resnet50"] * 5


def test_versions_are_part_of_the_identity() -> None:
    _, trials = plan()
    trial = next(iter(trials.values()))
    other = dataclasses.replace(trial, versions={**VERSIONS, "torch": "2.16.0"})
    assert other.trial_id != trial.trial_id


def hash_plainly(rows: list[dict[str, Any]], categories: str) -> str:
    parts: list[str] = []
    for split in ("train", "test"):
        for category in categories:
            own = [
                f"{row['path']}\t{row['sha256']}"
                for row in rows
                if (row["split"], row["category"], row["status"]) == (split, category, "ok")
            ]
            parts += [split, category, hash_strings(sorted(own)) if own else "none"]
    return hash_strings(parts)


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_counts_and_hashes_are_those_of_a_plain_loop(is_shuffled: bool) -> None:
    rows = make_manifest().to_pylist()
    for row in rows[::7]:
        row["status"] = "truncated"
    for row in rows:
        row["status"] = "missing" if row["category"] == "c" else row["status"]
    # Between train and test in the alphabet of bytes, and longer than its neighbour by one.
    rows[5]["path"], rows[6]["path"] = "train/a/größe", "train/a/größe\x01"
    order = np.random.default_rng(0).permutation(len(rows)) if is_shuffled else range(len(rows))
    table = pa.Table.from_pylist([rows[index] for index in order], schema=schemas.MANIFEST)
    index = ImageIndex(pa.concat_tables([table.slice(0, 9), table.slice(9)]))
    for categories in ("a", "b", "abd", "cd", "x"):
        assert index.hash_images(categories) == hash_plainly(rows, categories)
        for split in ("train", "test"):
            assert index.count(split, categories) == sum(
                row["split"] == split and row["category"] in categories and row["status"] == "ok"
                for row in rows
            )
    assert _count_images({"d": table}) == Counter(
        ("d", row["split"], row["category"]) for row in rows if row["status"] == "ok"
    )
