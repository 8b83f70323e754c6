import hashlib
import multiprocessing
import os
import uuid
from pathlib import Path

import pytest

from iqray.errors import StudyError
from iqray.node_cache import copy_to_node, get_cache_folder
from iqray.storage import Storage

CONTENT = {"a.pth": b"weights" * 1000, "pyiqa/torch/b.bin": b"more"}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


class CountingStorage(Storage):
    """A storage that leaves a mark for every file that any process copies from it."""

    def copy_to_local(self, path: str, target: Path) -> None:
        (Path(os.environ["MARKS"]) / uuid.uuid4().hex).touch()
        super().copy_to_local(path, target)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("IQRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MARKS", str(tmp_path / "marks"))
    (tmp_path / "marks").mkdir()
    storage = CountingStorage((tmp_path / "remote").as_uri())
    for name, content in CONTENT.items():
        storage.write_bytes(name, content)
    return storage


def count_copies(tmp_path: Path) -> int:
    return len(list((tmp_path / "marks").iterdir()))


def test_files_come_under_their_paths_and_only_once(storage: Storage, tmp_path: Path) -> None:
    folder = copy_to_node(storage, SUMS, "clipiqa")
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert folder.is_relative_to(get_cache_folder())
    assert copy_to_node(storage, SUMS, "clipiqa") == folder
    assert count_copies(tmp_path) == 2


def test_processes_that_start_together_copy_once(storage: Storage, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        folders = pool.starmap(copy_to_node, [(storage, SUMS, "clipiqa")] * 8, chunksize=1)
    assert len(set(folders)) == 1
    assert count_copies(tmp_path) == 2
    assert [path.name for path in folders[0].rglob("*") if path.name.startswith(".")] == []


@pytest.mark.parametrize("damage", [b"", b"weights" * 500])
def test_a_broken_copy_is_made_again(storage: Storage, damage: bytes) -> None:
    folder = copy_to_node(storage, SUMS, "clipiqa")
    (folder / "a.pth").write_bytes(damage)
    copy_to_node(storage, SUMS, "clipiqa")
    assert (folder / "a.pth").read_bytes() == CONTENT["a.pth"]


def test_a_wrong_sum_at_the_source_is_named_and_leaves_nothing(storage: Storage) -> None:
    storage.write_bytes("a.pth", b"other")
    found = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(StudyError, match=rf"a\.pth .*expected {SUMS['a.pth']}, found {found}"):
        copy_to_node(storage, SUMS, "clipiqa")
    assert [path for path in get_cache_folder().rglob("*a.pth*") if path.is_file()] == []


def test_a_file_that_is_gone_is_named(storage: Storage) -> None:
    storage.delete("a.pth")
    with pytest.raises(StudyError, match=r"remote/a\.pth cannot be copied to"):
        copy_to_node(storage, SUMS, "clipiqa")


def test_other_content_gets_another_folder(storage: Storage) -> None:
    first = copy_to_node(storage, SUMS, "clipiqa")
    storage.write_bytes("a.pth", b"new")
    second = copy_to_node(storage, {"a.pth": hashlib.sha256(b"new").hexdigest()}, "clipiqa")
    assert first != second
    assert (first / "a.pth").read_bytes() == CONTENT["a.pth"]
