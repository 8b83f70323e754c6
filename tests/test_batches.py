import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from iqray.training.augment import BatchStream, draw_crop_boxes, draw_flips
from iqray.training.batches import MEAN, STD, make_batch


def _random_images(shapes: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in shapes]


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


@pytest.mark.parametrize("num_threads", [2, 3, 8])
def test_batches_do_not_depend_on_the_number_of_threads(num_threads: int) -> None:
    shapes = np.array([[64, 90], [50, 41], [32, 32], [200, 120], [32, 47]])
    images = _random_images(shapes)
    boxes = draw_crop_boxes(0, np.zeros(5, int), np.arange(5), shapes, (0.3, 1.0))
    boxes[2] = 0, 0, 32, 32  # needs no resize
    flips = np.array([False, True, True, False, True])
    alone = make_batch(images, boxes, flips, 32)
    assert torch.equal(make_batch(images, boxes, flips, 32, num_threads), alone)


def test_pixels_of_a_crop_that_fits_are_kept_and_mirrored() -> None:
    [image] = _random_images(np.array([[40, 50]]))
    batch = make_batch([image, image], np.array([[3, 5, 32, 32]] * 2), np.array([False, True]), 32)
    crop = torch.from_numpy(image[3:35, 5:37]).double() / 255
    expected = ((crop - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1).float()
    torch.testing.assert_close(batch[0], expected, rtol=0, atol=1e-6)
    assert torch.equal(batch[1], batch[0].flip(2))
