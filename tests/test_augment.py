import math

import numpy as np
import pytest

from iqray.training.augment import (
    BatchStream,
    compute_centre_boxes,
    compute_epoch_order,
    derive_step_seed,
    draw_crop_boxes,
    draw_flips,
    draw_square_boxes,
    draw_uniform,
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


@pytest.mark.parametrize("input_px", [32, 63, 75, 128, 224, 299])
def test_centre_crops_of_images_stored_at_8_7_need_no_resize(input_px: int) -> None:
    stored_px = round(input_px * 8 / 7)
    boxes = compute_centre_boxes(np.array([[stored_px, 2 * stored_px], [stored_px, stored_px]]))
    assert boxes[:, 2:].tolist() == [[input_px, input_px]] * 2
    assert (boxes[:, :2] >= 0).all()
    assert abs(2 * boxes[0, 1] + input_px - 2 * stored_px) <= 1


def test_square_crops_lie_inside_at_every_place() -> None:
    shapes = np.tile([[40, 35], [32, 50], [20, 60]], (2000, 1))
    indices = np.arange(len(shapes))
    boxes = draw_square_boxes(1, np.zeros_like(indices), indices, shapes, 32)
    assert (boxes[:, 2] == boxes[:, 3]).all()
    assert boxes[:3, 2].tolist() == [32, 32, 20]  # the last is smaller than the square
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= shapes).all()
    tops, lefts = boxes[::3, 0], boxes[::3, 1]
    counts = np.zeros((9, 4))
    np.add.at(counts, (tops, lefts), 1)
    assert counts.min() > 25  # 56 expected, 7.5 their standard deviation
    assert (boxes[1::3, 0] == 0).all()
