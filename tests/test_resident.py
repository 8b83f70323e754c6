import numpy as np
import pytest
import torch

from iqray.packs.packing import Pack, PackedImages, concatenate
from iqray.training.augment import draw_crop_boxes, draw_flips
from iqray.training.batches import MEAN, STD, make_batch
from iqray.training.resident import ResidentImages, fits_on_device

SHAPES = [[[64, 90], [50, 41]], [], [[200, 120], [32, 32], [7, 9]]]


@pytest.fixture
def data() -> PackedImages:
    """Ragged images of three categories, one of them empty, as packs hold them."""
    rng = np.random.default_rng(0)
    packs = []
    for shapes in SHAPES:
        array = np.array(shapes, dtype=np.int64).reshape(-1, 2)
        num_bytes = max(1, int(array.prod(axis=1).sum()) * 3)
        packs.append(Pack(rng.integers(0, 256, num_bytes, dtype=np.uint8), array))
    return concatenate(packs)


def to_levels(batch: torch.Tensor) -> torch.Tensor:
    return (batch.permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)) * 255


# The largest crops have about 20,000 pixels: with 200 repeats they go in four chunks.
@pytest.mark.parametrize(("input_px", "num_repeats"), [(32, 1), (75, 1), (32, 200)])
def test_batches_equal_those_of_the_host_within_a_level(
    data: PackedImages, input_px: int, num_repeats: int
) -> None:
    images = ResidentImages.copy(data, torch.device("cpu"))
    indices = np.tile([4, 0, 1, 2, 2, 3, 0], num_repeats)
    shapes = data.shapes[indices]
    epochs = np.arange(len(indices))
    boxes = draw_crop_boxes(1, epochs, indices, shapes, (0.08, 1.0))
    boxes[5] = 0, 0, 32, 32
    flips = draw_flips(1, epochs, indices)
    assert {False, True} == set(flips.tolist())

    got = images.make_batch(indices, boxes, flips, input_px)
    expected = make_batch([data.image(i) for i in indices], boxes, flips, input_px)
    assert got.shape == expected.shape
    assert got.stride() == expected.stride()
    gaps = (to_levels(got) - to_levels(expected)).abs()
    assert gaps.max() < 1.001
    assert (gaps < 0.001).float().mean() > 0.8  # most levels are the same


def test_a_selection_is_what_it_is_on_the_host(data: PackedImages) -> None:
    chosen = np.array([True, False, False, True, True])
    part = data.select(chosen)
    assert part.targets.tolist() == data.targets[chosen].tolist()
    boxes = draw_crop_boxes(1, np.arange(3), np.arange(3), part.shapes, (0.08, 1.0))
    flips = np.zeros(3, dtype=bool)
    for index, other in enumerate(np.flatnonzero(chosen)):
        np.testing.assert_array_equal(part.image(index), data.image(other))
    images = ResidentImages.copy(part, torch.device("cpu"))
    got = images.make_batch(np.arange(3), boxes, flips, 32)
    expected = make_batch([part.image(i) for i in range(3)], boxes, flips, 32)
    torch.testing.assert_close(to_levels(got), to_levels(expected), atol=1.001, rtol=0)


def test_images_are_resident_only_where_they_leave_room_for_a_model() -> None:
    assert fits_on_device(num_bytes=40, free_bytes=100)
    assert not fits_on_device(num_bytes=41, free_bytes=100)
    assert not fits_on_device(num_bytes=1, free_bytes=0)
