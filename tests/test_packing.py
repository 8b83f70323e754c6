import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.images import ImageHeader, read_header
from iqray.inputs.sources import ImageSource
from iqray.packing import concatenate, open_pack, pack_images
from iqray.schemas import MANIFEST


def _write_images(folder: Path, sizes: list[tuple[int, int]], seed: int = 0) -> list[Path]:
    """PNG files of random pixels; sizes are (width, height)."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    files = []
    for number, (width, height) in enumerate(sizes):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        files.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def pack_files(files: list[Path], short_side_px: int, target: Path) -> None:
    """Pack files of one category, as a manifest describes them."""
    rows = []
    for file in files:
        row = {"path": file.as_posix()[1:], "category": "c", "container": "", "position": 0}
        if file.exists():
            header = read_header(file.read_bytes())
            assert isinstance(header, ImageHeader)
            row |= {"width": header.width, "height": header.height}
            row |= {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        rows.append(row)
    manifest = pa.Table.from_pylist(rows, schema=MANIFEST)
    pack_images(ImageSource(ImageRoot("/")), manifest, short_side_px, {"c": target})


def _resize_directly(file: Path, width: int, height: int) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def test_a_pack_holds_what_decoding_and_resizing_gives(tmp_path: Path) -> None:
    # Landscape, portrait, square, smaller than the stored side.
    files = _write_images(tmp_path / "images", [(100, 61), (50, 90), (40, 40), (20, 17)])
    pack_files(files, 40, tmp_path / "pack")
    pack = open_pack(tmp_path / "pack")

    stored_sizes = [(65, 40), (40, 72), (40, 40), (47, 40)]
    assert len(pack) == 4
    for index, (width, height) in enumerate(stored_sizes):
        expected = _resize_directly(files[index], width, height)
        np.testing.assert_array_equal(pack.image(index), expected)
        assert tuple(pack.shapes[index]) == (height, width)


def test_an_image_of_the_stored_size_keeps_its_pixels(tmp_path: Path) -> None:
    files = _write_images(tmp_path / "images", [(48, 32)])
    pack_files(files, 32, tmp_path / "pack")
    with Image.open(files[0]) as image:
        np.testing.assert_array_equal(open_pack(tmp_path / "pack").image(0), np.asarray(image))


def test_grey_and_rotated_images_become_unrotated_rgb(tmp_path: Path) -> None:
    grey = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees when shown"
    Image.fromarray(grey).save(tmp_path / "grey.png", exif=exif)
    pack_files([tmp_path / "grey.png"], 40, tmp_path / "pack")
    image = open_pack(tmp_path / "pack").image(0)
    np.testing.assert_array_equal(image, np.repeat(grey[:, :, None], 3, axis=2))


def test_an_existing_pack_is_left_alone(tmp_path: Path) -> None:
    files = _write_images(tmp_path / "images", [(40, 40)])
    pack_files(files, 32, tmp_path / "pack")
    before = (tmp_path / "pack" / "pixels.npy").stat().st_mtime_ns
    files[0].unlink()  # would fail if it were read again
    pack_files(files, 32, tmp_path / "pack")
    assert (tmp_path / "pack" / "pixels.npy").stat().st_mtime_ns == before


def test_an_unreadable_file_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    files = _write_images(tmp_path / "images", [(40, 40)])
    files.append(tmp_path / "cut.jpg")
    Image.effect_noise((90, 90), 50).save(files[1])
    content = files[1].read_bytes()
    files[1].write_bytes(content[: len(content) // 2])  # the header is whole, the pixels are not
    with pytest.raises(StudyError, match=r"cut\.jpg"):
        pack_files(files, 32, tmp_path / "packs" / "pack")
    assert list((tmp_path / "packs").iterdir()) == []


def test_concatenated_packs_keep_order_and_count_categories(tmp_path: Path) -> None:
    packs = []
    for number, sizes in enumerate([[(40, 50)] * 3, [], [(60, 40), (33, 32)]]):
        files = _write_images(tmp_path / f"images{number}", sizes, seed=number)
        pack_files(files, 32, tmp_path / f"pack{number}")
        packs.append(open_pack(tmp_path / f"pack{number}"))
    data = concatenate(packs)

    assert data.targets.tolist() == [0, 0, 0, 2, 2]
    expected = [packs[0].image(i) for i in range(3)] + [packs[2].image(i) for i in range(2)]
    for index, image in enumerate(expected):
        np.testing.assert_array_equal(data.image(index), image)
        assert tuple(data.shapes[index]) == image.shape[:2]
        assert np.shares_memory(data.image(index), image)


def test_writing_into_an_open_pack_does_not_reach_the_disk(tmp_path: Path) -> None:
    files = _write_images(tmp_path / "images", [(32, 32)])
    pack_files(files, 32, tmp_path / "pack")
    original = open_pack(tmp_path / "pack").image(0).copy()
    open_pack(tmp_path / "pack").image(0)[:] = 0
    np.testing.assert_array_equal(open_pack(tmp_path / "pack").image(0), original)
