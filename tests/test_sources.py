import os
import pickle
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.images import ImageFailure
from iqray.inputs.listing import LISTING, list_images
from iqray.inputs.sources import ImageSource


def make_rows(*paths: str) -> pa.Table:
    rows = [{"path": path, "container": "", "position": 0} for path in paths]
    return pa.Table.from_pylist(rows, schema=LISTING)


def test_images_come_in_the_order_of_their_rows_with_missing_ones_named(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    source = pickle.loads(pickle.dumps(ImageSource(ImageRoot(str(tmp_path)))))  # noqa: S301
    read = list(source.read(make_rows("b.jpg", "gone.jpg", "a.jpg")))
    assert read == [b"b.jpg", ImageFailure("missing", "no such file"), b"a.jpg"]


def test_what_can_never_be_read_is_not_recorded_as_an_images_failure(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    source = ImageSource(ImageRoot(str(tmp_path)))
    with pytest.raises(StudyError, match=r"image '.*/folder\.jpg' cannot be read: .*directory"):
        list(source.read(make_rows("folder.jpg")))


@pytest.fixture
def bad_file(tmp_path: Path) -> Path:
    """A file whose reads end in the error of a broken disk: this process's memory at 0."""
    path = tmp_path / "a.jpg"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error"):
        path.read_bytes()
    return path


def test_reads_that_fail_for_a_while_are_tried_again(bad_file: Path) -> None:
    whole = bad_file.with_name("whole")
    whole.write_bytes(b"image")
    mended = threading.Timer(0.1, whole.replace, [bad_file])
    mended.start()
    assert list(ImageSource(ImageRoot(str(bad_file.parent))).read(make_rows("a.jpg"))) == [b"image"]
    mended.join()


def test_reads_that_keep_failing_stop_the_study(bad_file: Path) -> None:
    images = ImageSource(ImageRoot(str(bad_file.parent))).read(make_rows("a.jpg"))
    with pytest.raises(StudyError, match=r"a\.jpg' cannot be read: .*Input/output error"):
        list(images)


def test_links_to_nowhere_are_missing_and_foreign_names_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "ant"
    folder.mkdir(parents=True)
    (folder / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    dataset = Dataset(name="d", root=str(tmp_path), test=None)
    listing = list_images(dataset, ImageRoot(str(tmp_path)))
    assert listing["path"].to_pylist() == ["train/ant/link.jpg"]
    [lost] = ImageSource(ImageRoot(str(tmp_path))).read(listing)
    assert isinstance(lost, ImageFailure)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg")).write_bytes(b"")
    with pytest.raises(StudyError, match="is not UTF-8; rename it"):
        list_images(dataset, ImageRoot(str(tmp_path)))
