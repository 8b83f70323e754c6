"""The same images in every layout: listed, described and packed alike."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.listing import fingerprint_listing, list_images
from iqray.inputs.manifest import build_manifests, plan_manifest, read_manifest
from iqray.inputs.sources import ImageSource
from iqray.packs.packing import open_pack
from iqray.pools import PoolSize
from iqray.storage import Storage
from tests.layout_files import LAYOUTS, WRITERS, encode_images
from tests.pack_files import pack_images

IMAGES = encode_images()


@pytest.fixture(params=list(LAYOUTS))
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    """The images in one layout, below a root whose URI needs quoting."""
    root = tmp_path / "a folder"
    WRITERS[request.param](root, IMAGES)
    return Dataset(name="d", root=str(root), layout=request.param, **LAYOUTS[request.param])


def list_dataset(dataset: Dataset) -> pa.Table:
    return list_images(dataset, ImageRoot.parse(str(dataset.root)))


def read_all(dataset: Dataset, rows: pa.Table) -> list[Any]:
    return list(ImageSource.of(dataset, ImageRoot.parse(str(dataset.root))).read(rows))


def list_expected(split: str) -> list[tuple[str, bytes]]:
    folder = {"train": "train/", "test": "val/"}[split]
    return [(path.split("/")[1], data) for path, data in IMAGES.items() if path.startswith(folder)]


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_image_is_found_with_its_category_and_bytes(dataset: Dataset, split: str) -> None:
    listing = list_dataset(dataset)
    own = listing.filter(pa.compute.equal(listing["split"], split))
    found = list(zip(own["category"].to_pylist(), read_all(dataset, own), strict=True))
    assert sorted(found) == sorted(list_expected(split))


def test_order_and_part_of_the_rows_do_not_matter(dataset: Dataset) -> None:
    listing = list_dataset(dataset)
    whole = read_all(dataset, listing)
    order = np.random.default_rng(0).permutation(listing.num_rows)[:7]
    assert read_all(dataset, listing.take(pa.array(order))) == [whole[index] for index in order]


def test_a_file_uri_gives_what_the_folder_gives(dataset: Dataset) -> None:
    uri = Path(str(dataset.root)).as_uri()
    assert uri.startswith("file://")
    assert list_dataset(dataset.model_copy(update={"root": uri})).equals(list_dataset(dataset))


def test_fingerprint_changes_when_a_file_is_touched(dataset: Dataset) -> None:
    before = fingerprint_listing(list_dataset(dataset))
    assert fingerprint_listing(list_dataset(dataset)) == before
    file = next(path for path in Path(str(dataset.root)).rglob("*") if path.is_file())
    file.touch()
    assert fingerprint_listing(list_dataset(dataset)) != before


def test_a_missing_file_is_a_failure_of_its_images_only(dataset: Dataset) -> None:
    listing = list_dataset(dataset)
    row = listing.slice(0, 1).to_pylist()[0]
    (Path(str(dataset.root)) / (row["container"] or row["path"])).unlink()
    data = read_all(dataset, listing)
    lost = [not isinstance(image, bytes) for image in data]
    expected = [container == row["container"] for container in listing["container"].to_pylist()]
    if dataset.layout == "folders":
        expected = [path == row["path"] for path in listing["path"].to_pylist()]
    assert lost == expected
    assert {image.status for image, is_lost in zip(data, lost, strict=True) if is_lost} == {
        "missing"
    }


@pytest.mark.usefixtures("local_ray")
def test_manifest_and_packs_are_those_of_the_images(dataset: Dataset, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "out"))
    source = ImageSource.of(dataset, ImageRoot.parse(str(dataset.root)))
    plan = plan_manifest("d", source, list_dataset(dataset))
    build_manifests(storage, [plan], PoolSize(1, 1), lambda _: None)
    manifest = read_manifest(storage, "d")
    assert manifest["status"].to_pylist() == ["ok"] * len(IMAGES)
    sums = [hashlib.sha256(data).hexdigest() for data in IMAGES.values()]
    assert sorted(manifest["sha256"].to_pylist()) == sorted(sums)
    sizes = sorted(len(data) for data in IMAGES.values())
    assert sorted(manifest["num_bytes"].to_pylist()) == sizes

    train = manifest.filter(pa.compute.equal(manifest["split"], "train"))
    train = train.sort_by("sha256")
    targets = {name: tmp_path / "packs" / name for name in ("ant", "bee")}
    pack_images(source, train, 32, targets)
    digest = hashlib.sha256()
    for target in targets.values():
        assert len(open_pack(target)) == 3
        digest.update(open_pack(target).pixels.tobytes())
    assert digest.hexdigest() == pack_plainly()


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_bad_images_are_rows_with_a_reason(layout: str, tmp_path: Path) -> None:
    images = dict(IMAGES)
    images["train/ant/part0/0.jpeg"] = images["train/ant/part0/0.jpeg"][:-300]
    images["train/bee/part0/2.jpeg"] = b"no image"
    images["val/bee/part0/0.jpeg"] = b""
    WRITERS[layout](tmp_path / "in", images)
    dataset = Dataset(name="d", root=f"{tmp_path}/in", layout=layout, **LAYOUTS[layout])
    source = ImageSource.of(dataset, ImageRoot(str(dataset.root)))
    storage = Storage(str(tmp_path / "out"))
    plan = plan_manifest("d", source, list_dataset(dataset))
    build_manifests(storage, [plan], PoolSize(1, 1), lambda _: None)
    rows = read_manifest(storage, "d").to_pylist()
    found = {(row["split"], row["category"], row["reason"]) for row in rows if row["reason"]}
    assert len(rows) == len(images)
    assert {(split, category) for split, category, _ in found} == {
        ("train", "ant"),
        ("train", "bee"),
        ("test", "bee"),
    }
    assert ("train", "bee", "not an image of a known format") in found
    assert ("test", "bee", "there are no bytes") in found


def pack_plainly() -> str:
    """Digest of the packed training images, decoded and resized by Pillow here."""
    digest = hashlib.sha256()
    for category in ("ant", "bee"):
        own = [data for path, data in IMAGES.items() if path.startswith(f"train/{category}/")]
        for data in sorted(own, key=lambda data: hashlib.sha256(data).hexdigest()):
            with Image.open(io.BytesIO(data)) as image:
                width = int(32 * image.width / image.height)
                resized = image.convert("RGB").resize((width, 32), Image.Resampling.BILINEAR)
            digest.update(np.asarray(resized).tobytes())
    return digest.hexdigest()


def test_a_changed_image_is_not_packed(dataset: Dataset, tmp_path: Path) -> None:
    listing = list_dataset(dataset)
    count = listing.num_rows
    listing = listing.append_column("sha256", pa.array(["0" * 64] * count))
    for name, size in (("width", 60), ("height", 50)):
        listing = listing.append_column(name, pa.array([size] * count))
    source = ImageSource.of(dataset, ImageRoot.parse(str(dataset.root)))
    with pytest.raises(StudyError, match="has changed since its manifest was made"):
        pack_images(source, listing, 32, {"ant": tmp_path / "packs" / "ant"})
    assert list((tmp_path / "packs").iterdir()) == []


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_test_images_can_be_left_out(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path / "root", IMAGES)
    settings = {**LAYOUTS[layout], "test": None}
    listing = list_dataset(Dataset(name="d", root=f"{tmp_path}/root", layout=layout, **settings))
    assert listing["split"].to_pylist() == ["train"] * 6


@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_a_split_without_files_is_named(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path, IMAGES)
    settings = {**LAYOUTS[layout], "test": "data/test-*"}
    dataset = Dataset(name="d", root=str(tmp_path), layout=layout, **settings)
    with pytest.raises(StudyError, match=rf"no image in '.*data/test-\*'; layout {layout} needs"):
        list_dataset(dataset)
    missing = dataset.model_copy(update={"test": "nowhere"})
    with pytest.raises(StudyError, match=r"no folder '.*/nowhere'"):
        list_dataset(missing)
