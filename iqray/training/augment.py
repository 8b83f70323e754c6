"""Crops, flips and image order from counters.

Every random number is a hash of (seed, epoch, image index, draw). Nothing depends on batch size,
on the number of workers, on placement, or on what ran before. An image index is the image's
position in the trial's data.
"""

import functools
from dataclasses import dataclass

import numpy as np

# Width to height of a random crop, and tries before the fall-back: torchvision's
# RandomResizedCrop, after Szegedy et al. 2015.
_ASPECT_RATIOS = (3 / 4, 4 / 3)
_NUM_TRIES = 10

# torchvision's references evaluate 224 px crops of 256 px images.
_CENTRE_SHARE = 7 / 8

# What a random number is for. Draws of one image in one epoch must not overlap.
_DRAW_ORDER = 0
_DRAW_FLIP = 1
_DRAW_TOP = 2
_DRAW_LEFT = 3
_DRAW_AREA = 4  # and the next _NUM_TRIES - 1
_DRAW_ASPECT = _DRAW_AREA + _NUM_TRIES
_DRAW_STEP = _DRAW_ASPECT + _NUM_TRIES

# SplitMix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class BatchStream:
    """The endless stream of images that a trial trains on, cut into full batches.

    Epoch after epoch in a new order; a batch may begin in one epoch and end in the next, so that
    every step sees exactly `batch_size` images, also where there are fewer images than that.

    Attributes:
        num_images: of the trial.
        batch_size: images of a step; a multiple of `num_parts`.
        seed: of the order.
        part: which equal part of every batch to take, in [0, num_parts).
        num_parts: 1 for whole batches.
    """

    num_images: int
    batch_size: int
    seed: int
    part: int = 0
    num_parts: int = 1

    def get_epoch(self, step: int) -> int:
        """Epoch, from 0, in which the batch of a step begins."""
        return step * self.batch_size // self.num_images

    def take(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and image indices of a step: two (batch_size / num_parts,) int64 arrays."""
        size = self.batch_size // self.num_parts
        begin = step * self.batch_size + self.part * size
        positions = np.arange(begin, begin + size)
        epochs, places = np.divmod(positions, self.num_images)
        indices = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            order = compute_epoch_order(self.seed, int(epoch), self.num_images)
            indices[chosen] = order[places[chosen]]
        return epochs, indices


def hash_counters(
    seed: int, epochs: np.ndarray | int, indices: np.ndarray, draw: np.ndarray | int
) -> np.ndarray:
    """Hash counters to 64 random bits: uint64 in the broadcast shape of the arguments."""
    with np.errstate(over="ignore"):  # the arithmetic is modulo 2^64
        state = _mix(np.atleast_1d(np.asarray(seed, dtype=np.int64)).astype(np.uint64))
        for counter in (epochs, indices, draw):
            state = _mix(state ^ np.asarray(counter, dtype=np.int64).astype(np.uint64))
    return state


def draw_uniform(
    seed: int, epochs: np.ndarray | int, indices: np.ndarray, draw: np.ndarray | int
) -> np.ndarray:
    """Uniform float64 in [0, 1), 53 bits each; arguments as for `hash_counters`."""
    return (hash_counters(seed, epochs, indices, draw) >> np.uint64(11)) * 2.0**-53


def derive_step_seed(seed: int, step: int, part: int = 0) -> int:
    """Seed of torch's own generators (dropout) at an optimizer step, for a part of the batch.

    Returns:
        A number in [0, 2^63).
    """
    return int(hash_counters(seed, step, np.array([part]), _DRAW_STEP)[0] >> np.uint64(1))


@functools.lru_cache(maxsize=2)  # the steps of an epoch share it; a batch may touch two epochs
def compute_epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """Permutation of the image indices in an epoch: (num_images,) int64, read-only."""
    keys = hash_counters(seed, epoch, np.arange(num_images), _DRAW_ORDER)
    order = np.argsort(keys, kind="stable")
    order.setflags(write=False)
    return order


def draw_flips(seed: int, epochs: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Whether each image is mirrored left to right, with chance 1/2: (N,) bool."""
    return draw_uniform(seed, epochs, indices, _DRAW_FLIP) < 0.5


def draw_crop_boxes(
    seed: int,
    epochs: np.ndarray,
    indices: np.ndarray,
    shapes: np.ndarray,
    scale: tuple[float, float],
) -> np.ndarray:
    """Random crops by the rule of torchvision's RandomResizedCrop, for all images at once.

    A crop's share of the image's area is uniform in `scale`, the logarithm of its aspect ratio
    uniform between those of 3/4 and 4/3, its place uniform. The first of ten tries that fits
    inside the image is taken; if none does, the largest central crop with a ratio in that range.

    Args:
        seed: of the trial.
        epochs: (N,) int64.
        indices: (N,) int64, positions of the images in the trial's data.
        shapes: (N, 2) int64, heights and widths of these images, pixels.
        scale: smallest and largest share of the area, in (0, 1].

    Returns:
        (N, 4) int64: top, left, height, width, in pixels, inside the image.
    """
    heights, widths = shapes[:, 0], shapes[:, 1]
    columns = np.arange(_NUM_TRIES)
    epochs, indices = epochs[:, None], indices[:, None]
    share = draw_uniform(seed, epochs, indices, _DRAW_AREA + columns)
    tilt = draw_uniform(seed, epochs, indices, _DRAW_ASPECT + columns)
    area = (heights * widths)[:, None] * (scale[0] + (scale[1] - scale[0]) * share)
    low, high = np.log(_ASPECT_RATIOS)
    aspect = np.exp(low + (high - low) * tilt)
    sizes = np.rint(np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect)], axis=2))

    fits = ((sizes > 0) & (sizes <= shapes[:, None, :])).all(axis=2)
    first = fits.argmax(axis=1)
    sizes = sizes[np.arange(len(shapes)), first].astype(np.int64)
    tops = _place(draw_uniform(seed, epochs, indices, _DRAW_TOP)[:, 0], heights - sizes[:, 0])
    lefts = _place(draw_uniform(seed, epochs, indices, _DRAW_LEFT)[:, 0], widths - sizes[:, 1])
    boxes = np.column_stack([tops, lefts, sizes])
    return np.where(fits.any(axis=1)[:, None], boxes, _compute_fallback_boxes(shapes))


def draw_square_boxes(
    seed: int, epochs: np.ndarray, indices: np.ndarray, shapes: np.ndarray, side_px: int
) -> np.ndarray:
    """Squares at uniformly random places, as torchvision's RandomCrop takes them.

    Args:
        seed: of the trial.
        epochs: (N,) int64.
        indices: (N,) int64, positions of the images in the trial's data.
        shapes: (N, 2) int64, heights and widths of these images, pixels.
        side_px: of the squares; of an image with a shorter side, that side.

    Returns:
        (N, 4) int64: top, left, height, width, in pixels, inside the image.
    """
    sides = np.minimum(side_px, shapes.min(axis=1))
    tops = _place(draw_uniform(seed, epochs, indices, _DRAW_TOP), shapes[:, 0] - sides)
    lefts = _place(draw_uniform(seed, epochs, indices, _DRAW_LEFT), shapes[:, 1] - sides)
    return np.column_stack([tops, lefts, sides, sides])


def compute_centre_boxes(shapes: np.ndarray) -> np.ndarray:
    """Central squares with 7/8 of the short side, as torchvision's references evaluate.

    Of images stored with a short side of 8/7 of the input, this is exactly the input's size, so
    that no further resizing takes place.

    Args:
        shapes: (N, 2) int64, heights and widths, pixels.

    Returns:
        (N, 4) int64: top, left, height, width, in pixels.
    """
    sides = np.rint(shapes.min(axis=1, keepdims=True) * _CENTRE_SHARE).astype(np.int64)
    corners = np.rint((shapes - sides) / 2).astype(np.int64)
    return np.hstack([corners, sides, sides])


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


def _place(uniform: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """Whole number in [0, slack], uniform; anything where the slack is negative."""
    return np.floor(uniform * (slack + 1)).astype(np.int64)


def _compute_fallback_boxes(shapes: np.ndarray) -> np.ndarray:
    heights, widths = shapes[:, 0], shapes[:, 1]
    low, high = _ASPECT_RATIOS
    crop_heights = np.where(widths / heights < low, np.rint(widths / low), heights)
    crop_widths = np.where(widths / heights > high, np.rint(heights * high), widths)
    tops = (heights - crop_heights) // 2
    lefts = (widths - crop_widths) // 2
    return np.column_stack([tops, lefts, crop_heights, crop_widths]).astype(np.int64)
