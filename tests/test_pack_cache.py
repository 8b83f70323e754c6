import logging
import multiprocessing
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.images import ImageFailure
from iqray.inputs.sources import ImageSource
from iqray.packs.cache import PackCache
from tests.image_files import describe_files, write_images

SIDE_PX = 32
PACK_BYTES = 4 * SIDE_PX * SIDE_PX * 3  # four square images
GIB = 2**30


class CountingSource(ImageSource):
    """A source that leaves a mark for every image that any process reads from it."""

    def read(self, rows: pa.Table) -> Iterator[bytes | ImageFailure]:
        for data in super().read(rows):
            (Path(os.environ["MARKS"]) / uuid.uuid4().hex).touch()
            yield data


SOURCE = CountingSource(ImageRoot("/"))


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """Rows of three categories, four images each."""
    monkeypatch.setenv("MARKS", str(tmp_path / "marks"))
    (tmp_path / "marks").mkdir()
    return describe_files(
        {
            name: write_images(tmp_path / name, [(40, 40)] * 4, seed)
            for seed, name in enumerate(("ant", "bee", "cat"))
        }
    )


def count_reads(tmp_path: Path) -> int:
    return len(list((tmp_path / "marks").iterdir()))


def open_sum(folder: Path, images: pa.Table, categories: tuple[str, ...]) -> int:
    """Open packs, in a process of a pool; the sum of their pixels."""
    packs = PackCache(folder).open(SOURCE, images, categories, SIDE_PX)
    return sum(int(pack.pixels.sum()) for pack in packs)


def list_packs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*") if path.is_dir())


def test_packs_come_in_the_order_asked_for_and_are_made_once(
    images: pa.Table, tmp_path: Path
) -> None:
    cache = PackCache(tmp_path / "packs")
    first = cache.open(SOURCE, images, ["cat", "ant"], SIDE_PX, num_threads=2)
    again = cache.open(SOURCE, images, ["ant", "bee", "cat"], SIDE_PX)
    assert count_reads(tmp_path) == 12
    np.testing.assert_array_equal(first[0].pixels, again[2].pixels)
    np.testing.assert_array_equal(first[1].pixels, again[0].pixels)
    assert len(list_packs(tmp_path / "packs")) == 3


def test_another_stored_side_is_another_pack(images: pa.Table, tmp_path: Path) -> None:
    cache = PackCache(tmp_path / "packs")
    shapes = [
        cache.open(SOURCE, images, ["ant"], side)[0].shapes[0].tolist()
        for side in (SIDE_PX, "native")
    ]
    assert shapes == [[32, 32], [40, 40]]
    assert len(list_packs(tmp_path / "packs")) == 2


def test_categories_without_images_share_an_empty_pack(images: pa.Table, tmp_path: Path) -> None:
    packs = PackCache(tmp_path / "packs").open(SOURCE, images, ["none", "ant", "nil"], SIDE_PX)
    assert [len(pack) for pack in packs] == [0, 4, 0]


def test_processes_that_start_together_decode_each_image_once(
    images: pa.Table, tmp_path: Path
) -> None:
    folder = tmp_path / "packs"
    orders = [("ant", "bee", "cat"), ("cat", "bee", "ant")] * 2
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.starmap(open_sum, [(folder, images, order) for order in orders], chunksize=1)
    assert len(set(sums)) == 1
    assert count_reads(tmp_path) == 12
    assert [path.name for path in list_packs(folder) if path.name.startswith(".")] == []


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_broken_pack_is_made_again(
    damage: str, images: pa.Table, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = PackCache(tmp_path / "packs")
    expected = cache.open(SOURCE, images, ["ant"], SIDE_PX)[0].pixels.copy()
    [pack] = list_packs(tmp_path / "packs")
    content = bytearray((pack / "pixels.npy").read_bytes())
    content[1000] ^= 4
    if damage == "delete":
        (pack / "pixels.npy").unlink()
    else:
        (pack / "pixels.npy").write_bytes(content if damage == "flip" else content[:2000])
    with caplog.at_level(logging.WARNING):
        [found] = cache.open(SOURCE, images, ["ant"], SIDE_PX)
    np.testing.assert_array_equal(found.pixels, expected)
    assert "of category 'ant' is broken; making it again" in caplog.text
    assert count_reads(tmp_path) == 8


def test_whoever_has_a_broken_pack_open_keeps_what_it_verified(
    images: pa.Table, tmp_path: Path
) -> None:
    cache = PackCache(tmp_path / "packs")
    [held] = cache.open(SOURCE, images, ["ant"], SIDE_PX)
    expected = held.pixels.copy()
    [pack] = list_packs(tmp_path / "packs")
    (pack / "sums.json").unlink()
    [made] = cache.open(SOURCE, images, ["ant"], SIDE_PX)
    np.testing.assert_array_equal(held.pixels, expected)
    np.testing.assert_array_equal(made.pixels, expected)


def test_what_a_killed_process_left_is_cleared(images: pa.Table, tmp_path: Path) -> None:
    cache = PackCache(tmp_path / "packs")
    cache.open(SOURCE, images, ["ant"], SIDE_PX)
    [pack] = list_packs(tmp_path / "packs")
    (pack / "sums.json").unlink()
    left = pack.with_name(f".{pack.name}.abc123")
    left.mkdir()
    (left / "pixels.npy").write_bytes(b"half")
    cache.open(SOURCE, images, ["ant"], SIDE_PX)
    assert list_packs(tmp_path / "packs") == [pack]


def test_a_bound_too_small_for_one_trial_is_refused_before_decoding(
    images: pa.Table, tmp_path: Path
) -> None:
    cache = PackCache(tmp_path / "packs", limit_gib=2 * PACK_BYTES / GIB)
    with pytest.raises(StudyError, match=r"packs may take .* raise training\.pack_cache_gib"):
        cache.open(SOURCE, images, ["ant", "bee", "cat"], SIDE_PX)
    assert count_reads(tmp_path) == 0


def test_an_unreadable_image_leaves_nothing_behind(images: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "bee" / "2.png").unlink()
    with pytest.raises(StudyError, match=r"cannot pack '.*bee/2\.png'"):
        PackCache(tmp_path / "packs").open(SOURCE, images, ["ant", "bee"], SIDE_PX)
    assert len(list_packs(tmp_path / "packs")) == 1  # of the ants


def test_unused_packs_make_room_for_new_ones(images: pa.Table, tmp_path: Path) -> None:
    cache = PackCache(tmp_path / "packs", limit_gib=2.9 * PACK_BYTES / GIB)
    held = cache.open(SOURCE, images, ["ant"], SIDE_PX)
    for category in ("bee", "cat"):
        cache.open(SOURCE, images, [category], SIDE_PX)
    assert len(list_packs(tmp_path / "packs")) == 2
    cache.open(SOURCE, images, ["ant"], SIDE_PX)
    assert count_reads(tmp_path) == 12  # the ants, open all the time, were not made again
    with pytest.raises(StudyError, match="in use by trials that run at the same time"):
        held += cache.open(SOURCE, images, ["bee", "cat"], SIDE_PX)
    assert len(held) == 1
