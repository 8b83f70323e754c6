"""Hierarchical bootstrap over categories, images and seeds: intervals of what cells measured.

For each subset its categories are drawn with replacement, then the test images of each drawn
category, then, for each architecture, the seeds. All networks of a subset see the same drawn
categories and images. Nothing is trained again: a drawn category counts twice, but the network
still tells it from the others as it did. `iqray.statistics.bootstrap` draws whole clusters instead.
Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

NUM_DRAWS = 1000


@dataclass(frozen=True)
class TrialSample:
    """What one finished trial has to draw from. Images stand by category.

    Attributes:
        category_rank: `(num_images,)`, of every test image: 1 where the network is right.
        targets: `(num_images,)` integers, each image's category.
        distances: `(num_matched_images, num_categories)`, mean distance from an image to the others
            of each category, NaN where there are none (`trial_distances`).
        matched_targets: `(num_matched_images,)` integers.
    """

    category_rank: NDArray[np.int32]
    targets: NDArray[np.intp]
    distances: NDArray[np.float32]
    matched_targets: NDArray[np.intp]


@dataclass(frozen=True)
class Weights:
    """How often each category and image is drawn.

    Attributes:
        categories: `(num_draws, num_categories)`, times that a category is drawn; rows sum to the
            number of categories.
        images: `(num_draws, num_images)`; the images of a category sum to the category's times.
    """

    categories: FloatArray
    images: FloatArray


def draw_cells(
    networks: Mapping[str, Sequence[TrialSample]], generator: np.random.Generator, num_draws: int
) -> dict[str, dict[str, FloatArray]]:
    """Draw the measures of one subset's cells.

    Args:
        networks: by architecture its trials, one per seed; all of one subset.
        generator: of the draws.
        num_draws: how many.

    Returns:
        By architecture and measure (distance, top1, top5) `(num_draws,)` values, averaged over the
        drawn seeds.
    """
    first = next(iter(networks.values()))[0]
    times = _draw_categories(first.targets.max() + 1, generator, num_draws)
    weights = _draw_images(times, first.targets, generator)
    matched = weights
    if len(first.matched_targets) < len(first.targets):
        matched = _draw_images(times, first.matched_targets, generator)
    drawn = {}
    for architecture, samples in networks.items():
        size = (num_draws, len(samples))
        seeds = generator.integers(len(samples), size=size)
        values = {
            "distance": [resample_distance(sample, matched) for sample in samples],
            "top1": [_resample_accuracy(sample, weights, 1) for sample in samples],
            "top5": [_resample_accuracy(sample, weights, 5) for sample in samples],
        }
        drawn[architecture] = {
            measure: np.take_along_axis(np.stack(each, axis=1), seeds, axis=1).mean(axis=1)
            for measure, each in values.items()
        }
    return drawn


def _draw_categories(num: int, generator: np.random.Generator, num_draws: int) -> FloatArray:
    """Times of each category; draws of one category only are drawn again, having no distance."""
    times = generator.multinomial(num, np.full(num, 1 / num), size=num_draws)
    while len(alone := np.flatnonzero(times.max(axis=1) == num)) and num > 1:
        times[alone] = generator.multinomial(num, np.full(num, 1 / num), size=len(alone))
    return times.astype(np.float64)


def _draw_images(
    times: FloatArray, targets: NDArray[np.intp], generator: np.random.Generator
) -> Weights:
    images = np.empty((len(times), len(targets)))
    for category in range(times.shape[1]):
        own = np.flatnonzero(targets == category)
        shares = np.full(len(own), 1 / len(own))
        num_drawn = times[:, category].astype(np.int64) * len(own)
        images[:, own] = generator.multinomial(num_drawn, shares) / len(own)
    return Weights(times, images)


def _resample_accuracy(sample: TrialSample, weights: Weights, k: int) -> FloatArray:
    """Mean over drawn categories of the share of drawn images with the truth among the first k."""
    hits = (sample.category_rank <= k).astype(np.float64)
    return np.asarray(weights.images @ hits / weights.categories.shape[1])


def resample_distance(sample: TrialSample, weights: Weights) -> FloatArray:
    """Sum of distances over all pairs of drawn images: `(num_draws,)`.

    An image's effect on a mean of distances is twice that of its own mean distance (the first-order
    term of a U-statistic, Hoeffding 1948; what is left out shrinks with the square of the images
    per category). Pairs of two drawings of one category count as no pairs of two categories, whose
    distance would be too small; the shares of pairs within and between stay those of the trial.
    """
    num_images, num_categories = sample.distances.shape
    rows, targets = np.arange(num_images), sample.matched_targets
    between = sample.distances.astype(np.float64)
    within = between[rows, targets]
    between[rows, targets] = 0
    members = np.eye(num_categories)[targets]
    per_category = num_images // num_categories
    by_category = members.T @ between / per_category
    times = weights.categories
    num_others = num_categories**2 - (times**2).sum(axis=1)
    drawn = ((weights.images @ between) * times).sum(axis=1)
    means = (2 * drawn - np.einsum("bc,cd,bd->b", times, by_category, times, optimize=True)) / (
        num_others
    )
    num_pairs = num_images * (num_images - 1) / 2
    num_within = num_categories * per_category * (per_category - 1) / 2
    total = (num_pairs - num_within) * means
    if num_within:
        own = 2 * weights.images @ within - times @ (members.T @ within / per_category)
        total += num_within * own / num_categories
    return np.asarray(total)
