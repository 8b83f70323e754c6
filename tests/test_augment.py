import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from iqray.augment import (
    MEAN,
    STD,
    BatchStream,
    compute_centre_boxes,
    compute_epoch_order,
    derive_step_seed,
    draw_crop_boxes,
    draw_flips,
    draw_uniform,
    make_batch,
)

SHAPES = np.array([[73, 110], [110, 73], [73, 73], [20, 400], [400, 20], [1, 1], [37, 38]])
MASK = (1 << 64) - 1


def _split_mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def _draw(seed: int, epoch: int, index: int, draw: int) -> float:
    state = _split_mix(seed)
    for counter in (epoch, index, draw):
        state = _split_mix(state ^ counter)
    return (state >> 11) / 2**53


def _crop_one(
    seed: int, epoch: int, index: int, height: int, width: int, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop.get_params, written out for one image."""
    for attempt in range(10):
        share = scale[0] + (scale[1] - scale[0]) * _draw(seed, epoch, index, 4 + attempt)
        low, high = math.log(3 / 4), math.log(4 / 3)
        aspect = math.exp(low + (high - low) * _draw(seed, epoch, index, 14 + attempt))
        crop_width = round(math.sqrt(height * width * share * aspect))
        crop_height = round(math.sqrt(height * width * share / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(_draw(seed, epoch, index, 2) * (height - crop_height + 1))
            left = int(_draw(seed, epoch, index, 3) * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_height, crop_width = height, width
    if width / height < 3 / 4:
        crop_height = round(width / (3 / 4))
    elif width / height > 4 / 3:
        crop_width = round(height * (4 / 3))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _random_images(shapes: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in shapes]


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])
def test_crops_equal_the_rule_written_out_for_one_image(scale: tuple[float, float]) -> None:
    shapes = np.tile(SHAPES, (20, 1))
    indices = np.arange(len(shapes))
    epochs = indices % 3
    boxes = draw_crop_boxes(5, epochs, indices, shapes, scale)
    expected = [
        _crop_one(5, int(epoch), int(index), int(height), int(width), scale)
        for epoch, index, (height, width) in zip(epochs, indices, shapes, strict=True)
    ]
    assert [tuple(box) for box in boxes.tolist()] == expected


def test_the_reference_cases_use_both_a_fitting_try_and_the_fallback() -> None:
    # 20 x 400 px: a crop of 90 % of the area cannot have a ratio between 3/4 and 4/3.
    boxes = draw_crop_boxes(
        0, np.zeros(2, int), np.arange(2), np.array([[20, 400], [90, 90]]), (0.9, 1)
    )
    assert boxes[0].tolist() == [0, 186, 20, 27]
    assert 0.88 < boxes[1, 2] * boxes[1, 3] / 90**2 <= 1


def test_crops_lie_inside_and_cover_the_range_of_areas() -> None:
    shapes = np.tile([[73, 110]], (4000, 1))
    boxes = draw_crop_boxes(1, np.zeros(4000, int), np.arange(4000), shapes, (0.08, 1.0))
    assert (boxes >= [0, 0, 1, 1]).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= shapes).all()
    shares = boxes[:, 2] * boxes[:, 3] / (73 * 110)
    assert 0.07 < shares.min() < 0.1
    assert shares.max() > 0.85
    assert {0, 73 - 1} <= set(boxes[:, 0]) | set(boxes[:, 0] + boxes[:, 2] - 1)


def test_uniform_numbers_are_uniform_and_unrelated_between_draws() -> None:
    first = draw_uniform(3, 0, np.arange(20000), 4)
    second = draw_uniform(3, 0, np.arange(20000), 5)
    counts, _ = np.histogram(first, bins=10, range=(0, 1))
    assert np.abs(counts - 2000).max() < 200  # 4.7 standard deviations
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(draw_flips(3, np.zeros(20000, int), np.arange(20000)).mean() - 0.5) < 0.02


def test_random_numbers_change_with_seed_epoch_and_index() -> None:
    values = {
        float(draw_uniform(seed, epoch, np.array([index]), 1)[0])
        for seed in (0, 1, 2**40)
        for epoch in range(5)
        for index in range(5)
    }
    assert len(values) == 75
    assert len({derive_step_seed(seed, step) for seed in range(5) for step in range(5)}) == 25


def test_each_epoch_is_a_new_permutation() -> None:
    orders = [compute_epoch_order(0, epoch, 50) for epoch in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(50))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], compute_epoch_order(1, 0, 50))


@pytest.mark.parametrize("batch_size", [2, 7, 25])
def test_the_stream_is_the_same_for_every_batch_size(batch_size: int) -> None:
    stream = BatchStream(num_images=10, batch_size=batch_size, seed=4)
    num_steps = math.ceil(50 / batch_size)
    epochs, indices = (
        np.concatenate(parts) for parts in zip(*map(stream.take, range(num_steps)), strict=True)
    )
    expected = np.concatenate([compute_epoch_order(4, epoch, 10) for epoch in range(5)])
    np.testing.assert_array_equal(indices[:50], expected)
    np.testing.assert_array_equal(epochs[:50], np.repeat(np.arange(5), 10))
    begins = [stream.get_epoch(step) for step in range(num_steps)]
    assert begins == [step * batch_size // 10 for step in range(num_steps)]


def test_batches_do_not_depend_on_batch_size() -> None:
    images = _random_images(np.tile([[40, 60]], (9, 1)))

    def make_all(batch_size: int) -> torch.Tensor:
        stream = BatchStream(num_images=9, batch_size=batch_size, seed=2)
        batches = []
        for step in range(18 // batch_size):
            epochs, indices = stream.take(step)
            shapes = np.tile([[40, 60]], (batch_size, 1))
            boxes = draw_crop_boxes(2, epochs, indices, shapes, (0.08, 1.0))
            flips = draw_flips(2, epochs, indices)
            batches.append(make_batch([images[i] for i in indices], boxes, flips, 32))
        return torch.cat(batches)

    assert torch.equal(make_all(2), make_all(9))


def test_batch_pixels_equal_torchvision_and_pillow_within_a_level() -> None:
    shapes = np.array([[64, 90], [50, 41], [200, 120]])
    images = _random_images(shapes)
    boxes = draw_crop_boxes(0, np.zeros(3, int), np.arange(3), shapes, (0.5, 1.0))
    batch = make_batch(images, boxes, np.array([False, True, False]), 32)
    levels = (batch.permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)) * 255

    for position, (image, (top, left, height, width)) in enumerate(
        zip(images, boxes.tolist(), strict=True)
    ):
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        expected = transforms.resized_crop(
            pixels, top, left, height, width, [32, 32], antialias=True
        ).permute(1, 2, 0)
        crop = Image.fromarray(image[top : top + height, left : left + width])
        pillow = np.asarray(crop.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
        got = levels[position].flip(1) if position == 1 else levels[position]
        torch.testing.assert_close(got, expected.float(), atol=1e-3, rtol=0)
        assert np.abs(got.numpy() - pillow).max() < 1.001


def test_a_batch_has_mean_and_deviation_taken_out() -> None:
    image = np.full((32, 32, 3), 51, dtype=np.uint8)  # 51 / 255 = 0.2
    batch = make_batch([image], np.array([[0, 0, 32, 32]]), np.array([False]), 32)
    assert batch.shape == (1, 3, 32, 32)
    assert batch.dtype == torch.float32
    for channel in range(3):
        expected = torch.full((32, 32), (0.2 - MEAN[channel]) / STD[channel])
        torch.testing.assert_close(batch[0, channel], expected)


@pytest.mark.parametrize("input_px", [32, 63, 75, 128, 224, 299])
def test_centre_crops_of_images_stored_at_8_7_need_no_resize(input_px: int) -> None:
    stored_px = round(input_px * 8 / 7)
    boxes = compute_centre_boxes(np.array([[stored_px, 2 * stored_px], [stored_px, stored_px]]))
    assert boxes[:, 2:].tolist() == [[input_px, input_px]] * 2
    assert (boxes[:, :2] >= 0).all()
    assert abs(2 * boxes[0, 1] + input_px - 2 * stored_px) <= 1
