"""Headers of tar files, read here and by Python's tarfile: the same members or the same refusal."""

import io
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from iqray.inputs.layouts.tar_headers import Member, TarHeaders

FORMATS = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}


def read_with_tarfile(data: bytes) -> tuple[list[Member], int] | str:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = [
                Member(m.name, m.offset_data, m.size, m.isdir(), m.isreg() and not m.issparse())
                for m in tar
            ]
            return members, tar.offset
    except tarfile.TarError as error:
        return str(error)


def read_here(data: bytes) -> tuple[list[Member], int] | str:
    headers = TarHeaders(io.BufferedReader(io.BytesIO(data), 4096))  # type: ignore[arg-type]
    try:
        return list(headers), headers.offset
    except tarfile.TarError as error:
        return str(error)


def write_tar(form: int, *members: tuple[str, dict[str, Any]], **options: Any) -> bytes:
    """An archive of plain members around special ones."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form, **options) as tar:
        for number, (name, changes) in enumerate([("a.cls", {}), *members, ("z.jpg", {})]):
            member = tarfile.TarInfo(name)
            member.size = 700 * number
            for key, value in changes.items():
                setattr(member, key, value)
            is_file = member.type in tarfile.REGULAR_TYPES
            tar.addfile(member, io.BytesIO(bytes(member.size)) if is_file else None)
    return target.getvalue()


MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("ant/1.jpg", {}),
    "empty": ("ant/1.jpg", {"size": 0}),
    "one block": ("ant/1.jpg", {"size": 512}),
    "owner": ("ant/1.jpg", {"uid": 1000, "uname": "someone", "gname": "all", "mode": 0o755}),
    "float time": ("ant/1.jpg", {"mtime": 1.5e9 + 0.25}),
    "float time and long name": (f"{'ant/' * 60}1.jpg", {"mtime": 1.5e9 + 0.25}),
    "long name": (f"{'ant/' * 60}1.jpg", {}),
    "100 characters": (f"{'a' * 96}.jpg", {}),
    "prefix": (f"{'ant/' * 40}{'b' * 60}.jpg", {}),
    "foreign name": ("ant/größe.jpg", {}),
    "foreign owner": ("ant/1.jpg", {"uname": "größe"}),
    "own record": ("ant/1.jpg", {"pax_headers": {"comment": "no 1\nno 2"}}),
    "record of another name": ("ant/1.jpg", {"pax_headers": {"path": "bee/1.jpg"}}),
    "large owner": ("ant/1.jpg", {"uid": 2**40}),
    "negative time": ("ant/1.jpg", {"mtime": -5}),
    "folder": ("ant/", {"type": tarfile.DIRTYPE, "size": 0}),
    "old folder": ("ant/", {"type": tarfile.AREGTYPE, "size": 0}),
    "old file": ("ant/1.jpg", {"type": tarfile.AREGTYPE}),
    "contiguous": ("ant/1.jpg", {"type": tarfile.CONTTYPE}),
    "symbolic link": ("ant/1.jpg", {"type": tarfile.SYMTYPE, "linkname": "a.cls", "size": 0}),
    "hard link": ("ant/1.jpg", {"type": tarfile.LNKTYPE, "linkname": "a.cls", "size": 0}),
    "device": ("ant/1.jpg", {"type": tarfile.CHRTYPE, "devmajor": 3, "size": 0}),
    "unknown": ("ant/1.jpg", {"type": b"Q", "size": 0}),
    "no name": ("", {}),
}


@pytest.mark.parametrize("form", FORMATS.values(), ids=list(FORMATS))
@pytest.mark.parametrize("kind", MEMBERS)
def test_members_are_those_of_tarfile(kind: str, form: int) -> None:
    try:
        data = write_tar(form, ("a.jpg", {}), MEMBERS[kind], ("b.jpg", {}))
    except ValueError:
        pytest.skip("ustar cannot hold the member")
    assert read_here(data) == read_with_tarfile(data)
    members, _ = read_with_tarfile(data)
    assert len(members) == 5


def test_members_after_a_global_header_are_those_of_tarfile() -> None:
    inner = write_tar(tarfile.PAX_FORMAT, *[("ant/1.jpg", {})] * 3)
    headers = [{"comment": "of git"}, {"path": "one name"}]
    for header in headers:
        data = write_tar(tarfile.PAX_FORMAT, ("ant/1.jpg", {}), pax_headers=header)
        assert read_here(data) == read_with_tarfile(data)
        # In the middle as well: two archives, the first without its end.
        data = inner[: 512 * 9] + data
        assert read_here(data) == read_with_tarfile(data)


def test_sparse_files_are_those_of_tarfile() -> None:
    data = bytearray(write_tar(tarfile.GNU_FORMAT, ("ant/1.jpg", {"type": b"S"})))
    assert read_here(bytes(data)) == read_with_tarfile(bytes(data))
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x.jpg"}
    sparse["GNU.sparse.realsize"] = "9"
    changes = {"pax_headers": sparse, "size": 512}
    data[:] = write_tar(tarfile.PAX_FORMAT, ("ant/1.jpg", changes))
    data[2048:2050] = b"0\n"  # the map, at the start of the data
    assert read_here(bytes(data)) == read_with_tarfile(bytes(data))


@pytest.mark.parametrize("form", FORMATS.values(), ids=list(FORMATS))
def test_damage_is_found_where_tarfile_finds_it(form: int) -> None:
    special = [("ant/1.jpg", {"mtime": 1.5e9 + 0.25}), ("ant/2.jpg", {}), ("b" * 90, {})]
    whole = write_tar(form, *special)
    rng = np.random.default_rng(0)
    bits: Callable[[], int] = lambda: int(1 << rng.integers(8))  # noqa: E731
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 3)):
            data[rng.integers(len(whole) - 10240)] ^= bits()
        assert read_here(bytes(data)) == read_with_tarfile(bytes(data))
    for length in rng.integers(0, len(whole) - 9000, 300).tolist() + list(range(512, 10000, 512)):
        data = bytearray(whole[:length])
        assert read_here(bytes(data)) == read_with_tarfile(bytes(data))


def test_numbers_in_other_spellings_are_those_of_tarfile() -> None:
    whole = write_tar(tarfile.USTAR_FORMAT, ("ant/1.jpg", {}))
    for field in (b"000644 \0", b"   644 \0", b"644\0\0\0\0\0", b"0000648\0", b"0o00644\0"):
        data = bytearray(whole)
        start = 512  # the second header, after an empty member
        data[start + 100 : start + 108] = field
        checksum = 256 + sum(data[start : start + 148]) + sum(data[start + 156 : start + 512])
        for spelling in (b"%06o\0 ", b"%07o\0", b"%06o \0", b"%o\0"):
            data[start + 148 : start + 156] = (spelling % checksum).ljust(8, b" ")
            assert read_here(bytes(data)) == read_with_tarfile(bytes(data))
