import json
import os
import pickle
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from iqray.errors import StudyError
from iqray.storage import Storage


def test_tables_and_keys_come_back(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "root"))
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    storage.write_table("deep/er/t.parquet", table, key="k1")
    assert storage.read_table("deep/er/t.parquet").equals(table)
    assert storage.read_key("deep/er/t.parquet") == "k1"
    assert storage.read_key("deep/er/other.parquet") is None


def test_root_may_be_a_uri(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/root")
    storage.write_json("x/y.json", {"b": 1, "a": [2]})
    assert storage.is_local
    assert json.loads((tmp_path / "root/x/y.json").read_text()) == {"a": [2], "b": 1}


def test_listing_shows_finished_entries_only(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes("d/one", b"1")
    (tmp_path / "d" / ".two.abc").write_bytes(b"half")
    assert storage.list_names("d") == {"one"}
    assert storage.list_names("nowhere") == set()


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes("d/f", b"old")
    with pytest.raises(TypeError):
        storage.write_bytes("d/f", "not bytes")  # type: ignore[arg-type]
    assert storage.read_bytes("d/f") == b"old"
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["f"]


def test_of_several_that_create_a_file_one_succeeds(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "root"))
    contents = [bytes([number]) * 1000 for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as writers:
        has_created = list(writers.map(lambda data: storage.create("d/f", data), contents))
    assert has_created.count(True) == 1
    assert storage.read_bytes("d/f") == contents[has_created.index(True)]


def test_a_file_that_cannot_be_created_whole_is_not_there(tmp_path: Path) -> None:
    """A disk is full for this process where its files may not grow."""
    storage = Storage(str(tmp_path / "root"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(StudyError, match=r"d/f' cannot be written \(.*File too large"):
            storage.create("d/f", bytes(2**21))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "root/d").iterdir())


def test_pickles_without_its_connection(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes("f", b"1")
    assert pickle.loads(pickle.dumps(storage)).read_bytes("f") == b"1"  # noqa: S301


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_files_are_copied_whole_both_ways(tmp_path: Path, scheme: str) -> None:
    storage = Storage(f"{scheme}{tmp_path}/root")
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(5_000_000))
    storage.copy_from_local(source, "below/file")
    storage.copy_to_local("below/file", back)
    assert back.read_bytes() == source.read_bytes()
    assert storage.list_names("below") == {"file"}


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("/out/why?", "/out/why?/a/b"),
        ("s3://bucket/out/", "s3://bucket/out/a/b"),
        (
            "s3://bucket/out?endpoint_override=host:9000&scheme=http",
            "s3://bucket/out/a/b?endpoint_override=host:9000&scheme=http",
        ),
    ],
)
def test_below_keeps_a_uris_query(root: str, expected: str) -> None:
    assert Storage(root).below("a/b").root == expected


def test_batches_are_the_table_that_they_make(tmp_path: Path) -> None:
    table = pa.table({"number": pa.array(range(10)), "text": pa.array(list("abcdefghij"))})
    storage = Storage(str(tmp_path))
    storage.write_batches("t.parquet", table.schema, table.to_batches(max_chunksize=4), key="k")
    assert storage.read_table("t.parquet").equals(table)
    assert storage.read_key("t.parquet") == "k"
    assert storage.list_names("") == {"t.parquet"}
