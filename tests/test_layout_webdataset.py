"""Tar datasets: identity, the three ways to a category, long names, broken archives."""

import io
import posixpath
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.listing import list_images
from iqray.inputs.sources import ImageSource
from tests.layout_files import add_member, encode_images, write_tars

IMAGES = encode_images()
IMAGE = next(iter(IMAGES.values()))


def list_tars(root: Path, **settings: Any) -> pa.Table:
    dataset = Dataset.model_validate(
        {"name": "d", "root": str(root), "layout": "webdataset", **settings}
    )
    return list_images(dataset, ImageRoot.parse(str(dataset.root)))


def read_tars(root: Path, listing: pa.Table) -> list[Any]:
    return list(ImageSource(ImageRoot(str(root)), "webdataset").read(listing))


def write_tar(
    root: Path, members: dict[str, bytes], name: str = "train/0.tar", **options: Any
) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for member, data in members.items():
            add_member(tar, member, data)
    return path


@pytest.mark.parametrize(
    ("kind", "settings"), [("cls", {}), ("json", {"category_field": "species"}), ("folder", {})]
)
def test_categories_come_from_cls_json_or_folder(
    tmp_path: Path, kind: str, settings: dict[str, str]
) -> None:
    write_tars(tmp_path, IMAGES, kind=kind)
    listing = list_tars(tmp_path, **settings)
    assert listing["category"].to_pylist() == [path.split("/")[1] for path in IMAGES]
    assert listing["container"].to_pylist() == [
        *["train/00000.tar"] * 4,
        *["train/00001.tar"] * 2,
        *["val/00000.tar"] * 4,
    ]


def test_members_names_are_identity_and_repeated_ones_get_their_shard(tmp_path: Path) -> None:
    write_tar(tmp_path, {"ant/1.jpg": IMAGE, "ant/2.jpg": IMAGE})
    write_tar(tmp_path, {"./ant/1.jpg": IMAGE, "ant/2.jpg": IMAGE}, "val/0.tar")
    assert list_tars(tmp_path)["path"].to_pylist() == [
        *("ant/1.jpg", "train/0.tar#ant/2.jpg"),
        *("./ant/1.jpg", "val/0.tar#ant/2.jpg"),
    ]


def test_a_name_twice_in_a_shard_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path, {"ant/1.jpg": IMAGE})
    with tarfile.open(tmp_path / "train/0.tar", "a") as tar:
        add_member(tar, "ant/1.jpg", IMAGE)
    with pytest.raises(StudyError, match=r"holds 'train/0.tar#ant/1.jpg' twice"):
        list_tars(tmp_path, test=None)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names_are_kept(tmp_path: Path, form: int) -> None:
    names = [f"ant/{'deep/' * 60}1.jpg", "ant/größe.png", "ant/2.WEBP", "ant/3.a.b.jpg"]
    write_tar(tmp_path, {name: IMAGE + name.encode() for name in names}, format=form)
    listing = list_tars(tmp_path, test=None)
    assert listing["path"].to_pylist() == names
    assert read_tars(tmp_path, listing) == [IMAGE + name.encode() for name in names]


def test_the_key_ends_at_the_first_dot_of_the_base_name(tmp_path: Path) -> None:
    members = {"v1.5/a.left.jpg": IMAGE, "v1.5/a.right.png": IMAGE, "v1.5/a.cls": b"newt"}
    write_tar(tmp_path, members)
    assert list_tars(tmp_path, test=None)["category"].to_pylist() == ["newt", "newt"]


def test_other_members_are_passed_over(tmp_path: Path) -> None:
    members = {"ant/1.jpg": IMAGE, "ant/1.txt": b"caption", "ant/._1.jpg": b"of another system"}
    path = write_tar(tmp_path, members)
    with tarfile.open(path, "a") as tar:
        folder = tarfile.TarInfo("ant/folder.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert list_tars(tmp_path, test=None)["path"].to_pylist() == ["ant/1.jpg"]


@pytest.mark.parametrize(
    ("members", "settings", "message"),
    [
        ({"1.jpg": IMAGE}, {}, r"'1.jpg' .*has no category: add '1.cls'"),
        ({"./1.jpg": IMAGE}, {}, r"'./1.jpg' .*has no category"),
        ({"a/1.jpg": IMAGE, "a/2.cls": b"x"}, {}, r"'a/1.cls' is missing or empty"),
        ({"a/1.jpg": IMAGE, "a/1.cls": b" \n"}, {}, r"'a/1.cls' is missing or empty"),
        ({"a/1.cls": b"\xff\xfe", "a/1.jpg": IMAGE}, {}, r"'a/1.cls' .*is not UTF-8"),
        ({"1.jpg": IMAGE}, {"category_field": "kind"}, r"'1.json' is missing"),
        (
            {"1.json": b'{"class": "ant"}', "1.jpg": IMAGE},
            {"category_field": "kind"},
            r"'1.json' .*has no field 'kind'; correct category_field",
        ),
        (
            {"1.json": b'{"kind": null}', "1.jpg": IMAGE},
            {"category_field": "kind"},
            r"field 'kind' of '1.json' .*is None",
        ),
    ],
)
def test_images_without_a_category_are_named(
    tmp_path: Path, members: dict[str, bytes], settings: dict[str, str], message: str
) -> None:
    write_tar(tmp_path, members)
    with pytest.raises(StudyError, match=message) as caught:
        list_tars(tmp_path, test=None, **settings)
    assert "train/0.tar" in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "cut off"),
        (lambda data: data[: -len(data) // 3 // 512 * 512], "cut off"),
        (lambda _: b"no tar" * 200, "cannot be read"),
        (lambda _: b"", "cannot be read"),
    ],
    ids=["half", "two thirds", "text", "empty"],
)
def test_broken_archives_are_named(tmp_path: Path, damage: Any, message: str) -> None:
    path = write_tar(tmp_path, {f"ant/{n}.png": IMAGE * 9 for n in range(4)})
    path.write_bytes(damage(path.read_bytes()[:-10240]))
    with pytest.raises(StudyError, match=rf"tar file '.*train/0\.tar' (is )?{message}"):
        list_tars(tmp_path, test=None)


def test_a_damaged_header_does_not_end_the_archive_early(tmp_path: Path) -> None:
    path = write_tar(tmp_path, {f"ant/{number}.jpg": IMAGE for number in range(4)})
    second = list_tars(tmp_path, test=None)["position"][1].as_py() - 512
    data = bytearray(path.read_bytes())
    data[second + 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(StudyError, match=rf"broken at byte {second}"):
        list_tars(tmp_path, test=None)


def test_an_archive_without_its_end_blocks_is_whole(tmp_path: Path) -> None:
    path = write_tar(tmp_path, {"ant/1.jpg": IMAGE, "ant/2.jpg": IMAGE})
    [_, row] = list_tars(tmp_path, test=None).to_pylist()
    end = row["position"] + -(-row["num_bytes"] // 512) * 512
    path.write_bytes(path.read_bytes()[:end])
    assert list_tars(tmp_path, test=None).num_rows == 2


def test_compressed_archives_and_links_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path, {"ant/1.jpg": IMAGE})
    with tarfile.open(tmp_path / "train/1.tar.gz", "w:gz") as tar:
        add_member(tar, "ant/2.jpg", IMAGE)
    with pytest.raises(StudyError, match=r"1\.tar\.gz' is compressed.*unpack"):
        list_tars(tmp_path, test=None)
    (tmp_path / "train/1.tar.gz").unlink()
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("ant/3.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "1.jpg"
        tar.addfile(link)
    with pytest.raises(StudyError, match=r"'ant/3\.jpg' .*is a link"):
        list_tars(tmp_path, test=None)


def test_categories_may_be_links_within_the_archive(tmp_path: Path) -> None:
    path = write_tar(tmp_path, {"1.jpg": IMAGE, "1.cls": b"newt", "2.jpg": IMAGE, "3.jpg": IMAGE})
    with tarfile.open(path, "a") as tar:
        for name, kind in (("2.cls", tarfile.LNKTYPE), ("3.cls", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "1.cls"
            tar.addfile(link)
    assert list_tars(tmp_path, test=None)["category"].to_pylist() == ["newt"] * 3
    with tarfile.open(path, "a") as tar:
        link.name, link.linkname = "4.cls", "5.cls"
        tar.addfile(link)
    with pytest.raises(StudyError, match=r"'4\.cls' .*links to a member that is not there"):
        list_tars(tmp_path, test=None)


def test_a_shorter_archive_than_listed_has_changed(tmp_path: Path) -> None:
    path = write_tar(tmp_path, {"ant/1.jpg": IMAGE, "ant/2.jpg": IMAGE})
    listing = list_tars(tmp_path, test=None)
    path.write_bytes(path.read_bytes()[: listing["position"][1].as_py() + 9])
    with pytest.raises(StudyError, match=r"0\.tar' has changed since"):
        read_tars(tmp_path, listing)


def test_data_of_images_is_not_read_while_listing(tmp_path: Path) -> None:
    path = write_tar(tmp_path, {f"ant/{n}.jpg": bytes(10**6) for n in range(3)})
    root = ImageRoot(str(tmp_path))
    counted: list[int] = []

    class CountingRoot(ImageRoot):
        def open_file(self, path: str) -> Any:
            return io.BufferedReader(CountingFile(root.get_full_path(path), counted))

    dataset = Dataset(name="d", root=str(tmp_path), layout="webdataset", test=None)
    assert list_images(dataset, CountingRoot(root.uri)).num_rows == 3
    assert 0 < sum(counted) < path.stat().st_size / 50
    assert posixpath.basename(path) == "0.tar"


class CountingFile(io.FileIO):
    def __init__(self, path: str, counted: list[int]) -> None:
        super().__init__(path)
        self._counted = counted

    def readinto(self, buffer: Any) -> int:
        self._counted.append(super().readinto(buffer) or 0)
        return self._counted[-1]
