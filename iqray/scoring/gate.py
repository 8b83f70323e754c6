"""The rank gate: lower precision chooses subsets only where full precision would choose the same.

Pure. Every image is scored in lower precision, a few categories in full precision as well. Their
statistics tell how far lower precision moves a category's statistic; no other category is assumed
to be moved by more than `SAFETY` times the largest of these errors about their median. Where that
leaves open which categories are among the top or bottom k, they are scored in full precision too,
and so on until nothing is open. What is then chosen is what full precision chooses, as long as that
assumption holds.
"""

from collections.abc import Sequence

import numpy as np

from iqray.identity import hash_content
from iqray.settings.subset import SubsetRules

# How much larger an error may be than any that was seen.
SAFETY = 2.0

# Categories whose errors are looked at first, drawn at random: with 20, a category's error is
# among the largest 5 % of all with a chance of 1 - 0.95^20 = 64 %, which SAFETY is to make up for.
NUM_CALIBRATION = 20

# Smallest Spearman correlation, over images, of scores in both precisions. Below it, lower
# precision does not measure the same thing, and all images are scored in full precision.
MIN_SPEARMAN = 0.999


def make_gate_key(rules: SubsetRules, images: Sequence[str]) -> str:
    """Key of what the gate secures: other rules, or other images, may open other categories.

    Args:
        rules: of the subsets.
        images: hashes of all the dataset's training images.
    """
    secured = rules.model_dump(mode="json", include={"fraction", "k", "average", "range", "names"})
    secured |= {"min_scored_share": rules.min_scored_share, "safety": SAFETY}
    secured |= {"min_spearman": MIN_SPEARMAN, "num_calibration": NUM_CALIBRATION}
    return hash_content({**secured, "images": list(images)})


def draw_calibration(num_categories: int, seed: int = 0) -> list[int]:
    """Positions of the categories to be scored in both precisions first, sorted."""
    generator = np.random.default_rng(seed)
    number = min(NUM_CALIBRATION, num_categories)
    return sorted(generator.permutation(num_categories)[:number].tolist())


def find_open(lower: np.ndarray, exact: np.ndarray, k: int) -> list[int]:
    """Categories whose place among the top or bottom k is open.

    Args:
        lower: (num_categories,) a statistic of each category's scores in lower precision.
        exact: (num_categories,) the same in full precision; NaN where there is none yet.
        k: size of a subset.

    Returns:
        Positions, sorted, of categories to be scored in full precision; empty when what is known
        decides both subsets. Ties of exact values are decided by name elsewhere and are not open.
    """
    low, high = bound_statistics(lower, exact)
    found = _find_open_top(low, high, k) | _find_open_top(-high, -low, k)
    return np.flatnonzero(found & np.isnan(exact)).tolist()


def bound_statistics(lower: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds between which full precision would find each category's statistic.

    The value in lower precision lies between them too, so that a choice by known values where
    there are some, and by lower ones elsewhere, is within the bounds as well.

    Raises:
        ValueError: no category is known in full precision.
    """
    known = ~np.isnan(exact)
    if not known.any():
        raise ValueError("no category is known in full precision")
    errors = lower[known] - exact[known]
    centre = float(np.median(errors))
    reach = SAFETY * float(np.abs(errors - centre).max())
    low = np.where(known, exact, lower - max(0.0, centre + reach))
    high = np.where(known, exact, lower + max(0.0, reach - centre))
    return low, high


def _find_open_top(low: np.ndarray, high: np.ndarray, k: int) -> np.ndarray:
    """Mask of categories that may or may not be among the k largest.

    A category is surely in when fewer than k others could lie above it, and surely out when at
    least k others lie above it for certain.
    """
    could_be_above = len(high) - np.searchsorted(np.sort(high), low, side="right")
    could_be_above -= high > low  # not itself
    surely_above = len(low) - np.searchsorted(np.sort(low), high, side="right")
    return np.asarray((could_be_above >= k) & (surely_above < k))


def compute_spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's correlation of two series.

    Where a series is constant it is not defined: 1 if both are, or are short of two values, else 0.
    """
    # Imported here, as scipy takes a second.
    from iqray.statistics.reliability import correlate_ranks

    constant = [len(set(series)) < 2 for series in (first, second)]
    if any(constant):
        return float(all(constant))
    return float(correlate_ranks(np.array([first]), np.array([second]))[0])
