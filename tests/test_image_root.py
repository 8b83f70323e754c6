"""Roots at a URI: what is found and read there is what a local folder gives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.images import ImageFailure
from iqray.inputs.listing import list_images
from iqray.inputs.sources import ImageSource
from tests.layout_files import LAYOUTS, WRITERS, encode_images, write_folders
from tests.s3_server import BUCKET, serve_folder

IMAGES = encode_images()


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3-compatible server of the test's folder."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with serve_folder(tmp_path) as found:
        yield found


def get_uri(address: str, path: str) -> str:
    return f"s3://{BUCKET}/{path}?endpoint_override={address}&scheme=http"


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_an_object_store_gives_what_the_folder_gives(
    layout: str, tmp_path: Path, address: str
) -> None:
    WRITERS[layout](tmp_path / "some" / "images", IMAGES)
    uri = get_uri(address, "some/images")
    dataset = Dataset(name="d", root=uri, layout=layout, **LAYOUTS[layout])
    local, remote = ImageRoot(f"{tmp_path}/some/images"), ImageRoot.parse(uri)
    listing = list_images(dataset, remote)
    expected = list_images(dataset, local)
    times = ["modified_ns"]  # the server gives its own
    assert listing.drop_columns(times).equals(expected.drop_columns(times))
    read = [list(ImageSource.of(dataset, root).read(listing)) for root in (remote, local)]
    assert read[0] == read[1]
    assert sorted(read[0]) == sorted(IMAGES.values())

    first = listing.slice(0, 1).to_pylist()[0]
    (tmp_path / "some/images" / (first["container"] or first["path"])).unlink()
    lost = next(ImageSource.of(dataset, remote).read(listing))
    assert isinstance(lost, ImageFailure)
    assert lost.status == "missing"


def test_images_outside_category_folders_are_found_in_an_object_store(
    tmp_path: Path, address: str
) -> None:
    write_folders(tmp_path / "flat", {"loose.jpg": b"1", "ant/1.jpg": b"2", "notes.txt": b""})
    dataset = Dataset(name="d", root=get_uri(address, "flat"), train=".", test=None)
    listing = list_images(dataset, ImageRoot.parse(str(dataset.root)))
    assert listing["category"].to_pylist() == ["flat", "ant"]
    assert listing["path"].to_pylist() == ["loose.jpg", "ant/1.jpg"]


def test_a_missing_bucket_is_named(address: str) -> None:
    dataset = Dataset(name="d", root="s3://other/x")
    root = ImageRoot.parse(get_uri(address, "x").replace(f"//{BUCKET}", "//key:secret@other"))
    with pytest.raises(StudyError, match="'s3://other/x/train' cannot be listed"):
        list_images(dataset, root)


def test_unknown_stores_are_refused_and_credentials_are_not_shown() -> None:
    with pytest.raises(
        StudyError, match=r"root 'ftp://host/x' cannot be opened.*s3://bucket"
    ) as caught:
        ImageRoot.parse("ftp://user:secret@host/x?token=secret")
    assert "secret" not in str(caught.value)


def test_local_roots_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = ImageRoot(f"{tmp_path}/images")
    for text in ("images", "~/images", f"{tmp_path}/images", f"file://{tmp_path}/images"):
        assert ImageRoot.parse(text) == expected


def test_globs_match_within_names(tmp_path: Path) -> None:
    for name in ("a/x-1.tar", "a/x-2.TAR", "a/y-1.tar", "a/b/x-3.tar", "a/.x-4.tar", "a/x-5.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    root = ImageRoot(str(tmp_path))

    def find(pattern: str) -> list[str]:
        return [file.path for file in root.find_files(pattern, (".tar",))]

    assert find("a/x-*") == ["a/x-1.tar", "a/x-2.TAR"]
    assert find("a/*/x-?.tar") == ["a/b/x-3.tar"]
    assert find("*/[xy]-1.tar") == ["a/x-1.tar", "a/y-1.tar"]
    assert find("a") == ["a/b/x-3.tar", "a/x-1.tar", "a/x-2.TAR", "a/y-1.tar"]
    assert find(".") == find("a")
    assert find("nowhere/*") == find("nowhere") == []
