import pyarrow as pa
import pytest

from iqray import schemas
from iqray.inputs.duplicates import (
    DuplicateCounts,
    count_duplicates,
    describe_duplicates,
    find_duplicates,
)

# Dataset, split, category, path, content.
IMAGES = [
    ("a", "train", "ant", "train/ant/1", "x"),
    ("a", "train", "ant", "train/ant/2", "x"),
    ("a", "train", "bee", "train/bee/1", "x"),
    ("a", "train", "bee", "train/bee/2", "alone"),
    ("a", "test", "ant", "val/ant/1", "x"),
    ("a", "test", "ant", "val/ant/2", "x"),
    ("a", "test", "bee", "val/bee/1", "y"),
    ("b", "train", "bee", "train/bee/1", "y"),
    ("b", "train", "ant", "train/ant/1", "z"),
    ("b", "train", "ant", "train/ant/2", "z"),
]


def make_manifests(
    images: list[tuple[str, str, str, str, str]], status: str = "ok"
) -> list[pa.Table]:
    names = ("dataset", "split", "category", "path", "sha256")
    rows = [{**dict(zip(names, image, strict=True)), "status": status} for image in images]
    return [
        pa.Table.from_pylist(
            [row for row in rows if row["dataset"] == name], schema=schemas.MANIFEST
        )
        for name in ("a", "b")
    ]


def test_every_image_of_a_group_is_listed_with_its_kind() -> None:
    table = find_duplicates(make_manifests(IMAGES))
    assert table.schema.equals(schemas.DUPLICATES)
    columns = ("group", "dataset", "path", "kind")
    rows = list(zip(*(table[name].to_pylist() for name in columns), strict=True))
    whole = "across splits, across categories, within split"
    assert rows == [
        (1, "a", "train/ant/1", whole),
        (1, "a", "train/ant/2", whole),
        (1, "a", "train/bee/1", whole),
        (1, "a", "val/ant/1", whole),
        (1, "a", "val/ant/2", whole),
        (2, "a", "val/bee/1", "across datasets"),
        (2, "b", "train/bee/1", "across datasets"),
        (3, "b", "train/ant/1", "within split"),
        (3, "b", "train/ant/2", "within split"),
    ]


def test_counts_add_up_and_read_well() -> None:
    counts = count_duplicates(find_duplicates(make_manifests(IMAGES)))
    assert counts == DuplicateCounts(
        num_within_split=4,
        num_across_splits=1,
        num_across_datasets=1,
        num_leaked=2,
        num_other_category=1,
    )
    assert counts.num_repeats == len(IMAGES) - len({image[4] for image in IMAGES})
    assert describe_duplicates(counts) == (
        "6 images repeat another: 1 across splits (2 test images in training), "
        "1 across datasets, 4 within a split, 1 with another category"
    )


def test_nothing_is_said_where_nothing_repeats() -> None:
    table = find_duplicates(make_manifests([image for image in IMAGES if image[4] == "alone"]))
    assert table.num_rows == 0
    assert table.schema.equals(schemas.DUPLICATES)
    assert describe_duplicates(count_duplicates(table)) == ""


def test_a_test_image_of_another_dataset_is_no_leak() -> None:
    counts = count_duplicates(find_duplicates(make_manifests(IMAGES[6:8])))
    assert (counts.num_leaked, counts.num_across_datasets) == (0, 1)


@pytest.mark.parametrize("status", ["decode_error", "missing"])
def test_unreadable_images_do_not_count(status: str) -> None:
    assert find_duplicates(make_manifests(IMAGES, status)).num_rows == 0
