from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.sources import ImageSource
from iqray.packs.packing import PackWriter, concatenate, is_whole, open_pack
from iqray.recipes import StoredSide
from tests.image_files import describe_files, write_images
from tests.pack_files import pack_images


def pack_files(
    files: list[Path], stored_px: StoredSide, target: Path, num_threads: int = 1
) -> None:
    """Pack files of one category, as a manifest describes them."""
    manifest = describe_files({"c": files})
    pack_images(ImageSource(ImageRoot("/")), manifest, stored_px, {"c": target}, num_threads)


def _resize_directly(file: Path, width: int, height: int) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def test_a_pack_holds_what_decoding_and_resizing_gives(tmp_path: Path) -> None:
    # Landscape, portrait, square, smaller than the stored side.
    files = write_images(tmp_path / "images", [(100, 61), (50, 90), (40, 40), (20, 17)])
    pack_files(files, 40, tmp_path / "pack")
    pack = open_pack(tmp_path / "pack")

    stored_sizes = [(65, 40), (40, 72), (40, 40), (47, 40)]
    assert len(pack) == 4
    for index, (width, height) in enumerate(stored_sizes):
        expected = _resize_directly(files[index], width, height)
        np.testing.assert_array_equal(pack.image(index), expected)
        assert tuple(pack.shapes[index]) == (height, width)


def test_an_image_of_the_stored_size_keeps_its_pixels(tmp_path: Path) -> None:
    files = write_images(tmp_path / "images", [(48, 32)])
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
    files = write_images(tmp_path / "images", [(40, 40)])
    pack_files(files, 32, tmp_path / "pack")
    before = (tmp_path / "pack" / "pixels.npy").stat().st_mtime_ns
    files[0].unlink()  # would fail if it were read again
    pack_files(files, 32, tmp_path / "pack")
    assert (tmp_path / "pack" / "pixels.npy").stat().st_mtime_ns == before


def test_an_unreadable_file_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    files = write_images(tmp_path / "images", [(40, 40)])
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
        files = write_images(tmp_path / f"images{number}", sizes, seed=number)
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
    files = write_images(tmp_path / "images", [(32, 32)])
    pack_files(files, 32, tmp_path / "pack")
    original = open_pack(tmp_path / "pack").image(0).copy()
    open_pack(tmp_path / "pack").image(0)[:] = 0
    np.testing.assert_array_equal(open_pack(tmp_path / "pack").image(0), original)


@pytest.mark.parametrize("num_threads", [2, 5])
def test_threads_change_nothing(num_threads: int, tmp_path: Path) -> None:
    files = write_images(tmp_path / "images", [(40 + 7 * number, 60) for number in range(12)])
    pack_files(files, 32, tmp_path / "alone")
    pack_files(files, 32, tmp_path / "together", num_threads)
    alone, together = open_pack(tmp_path / "alone"), open_pack(tmp_path / "together")
    np.testing.assert_array_equal(alone.pixels, together.pixels)
    np.testing.assert_array_equal(alone.shapes, together.shapes)


def test_native_packs_keep_every_pixel(tmp_path: Path) -> None:
    sizes = [(100, 61), (50, 90), (3, 2)]
    files = write_images(tmp_path / "images", sizes)
    pack_files(files, "native", tmp_path / "pack")
    pack = open_pack(tmp_path / "pack")
    assert pack.shapes.tolist() == [[height, width] for width, height in sizes]
    for index, (width, height) in enumerate(sizes):
        expected = _resize_directly(files[index], width, height)
        np.testing.assert_array_equal(pack.image(index), expected)


@pytest.mark.parametrize("name", ["pixels.npy", "shapes.npy", "sums.json"])
def test_a_pack_is_whole_until_a_byte_of_it_changes(name: str, tmp_path: Path) -> None:
    pack_files(write_images(tmp_path / "images", [(50, 40)]), 32, tmp_path / "pack")
    assert is_whole(tmp_path / "pack")
    file = tmp_path / "pack" / name
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert not is_whole(tmp_path / "pack")


@pytest.mark.parametrize("name", ["pixels.npy", "shapes.npy", "sums.json"])
def test_a_pack_without_one_of_its_files_is_not_whole(name: str, tmp_path: Path) -> None:
    pack_files(write_images(tmp_path / "images", [(50, 40)]), 32, tmp_path / "pack")
    (tmp_path / "pack" / name).unlink()
    assert not is_whole(tmp_path / "pack")


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path: Path) -> None:
    shapes = np.array([[2**20, 2**22]] * 2**10)  # 12 PiB
    with pytest.raises(StudyError, match=r"has no room for a pack of 12582912\.00 GiB"):
        PackWriter(shapes, tmp_path / "packs" / "pack")
    assert list((tmp_path / "packs").iterdir()) == []
