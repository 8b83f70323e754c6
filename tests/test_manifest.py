from pathlib import Path

import pytest

from iqray.dataset import Dataset
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.listing import list_images
from iqray.inputs.manifest import (
    build_manifests,
    is_manifest_current,
    make_manifest_key,
    plan_manifest,
    read_manifest,
)
from iqray.inputs.sources import ImageSource
from iqray.pools import PoolSize, Written
from iqray.storage import Storage
from tests.conftest import MakeDataset


@pytest.mark.usefixtures("local_ray")
def test_every_file_has_a_row_with_what_is_in_it(make_dataset: MakeDataset, tmp_path: Path) -> None:
    root = make_dataset(size=(112, 96))
    good = (root / "train/ant/0000.jpg").read_bytes()
    (root / "train/ant/0001.jpg").write_bytes(good[:-300])
    (root / "train/ant/0002.jpg").write_bytes(b"")
    (root / "val/bee/0001.jpg").write_bytes(good)
    dataset = Dataset(name="d", root=str(root))
    source = ImageSource(ImageRoot(str(root)))
    listing = list_images(dataset, source.root)
    storage = Storage(str(tmp_path / "out"))
    written: list[Written] = []

    build_manifests(storage, [plan_manifest("d", source, listing)], PoolSize(1, 1), written.append)

    rows = {row["path"]: row for row in read_manifest(storage, "d").to_pylist()}
    assert sum(part.num_rows for part in written) == len(rows) == 4 * 5
    assert sum(part.num_failed for part in written) == 2
    assert storage.list_names("manifest") == {"d.parquet"}
    assert rows["train/bee/0000.jpg"]["status"] == "ok"
    assert (rows["train/bee/0000.jpg"]["width"], rows["train/bee/0000.jpg"]["height"]) == (112, 96)
    assert rows["train/ant/0001.jpg"]["status"] == "truncated"
    assert rows["train/ant/0002.jpg"]["reason"] == "there are no bytes"
    assert rows["val/bee/0001.jpg"]["sha256"] == rows["train/ant/0000.jpg"]["sha256"]
    assert rows["val/bee/0001.jpg"]["split"] == "test"
    assert sum(row["status"] == "ok" for row in rows.values()) == 18

    assert rows["train/bee/0000.jpg"]["container"] == ""
    assert is_manifest_current(storage, "d", make_manifest_key(source, listing))
    (root / "val/bee/0001.jpg").unlink()
    changed = list_images(dataset, source.root)
    assert not is_manifest_current(storage, "d", make_manifest_key(source, changed))
