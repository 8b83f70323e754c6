"""Parquet datasets: identity, categories, forms of the image column, broken files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.images import ImageFailure
from iqray.inputs.listing import list_images
from iqray.inputs.sources import ImageSource
from tests.layout_files import Images, encode_images, write_parquet

IMAGES = encode_images()
Make = Callable[[Images], list[Any]]


def list_parquet(root: Path, **settings: Any) -> pa.Table:
    dataset = make_dataset(root, **settings)
    return list_images(dataset, ImageRoot.parse(str(dataset.root)))


def make_dataset(root: Path, **settings: Any) -> Dataset:
    splits = {"train": "data/train-*.parquet", "test": "data/val-*.parquet"}
    return Dataset.model_validate(
        {"name": "d", "root": str(root), "layout": "parquet", **splits, **settings}
    )


def structs(path: Callable[[str], str | None]) -> Make:
    return lambda own: [{"bytes": data, "path": path(name)} for name, data in own.items()]


def test_the_images_own_paths_are_their_identity(tmp_path: Path) -> None:
    write_parquet(tmp_path, IMAGES)
    listing = list_parquet(tmp_path)
    assert listing["path"].to_pylist() == [path.replace("/", "_") for path in IMAGES]
    assert listing["num_bytes"].null_count == listing.num_rows


@pytest.mark.parametrize(
    "image",
    [
        structs(lambda path: path.split("/")[-1]),  # base names repeat
        structs(lambda path: None if path.endswith("0.jpeg") else path),
        lambda own: list(own.values()),
    ],
    ids=["repeated", "incomplete", "bytes"],
)
def test_else_file_and_row_are_it(tmp_path: Path, image: Make) -> None:
    write_parquet(tmp_path, IMAGES, image=image)
    listing = list_parquet(tmp_path)
    assert listing["path"].to_pylist() == [
        *(f"data/train-00000.parquet#{row}" for row in range(6)),
        *(f"data/val-00000.parquet#{row}" for row in range(4)),
    ]
    source = ImageSource.of(make_dataset(tmp_path), ImageRoot(str(tmp_path)))
    assert list(source.read(listing)) == list(IMAGES.values())


def test_a_key_column_is_it_where_it_is_named(tmp_path: Path) -> None:
    numbers = {path: 100 + number for number, path in enumerate(IMAGES)}
    write_parquet(tmp_path, IMAGES, number=lambda own: [numbers[path] for path in own])
    by_key = list_parquet(tmp_path, key_column="key")
    assert by_key["path"].to_pylist() == list(IMAGES)
    by_number = list_parquet(tmp_path, key_column="number")
    assert by_number["path"].to_pylist() == [str(number) for number in numbers.values()]


def test_a_repeated_key_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path, IMAGES, row=lambda own: list(range(len(own))))
    message = r"key_column 'row' holds '0' more than once \(in data/train.*, data/val-00000"
    with pytest.raises(StudyError, match=message):
        list_parquet(tmp_path, key_column="row")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (lambda own: [name.split("/")[1] for name in own], {"ant", "bee"}),
        (
            lambda own: pa.array([name.split("/")[1] for name in own]).dictionary_encode(),
            {"ant", "bee"},
        ),
        (lambda own: pa.array([7] * len(own), pa.int16()), {"7"}),
    ],
    ids=["text", "dictionary", "integer"],
)
def test_categories_without_names_are_texts_or_integers(
    tmp_path: Path, label: Make, expected: set[str]
) -> None:
    write_parquet(tmp_path, IMAGES, kind=label)
    listing = list_parquet(tmp_path, category_column="kind")
    assert set(listing["category"].to_pylist()) == expected


@pytest.mark.parametrize(
    ("column", "make", "settings", "message"),
    [
        ("label", lambda own: [-1] * len(own), {}, "images without a category"),
        ("label", lambda own: [2] * len(own), {}, "values from 2 to 2 where 0 to 1 have names"),
        ("label", lambda own: [None, *["a"] * (len(own) - 1)], {}, "'label' .* empty in row 0"),
        ("label", lambda own: [0.5] * len(own), {}, "must hold text or integers"),
        ("image", lambda own: ["a.jpg"] * len(own), {}, "must hold encoded images"),
        ("x", list, {"image_column": "img"}, "no column 'img'; it has image, label.*image_column"),
        ("x", list, {"key_column": "id"}, "no column 'id'.*correct key_column"),
    ],
)
def test_unusable_columns_are_explained(
    tmp_path: Path, column: str, make: Make, settings: dict[str, str], message: str
) -> None:
    write_parquet(tmp_path, IMAGES, **{column: make})
    with pytest.raises(StudyError, match=message) as caught:
        list_parquet(tmp_path, **settings)
    assert str(tmp_path / "data") in str(caught.value)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path, IMAGES)
    path = tmp_path / "data/val-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StudyError, match=r"'.*val-00000.parquet' cannot be read .*repair it"):
        list_parquet(tmp_path)


def test_broken_pages_are_named_when_they_are_read(tmp_path: Path) -> None:
    write_parquet(tmp_path, IMAGES)
    listing = list_parquet(tmp_path)
    path = tmp_path / "data/val-00000.parquet"
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(data)
    source = ImageSource.of(make_dataset(tmp_path), ImageRoot(str(tmp_path)))
    with pytest.raises(StudyError, match=r"val-00000\.parquet"):
        list(source.read(listing))


def test_a_shorter_file_than_listed_has_changed(tmp_path: Path) -> None:
    write_parquet(tmp_path, IMAGES)
    listing = list_parquet(tmp_path)
    path = tmp_path / "data/train-00000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    source = ImageSource.of(make_dataset(tmp_path), ImageRoot(str(tmp_path)))
    with pytest.raises(StudyError, match=r"train-00000\.parquet' has changed since"):
        list(source.read(listing))


def test_rows_without_bytes_are_missing(tmp_path: Path) -> None:
    def drop_first(own: Images) -> list[Any]:
        rows = structs(lambda path: path)(own)
        return [{**rows[0], "bytes": None}, *rows[1:]]

    write_parquet(tmp_path, IMAGES, image=drop_first)
    source = ImageSource.of(make_dataset(tmp_path), ImageRoot(str(tmp_path)))
    lost = ImageFailure("missing", "the row holds no image bytes")
    data = list(IMAGES.values())
    assert list(source.read(list_parquet(tmp_path))) == [lost, *data[1:6], lost, *data[7:]]


def test_files_in_folders_of_any_depth_are_a_split(tmp_path: Path) -> None:
    write_parquet(tmp_path, IMAGES)
    for split in ("train", "val"):
        (tmp_path / split / "a" / "b").mkdir(parents=True)
        file = tmp_path / "data" / f"{split}-00000.parquet"
        file.rename(tmp_path / split / "a" / "b" / "0.parquet")
    listing = list_parquet(tmp_path, train="train", test="val")
    assert set(listing["container"].to_pylist()) == {"train/a/b/0.parquet", "val/a/b/0.parquet"}


def test_overlapping_splits_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path, IMAGES)
    with pytest.raises(StudyError, match=r"holds 'data/train-.*#0' twice.*must not overlap"):
        list_parquet(tmp_path, test="data")
