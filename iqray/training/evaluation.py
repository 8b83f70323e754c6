"""Top-k accuracy from logits. Pure numpy.

Counts are summed over batches and divided once, so that accuracy does not depend on how the
images were cut into batches.
"""

from typing import Literal

import numpy as np

from iqray.errors import StudyError


def rank_targets(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Position of each image's true category in the model's order of categories.

    Args:
        logits: (num_images, num_categories) floats.
        targets: (num_images,) integers, the true categories.

    Returns:
        (num_images,) int32 in [1, num_categories]; 1 when the true category has the highest
        logit. Ties count against the model: equal logits rank worst, and so does NaN, so that a
        model that diverged is never right by accident.
    """
    true_logits = np.take_along_axis(logits, targets[:, None], axis=1)
    return (~(logits < true_logits)).sum(axis=1).astype(np.int32)


def count_correct(
    category_rank: np.ndarray, targets: np.ndarray, k: int, num_categories: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images of each category with the true category among the first k, and images in all.

    Counts of several batches may be added.

    Args:
        category_rank: (num_images,) integers from `rank_targets`.
        targets: (num_images,) integers in [0, num_categories).
        k: 1 or more.
        num_categories: of the trial.

    Returns:
        Two (num_categories,) int64 arrays: correct images, all images.
    """
    num_correct = np.bincount(targets[category_rank <= k], minlength=num_categories)
    return num_correct, np.bincount(targets, minlength=num_categories)


def compute_topk_accuracy(
    category_rank: np.ndarray,
    targets: np.ndarray,
    k: int,
    num_categories: int,
    average: Literal["category", "image"] = "category",
) -> float:
    """Share of images with the true category among the first k, in [0, 1].

    Args:
        category_rank: (num_images,) integers from `rank_targets`.
        targets: (num_images,) integers in [0, num_categories).
        k: 1 for top-1. With k >= num_categories the accuracy is 1.
        num_categories: of the trial.
        average: `category` gives every category the same weight (the study's accuracy), `image`
            every image.

    Raises:
        StudyError: a category has no image to be tested on.
    """
    num_correct, num_images = count_correct(category_rank, targets, k, num_categories)
    if average == "image":
        return float(num_correct.sum() / num_images.sum())
    empty = np.flatnonzero(num_images == 0)
    if len(empty):
        raise StudyError(
            f"no test image for target {', '.join(map(str, empty))} of {num_categories} "
            "categories; the mean over categories needs at least one each: add test images or "
            "leave the category out"
        )
    return float((num_correct / num_images).mean())
