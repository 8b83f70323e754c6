from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.listing import fingerprint_listing, list_images
from tests.conftest import MakeDataset

COLUMNS = ("split", "category", "path")


def list_folder(root: Path, **settings: Any) -> pa.Table:
    return list_images(Dataset(name="d", root=str(root), **settings), ImageRoot(str(root)))


def test_paths_and_categories_are_the_users_own(make_dataset: MakeDataset) -> None:
    root = make_dataset(categories=("Ant", "bee hive"), num_train=1, num_test=1)
    nested = root / "train" / "Ant" / "2024" / "may"
    nested.mkdir(parents=True)
    (root / "train/Ant/0000.jpg").rename(nested / "0000.JPEG")
    (root / "train/Ant/notes.txt").write_text("no image")
    (root / "train/Ant/.hidden.jpg").write_bytes(b"")
    listing = list_folder(root)
    assert list(zip(*(listing[name].to_pylist() for name in COLUMNS), strict=True)) == [
        ("train", "Ant", "train/Ant/2024/may/0000.JPEG"),
        ("train", "bee hive", "train/bee hive/0000.jpg"),
        ("test", "Ant", "val/Ant/0000.jpg"),
        ("test", "bee hive", "val/bee hive/0000.jpg"),
    ]


def test_images_beside_categories_belong_to_their_folders_name(make_dataset: MakeDataset) -> None:
    root = make_dataset(categories=("ant", "bee"), num_train=1, num_test=1)
    (root / "train/ant/0000.jpg").rename(root / "train/loose.JPG")
    (root / "train/.hidden.jpg").write_bytes(b"")
    (root / "train/notes.txt").write_text("no image")
    listing = list_folder(root, test=None)
    assert listing["category"].to_pylist() == ["train", "bee"]
    assert listing["path"].to_pylist() == ["train/loose.JPG", "train/bee/0000.jpg"]


def test_a_flat_folder_is_one_category(make_dataset: MakeDataset) -> None:
    folder = make_dataset(categories=("my ants",), num_train=2) / "train" / "my ants"
    listing = list_folder(folder, train=".", test=None)
    assert listing["category"].to_pylist() == ["my ants"] * 2
    assert listing["path"].to_pylist() == ["0000.jpg", "0001.jpg"]


def test_equal_base_names_keep_apart(make_dataset: MakeDataset) -> None:
    root = make_dataset()
    listing = list_folder(root)
    assert len(set(listing["image_id"].to_pylist())) == listing.num_rows == 4 * 5


def test_fingerprint_changes_with_any_file(make_dataset: MakeDataset) -> None:
    root = make_dataset()
    before = fingerprint_listing(list_folder(root))
    assert fingerprint_listing(list_folder(root)) == before
    (root / "val/cat/0001.jpg").write_bytes(b"another image")
    assert fingerprint_listing(list_folder(root)) != before


def test_missing_and_empty_folders_are_named(make_dataset: MakeDataset, tmp_path: Path) -> None:
    root = make_dataset()
    with pytest.raises(StudyError, match=r"'d' has no folder '.*nowhere'.*layout folders needs"):
        list_folder(root, test="nowhere")
    (tmp_path / "images/train_empty").mkdir()
    with pytest.raises(StudyError, match="has no image in"):
        list_folder(root, train="train_empty")


def test_a_loop_of_links_is_named(make_dataset: MakeDataset) -> None:
    root = make_dataset()
    (root / "train/ant/again").symlink_to(root / "train/ant/again")
    (root / "train/ant/loop").symlink_to(root / "train/ant")
    with pytest.raises(StudyError, match="cannot be listed"):
        list_images(Dataset(name="d", root=str(root)), ImageRoot(str(root)))
