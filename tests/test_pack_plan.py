import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.sources import ImageSource
from iqray.packs.cache import PackCache
from iqray.packs.plan import check_packs_fit, compute_category_bytes
from iqray.recipes import RECIPES, StoredSide
from iqray.schemas import MANIFEST
from iqray.trials import Trial
from tests.image_files import describe_files, write_images

RECIPE = RECIPES["paper"].model_copy(update={"stored_short_side_px": 32})


@pytest.fixture
def manifest(tmp_path: Path) -> pa.Table:
    """Two categories of ragged images, and a row that cannot be decoded."""
    files = {
        "ant": write_images(tmp_path / "ant", [(50, 40), (33, 47), (20, 90)]),
        "bee": write_images(tmp_path / "bee", [(64, 64)], seed=1),
    }
    rows = [{**row, "status": "ok"} for row in describe_files(files).to_pylist()]
    broken = {**rows[0], "status": "decode_error", "width": None, "height": None}
    return pa.Table.from_pylist([*rows, broken], schema=MANIFEST)


@pytest.mark.parametrize("stored_px", [32, "native"])
def test_planned_bytes_are_those_of_the_packs(
    manifest: pa.Table, stored_px: StoredSide, tmp_path: Path
) -> None:
    sizes = compute_category_bytes(manifest, stored_px)
    source = ImageSource(ImageRoot("/"))
    images = manifest.slice(0, 4)
    packs = PackCache(tmp_path / "packs").open(source, images, ["ant", "bee"], stored_px)
    assert sizes == {"ant": packs[0].pixels.nbytes, "bee": packs[1].pixels.nbytes}


def test_a_bound_must_hold_the_largest_trial(manifest: pa.Table) -> None:
    small = Trial("d", "resnet50", ("bee",), "images", 1, 0, 0, 1, 0, RECIPE, {})
    large = dataclasses.replace(small, categories=("ant", "bee"))
    needed_gib = sum(compute_category_bytes(manifest, 32).values()) / 2**30
    check_packs_fit([small, large], {"d": manifest}, needed_gib)
    check_packs_fit([small], {"d": manifest}, 0.9 * needed_gib)
    with pytest.raises(StudyError, match=f"images of trial {large.trial_id} take"):
        check_packs_fit([small, large], {"d": manifest}, 0.9 * needed_gib)
