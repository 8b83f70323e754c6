import itertools

import numpy as np
import pytest

from iqray.errors import StudyError
from iqray.training.evaluation import compute_topk_accuracy, count_correct, rank_targets


def _draw_case(num_images: int, num_categories: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(num_images, num_categories)).astype(np.float32)
    targets = np.append(
        np.arange(num_categories),
        generator.choice(num_categories, num_images - num_categories, p=[0.6, 0.2, 0.1, 0.1]),
    )
    return logits, targets


def test_ranks_equal_the_position_in_a_sort() -> None:
    logits, targets = _draw_case(200, 4)
    expected = [
        1 + sorted(row, reverse=True).index(row[target])
        for row, target in zip(logits.tolist(), targets, strict=True)
    ]
    assert rank_targets(logits, targets).tolist() == expected


def test_ties_rank_worst() -> None:
    logits = np.array([[1.0, 1.0, 0.0], [2.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert rank_targets(logits, np.array([0, 0, 2])).tolist() == [2, 1, 3]


def test_nan_is_never_right() -> None:
    logits = np.array([[np.nan, 1.0, 0.0], [np.nan, 1.0, 0.0], [np.nan] * 3])
    assert rank_targets(logits, np.array([0, 1, 2])).tolist() == [3, 2, 3]


def test_category_mean_and_image_mean_differ_with_uneven_categories() -> None:
    category_rank = np.array([1, 1, 1, 2])
    targets = np.array([0, 0, 0, 1])
    assert compute_topk_accuracy(category_rank, targets, 1, 2) == 0.5
    assert compute_topk_accuracy(category_rank, targets, 1, 2, average="image") == 0.75
    assert compute_topk_accuracy(category_rank, targets, 2, 2) == 1.0


def test_accuracy_grows_with_k_and_ends_at_one() -> None:
    logits, targets = _draw_case(300, 4)
    category_rank = rank_targets(logits, targets)
    accuracies = [compute_topk_accuracy(category_rank, targets, k, 4) for k in (1, 2, 3, 4)]
    assert accuracies == sorted(accuracies)
    assert 0.1 < accuracies[0] < 0.4
    assert accuracies[-1] == 1.0


@pytest.mark.parametrize("k", [1, 3])
def test_counts_over_uneven_batches_equal_counts_over_all(k: int) -> None:
    logits, targets = _draw_case(101, 4)
    borders = [0, 1, 7, 64, 101]
    parts = [
        count_correct(rank_targets(logits[a:b], targets[a:b]), targets[a:b], k, 4)
        for a, b in itertools.pairwise(borders)
    ]
    num_correct = sum(correct for correct, _ in parts)
    num_images = sum(images for _, images in parts)
    whole = compute_topk_accuracy(rank_targets(logits, targets), targets, k, 4)
    assert (num_correct / num_images).mean() == whole


def test_a_category_without_test_images_is_an_error() -> None:
    with pytest.raises(StudyError, match="target 1 of 3"):
        compute_topk_accuracy(np.array([1, 1]), np.array([0, 2]), 1, 3)
