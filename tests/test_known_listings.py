"""Listings taken from a finished manifest: equal to listing anew, or listed anew."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from iqray.dataset import Dataset
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.inspection import ImageInspector
from iqray.inputs.known_listings import list_or_restore
from iqray.inputs.listing import fingerprint_listing, list_images
from iqray.inputs.manifest import finish_manifest, plan_manifest
from iqray.inputs.sources import ImageSource
from iqray.storage import Storage
from tests.layout_files import LAYOUTS, encode_images, write_folders, write_parquet, write_tars

HELD = ["parquet", "webdataset"]
OTHER_SETTINGS = {
    "parquet": [{"key_column": "key"}, {"category_column": "other"}, {"test": None}],
    "webdataset": [{"category_field": "species"}, {"test": None}, {"train": "train/*0.tar"}],
}


class ClosedRoot(ImageRoot):
    """A root whose files can be found but not opened."""

    def open_file(self, path: str) -> Any:
        raise AssertionError(f"'{path}' is opened")


def make_dataset(root: Path, layout: str, **changes: Any) -> Dataset:
    settings = {"name": "d", "root": str(root), "layout": layout, **LAYOUTS[layout], **changes}
    return Dataset.model_validate(settings)


@pytest.fixture(params=HELD)
def known(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Dataset, Storage]:
    """A dataset with a finished manifest; one image cannot be read."""
    images = encode_images()
    images["train/bee/part0/2.jpeg"] = b"no image"
    if request.param == "parquet":
        other = {"other": lambda own: [path.split("/")[2] for path in own]}
        write_parquet(tmp_path / "in", images, **other)
    else:
        write_tars(tmp_path / "in", images)
    dataset = make_dataset(tmp_path / "in", request.param)
    source = ImageSource.of(dataset, ImageRoot(str(dataset.root)))
    storage = Storage(str(tmp_path / "out"))
    plan = plan_manifest("d", source, list_images(dataset, source.root))
    storage.write_table(plan.listing_path, plan.listing)
    inspector = ImageInspector(storage, {"d": source}, "attempts")
    for shard, name in zip(plan.shards, plan.names, strict=True):
        rows = plan.listing.slice(shard.start, shard.num_rows)
        inspector.work(rows, f"{plan.directory}/{name}", "d")
    finish_manifest(storage, plan)
    return dataset, storage


def restore(dataset: Dataset, storage: Storage, kind: type[ImageRoot] = ImageRoot) -> pa.Table:
    return list_or_restore(dataset, ImageSource.of(dataset, kind(str(dataset.root))), storage)


def list_anew(dataset: Dataset) -> pa.Table:
    return list_images(dataset, ImageRoot(str(dataset.root)))


def test_unchanged_files_are_not_opened(known: tuple[Dataset, Storage]) -> None:
    listing, expected = restore(*known, ClosedRoot), list_anew(known[0])
    assert listing.equals(expected, check_metadata=True)
    assert fingerprint_listing(listing) == fingerprint_listing(expected)


def rename(file: Path) -> None:
    file.rename(file.with_name(f"x{file.name}"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "touched": lambda file: file.touch(),
    "renamed": rename,
    "copied": lambda file: shutil.copy2(file, file.with_name(f"0{file.name}")),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_any_changed_file_lists_anew(known: tuple[Dataset, Storage], change: str) -> None:
    dataset, storage = known
    before = list_anew(dataset)
    file = sorted(path for path in Path(str(dataset.root)).rglob("*") if path.is_file())[0]
    CHANGES[change](file)
    if dataset.layout == "parquet":  # a glob that also finds renamed files
        dataset = dataset.model_copy(update={"train": "data/*train-*.parquet"})
    try:
        expected = list_anew(dataset)
    except ValueError as error:  # the same names twice, for example
        with pytest.raises(type(error)):
            restore(dataset, storage)
        return
    assert restore(dataset, storage).equals(expected, check_metadata=True)
    assert not expected.equals(before)


@pytest.mark.parametrize("number", range(3))
def test_other_settings_list_anew(known: tuple[Dataset, Storage], number: int) -> None:
    dataset, storage = known
    changes = OTHER_SETTINGS[dataset.layout][number]
    other = make_dataset(Path(str(dataset.root)), dataset.layout, **changes)
    with pytest.raises(AssertionError, match="is opened"):
        restore(other, storage, ClosedRoot)


def test_a_manifest_of_another_dataset_is_not_believed(known: tuple[Dataset, Storage]) -> None:
    dataset, storage = known
    path = "manifest/d.parquet"
    table = storage.read_table(path)
    key = storage.read_key(path)
    storage.write_table(path, table.slice(1), key=str(key))
    with pytest.raises(AssertionError, match="is opened"):
        restore(dataset, storage, ClosedRoot)


def test_folders_are_listed_every_time(tmp_path: Path) -> None:
    write_folders(tmp_path / "in", encode_images())
    dataset = make_dataset(tmp_path / "in", "folders")
    assert restore(dataset, Storage(str(tmp_path / "out"))).equals(list_anew(dataset))
