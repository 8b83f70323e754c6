import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from iqray.errors import StudyError
from iqray.preflight import check_study
from iqray.storage import Storage
from iqray.study_file import parse_study
from tests.conftest import MakeDataset
from tests.layout_files import LAYOUTS, WRITERS, encode_images


def check(
    images: Path, weights: Path | str | None, output: Path, **changes: Any
) -> dict[str, pa.Table]:
    content = {
        "name": "s",
        "root": str(output),
        "datasets": [{"name": "d", "root": str(images)}],
        "metrics": ["brisque"],
        "recipe": "demo",
        "weights": {"demo": True} if weights is None else {"directory": str(weights)},
        "subsets": {"fraction": 0.5},
        **changes,
    }
    study = parse_study(content)
    return check_study(study, Storage(study.root))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "brisque_svm_weights.pth").write_bytes(b"any bytes: only the sum is taken here")
    return folder


def test_a_sound_study_passes(make_dataset: MakeDataset, weights: Path, tmp_path: Path) -> None:
    check(make_dataset(), weights, tmp_path / "out")


def test_unknown_metric(make_dataset: MakeDataset, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"'musik'.*choose from.*did you mean 'musiq'"):
        check(make_dataset(), weights, tmp_path / "out", metrics=["musik"])


def test_missing_weights(make_dataset: MakeDataset, weights: Path, tmp_path: Path) -> None:
    (weights / "brisque_svm_weights.pth").unlink()
    with pytest.raises(StudyError, match=r"brisque_svm_weights\.pth"):
        check(make_dataset(), weights, tmp_path / "out")


def test_missing_folder(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="has no folder"):
        check(tmp_path / "nowhere", weights, tmp_path / "out")


def test_category_without_test_images(
    make_dataset: MakeDataset, weights: Path, tmp_path: Path
) -> None:
    root = make_dataset()
    shutil.rmtree(root / "val" / "bee")
    with pytest.raises(StudyError, match="no images in 'val' for 'bee'; every category"):
        check(root, weights, tmp_path / "out")


def test_images_outside_category_folders_are_no_silent_loss(
    make_dataset: MakeDataset, weights: Path, tmp_path: Path
) -> None:
    root = make_dataset()
    (root / "train/ant/0000.jpg").rename(root / "train/0000.jpg")
    with pytest.raises(StudyError, match=r"for 'train'; .*'train' holds the images directly in"):
        check(root, weights, tmp_path / "out")


def test_a_study_needs_test_images(
    make_dataset: MakeDataset, weights: Path, tmp_path: Path
) -> None:
    datasets = [{"name": "d", "root": str(make_dataset()), "test": None}]
    with pytest.raises(StudyError, match=r"'d' has no test split.*name one, or only score"):
        check(tmp_path, weights, tmp_path / "out", datasets=datasets)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_listings_of_the_check_are_handed_on(layout: str, weights: Path, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path / "in", encode_images(("ant", "bee", "cat", "dog")))
    root = str(tmp_path / "in")
    datasets = [{"name": "d", "root": root, "layout": layout, **LAYOUTS[layout]}]
    listings = check(tmp_path, weights, tmp_path / "out", datasets=datasets)
    assert listings["d"].num_rows == 4 * 5


@pytest.mark.parametrize(
    ("subsets", "message"),
    [
        ({"k": 5}, r"has 4 categories and subsets.k is 5; a subset needs at least 2"),
        ({"fraction": 0.25}, r"subsets.fraction 0.25 of 4 categories is 1"),
        ({"k": 2, "disjoint": True}, r"has 4 categories, and 4 disjoint subsets of 2 need 8"),
    ],
)
def test_too_few_categories(
    make_dataset: MakeDataset,
    weights: Path,
    tmp_path: Path,
    subsets: dict[str, float | bool],
    message: str,
) -> None:
    with pytest.raises(StudyError, match=message):
        check(make_dataset(), weights, tmp_path / "out", subsets=subsets)


def test_matched_controls_need_as_many_other_categories(
    make_dataset: MakeDataset, weights: Path, tmp_path: Path
) -> None:
    changes = {"subsets": {"k": 3}, "controls": {"random": 2, "count_matched": 1}}
    with pytest.raises(StudyError, match=r"controls\.count_matched: .* 3 of its 4 categories"):
        check(make_dataset(), weights, tmp_path / "out", **changes)


def test_halves_need_two_images(make_dataset: MakeDataset, weights: Path, tmp_path: Path) -> None:
    changes = {"controls": {"image_halves": True}}
    root = make_dataset(num_train=2)
    check(root, weights, tmp_path / "out", **changes)
    (root / "train/cat/0001.jpg").unlink()
    with pytest.raises(StudyError, match=r"image_halves: category 'cat' of dataset 'd' has one"):
        check(root, weights, tmp_path / "other", **changes)


def test_root_that_cannot_be_written(
    make_dataset: MakeDataset, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match=r"cannot be written.*choose another with --root"):
        check(make_dataset(), weights, tmp_path / "file" / "out")


def test_demo_needs_a_local_root(weights: Path, tmp_path: Path) -> None:
    demo = [{"name": "d", "demo": "a"}]
    with pytest.raises(StudyError, match="not a local folder"):
        check(tmp_path, weights, Path("out"), root="s3://bucket/x", datasets=demo)


def test_metrics_beyond_the_papers_six_need_prefetched_files(
    make_dataset: MakeDataset, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=r"'topiq_nr' .*prefetch_weights\.py --metrics topiq_nr"):
        check(make_dataset(), weights, tmp_path / "out", metrics=["brisque", "topiq_nr"])
    with pytest.raises(StudyError, match="'topiq_nr' has no demo weights"):
        check(tmp_path, None, tmp_path / "out", metrics=["topiq_nr"])


def test_weights_behind_a_uri_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"directory 'nope://bucket' cannot be read"):
        check(tmp_path, "nope://bucket", tmp_path / "out")
