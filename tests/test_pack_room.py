import multiprocessing
import os
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from filelock import FileLock

from iqray.errors import StudyError
from iqray.packs.room import Lease, PackRoom, delete_pack

KIB = 2**-20  # in GiB


def make_pack(folder: Path, name: str, num_bytes: int = 1024, used_s: int | None = None) -> Path:
    path = folder / "aa" / name
    path.mkdir(parents=True)
    (path / "pixels.npy").write_bytes(b"x" * num_bytes)
    if used_s is not None:
        use = Path(f"{path}.use")
        use.touch()
        os.utime(use, (used_s, used_s))
    return path


def free(folder: Path, num_kib: int, limit_kib: int) -> None:
    with PackRoom(folder, limit_kib * KIB).make(num_kib * 1024):
        pass


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*/*") if path.is_dir())


def hold(path: Path, is_held: Event, may_end: Event) -> None:
    lease = Lease(path)
    is_held.set()
    may_end.wait(60)
    assert lease


def test_the_longest_unused_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    for name, used_s in (("old", 100), ("new", 300), ("middle", 200)):
        make_pack(tmp_path, name, used_s=used_s)
    free(tmp_path, num_kib=1, limit_kib=4)
    assert list_names(tmp_path) == ["middle", "new", "old"]
    free(tmp_path, num_kib=1, limit_kib=3)
    assert list_names(tmp_path) == ["middle", "new"]
    free(tmp_path, num_kib=2, limit_kib=3)
    assert list_names(tmp_path) == ["new"]


def test_opening_a_pack_makes_it_the_latest(tmp_path: Path) -> None:
    old = make_pack(tmp_path, "old", used_s=100)
    make_pack(tmp_path, "new", used_s=300)
    Lease(old)  # given up at once
    free(tmp_path, num_kib=1, limit_kib=2)
    assert list_names(tmp_path) == ["old"]


def test_a_pack_that_another_process_has_open_stays(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, "old", used_s=100)
    make_pack(tmp_path, "new", used_s=2**33)
    context = multiprocessing.get_context("spawn")
    is_held, may_end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(pack, is_held, may_end))
    process.start()
    try:
        assert is_held.wait(60)
        free(tmp_path, num_kib=1, limit_kib=2)
        assert list_names(tmp_path) == ["old"]
        with pytest.raises(StudyError, match="are in use by trials"):
            free(tmp_path, num_kib=2, limit_kib=2)
        process.kill()  # its lease goes with it
        process.join()
        free(tmp_path, num_kib=2, limit_kib=2)
    finally:
        process.kill()
        process.join()
    assert list_names(tmp_path) == []


def test_a_lease_ends_with_its_last_reference(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, "pack")
    leases = [Lease(pack), Lease(pack)]
    for _ in range(2):
        with pytest.raises(StudyError, match="are in use by trials"):
            free(tmp_path, num_kib=1, limit_kib=1)
        leases.pop()
    free(tmp_path, num_kib=1, limit_kib=1)
    assert list_names(tmp_path) == []


def test_left_overs_go_unless_somebody_is_at_work_on_them(tmp_path: Path) -> None:
    make_pack(tmp_path, ".busy.abc")
    make_pack(tmp_path, ".dead.abc")
    with FileLock(tmp_path / "aa" / "busy.build"):
        free(tmp_path, num_kib=1, limit_kib=2)
        assert list_names(tmp_path) == [".busy.abc"]
    free(tmp_path, num_kib=2, limit_kib=2)
    assert list_names(tmp_path) == []


def test_what_is_too_large_for_an_empty_disk_is_refused(tmp_path: Path) -> None:
    room = PackRoom(tmp_path, 3 * KIB)
    room.check_fits(3 * 1024)
    with pytest.raises(StudyError, match=r"take 0\.000 GiB when packed, but packs may take"):
        room.check_fits(3 * 1024 + 1)


def test_half_of_the_free_disk_is_the_bound_where_none_is_given(tmp_path: Path) -> None:
    room = PackRoom(tmp_path / "packs", None)
    room.check_fits(2**20)
    with pytest.raises(StudyError, match="packs may take"):
        room.check_fits(2**60)


def test_deleting_takes_what_an_earlier_attempt_left(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, "pack")
    make_pack(tmp_path, ".pack.gone")
    delete_pack(pack)
    assert list_names(tmp_path) == []
