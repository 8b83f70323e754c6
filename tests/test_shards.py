"""Shards: what of their rows makes their content."""

from typing import Any

import pyarrow as pa
import pytest

from iqray import schemas
from iqray.inputs.listing import LISTING
from iqray.shards import Shard, parse_index, split_into_shards

NUM_ROWS = 10
LISTED = {
    "split": "train",
    "category": "ant",
    "image_id": 1,
    "num_bytes": 9,
    "modified_ns": 5,
    "container": "",
    "position": 0,
}


def cut(schema: pa.Schema, changed: dict[str, Any], size: int = 4) -> list[Shard]:
    """Shards of ten rows, of which the sixth is changed."""
    rows = [
        {**LISTED, "path": f"{number}.jpg", "sha256": f"sum {number}", "status": "ok"}
        for number in range(NUM_ROWS)
    ]
    rows[5] |= changed
    return split_into_shards(pa.Table.from_pylist(rows, schema=schema), size, "t", 100)


@pytest.mark.parametrize("index", [0, 7, 99_999, 1_234_567])
def test_a_results_name_tells_its_shard(index: int) -> None:
    assert parse_index(Shard("t", index, 0, 1, "c").name_file("key")) == index


@pytest.mark.parametrize(
    "name", ["_complete.json", "desktop.ini", "00001-notes.txt", "00001-0123456789abcdef.parquet~"]
)
def test_other_files_are_of_no_shard(name: str) -> None:
    assert parse_index(name) is None


def test_rows_are_cut_side_by_side() -> None:
    shards = cut(LISTING, {})
    assert [(s.index, s.start, s.num_rows) for s in shards] == [
        (0, 100, 4),
        (1, 104, 4),
        (2, 108, 2),
    ]
    assert len({shard.content for shard in shards}) == 3
    assert shards == cut(LISTING, {})


@pytest.mark.parametrize(
    "changed",
    [
        {"num_bytes": 10},
        {"num_bytes": None},
        {"modified_ns": 6},
        {"path": "x"},
        {"category": "bee"},
    ],
)
def test_a_listed_image_that_is_replaced_makes_another_shard(changed: dict[str, Any]) -> None:
    pairs = zip(cut(LISTING, {}), cut(LISTING, changed), strict=True)
    assert [a.content == b.content for a, b in pairs] == [True, False, True]


@pytest.mark.parametrize("changed", [{"sha256": "x"}, {"path": "x"}, {"category": "bee"}])
def test_other_bytes_path_or_category_make_another_shard(changed: dict[str, Any]) -> None:
    pairs = zip(cut(schemas.MANIFEST, {}), cut(schemas.MANIFEST, changed), strict=True)
    assert [a.content == b.content for a, b in pairs] == [True, False, True]


def test_what_does_not_change_scores_does_not_change_shards() -> None:
    assert cut(schemas.MANIFEST, {}) == cut(schemas.MANIFEST, {"position": 7, "container": "b.tar"})
