"""Reasons to distrust a study's results, found in its own tables.

Reads the tables of cells, ranks and counted scores, and returns sentences for the report's first
screen. Each rule is one function that is silent when it has nothing to say. Pure.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from iqray.results.cells import DEMO_WEIGHTS, MEASURE_LABELS
from iqray.results.ranks import COMBINATION, MEASURES, mask_unconverged

# The standard error of an accuracy over n images is at most 0.5 / sqrt(n) (binomial): 2.5 points
# at 400 images. ImageNet's subsets of 50 categories have 2,500 test images, 1 point.
_FEW_TEST_IMAGES = 400


@dataclass(frozen=True)
class Caveat:
    """One reason to distrust the results: a short title and what it means here."""

    title: str
    text: str


def list_caveats(
    cells: pd.DataFrame,
    rank_counts: pd.DataFrame,
    score_counts: pd.DataFrame,
    weights: Mapping[str, str],
    recipe: str,
    *,
    is_preview: bool,
    num_leaked: int = 0,
) -> list[Caveat]:
    """Collect what weakens a study, the gravest first.

    Args:
        cells: a table of `schemas.CELLS`.
        rank_counts: a table of `schemas.RANK_COUNTS`.
        score_counts: rows dataset, metric, status, num_images; `ok` is among the statuses.
        weights: by metric: where its weights come from.
        recipe: its name.
        is_preview: the recipe's own word that its results are no findings.
        num_leaked: test images that are also training images of their dataset.
    """
    return [
        *_find_demo_weights(weights),
        *_find_preview(recipe, is_preview),
        *_find_lost_cells(cells),
        *_find_restarts(cells),
        *_find_leaks(num_leaked),
        *_find_unscored_images(score_counts),
        *_find_chance_level(cells),
        *_find_certain_top5(cells),
        *_find_small_tests(cells),
        *_find_uneven_pairs(cells),
        *_find_ties(rank_counts),
        *_find_single_seed(cells),
        *_find_shared_trials(cells),
    ]


def list_demo_metrics(weights: Mapping[str, str]) -> list[str]:
    """Name the metrics whose weights are stand-ins."""
    return [metric for metric, provenance in weights.items() if DEMO_WEIGHTS in provenance]


def _find_demo_weights(weights: Mapping[str, str]) -> Iterator[Caveat]:
    metrics = list_demo_metrics(weights)
    if metrics:
        yield Caveat(
            "Demo weights",
            f"{', '.join(metrics)} scored with demo weights: small stand-ins, not the published "
            "metrics. Which categories count as high or low in quality follows from them, so no "
            "rank here says anything about real image quality.",
        )


def _find_preview(recipe: str, is_preview: bool) -> Iterator[Caveat]:
    if is_preview:
        yield Caveat(
            "Preview recipe",
            f"the recipe '{recipe}' trains briefly on small inputs. It shows that the study runs; "
            "its accuracies and distances are no findings.",
        )


def _find_lost_cells(cells: pd.DataFrame) -> Iterator[Caveat]:
    lost = cells[cells["status"] != "ok"]
    if len(lost):
        parts = _join_counts(lost.groupby("status").size())
        num_combinations = len(lost[list(COMBINATION)].drop_duplicates())
        yield Caveat(
            "Cells without a result",
            f"{len(lost)} of {len(cells)} ({parts}), named below. They leave {num_combinations} "
            "combinations out of the ranks.",
        )


def _find_restarts(cells: pd.DataFrame) -> Iterator[Caveat]:
    restarted = cells[(cells["status"] == "ok") & (cells["num_restarts"].fillna(0) > 0)]
    if len(restarted):
        yield Caveat(
            "Restarted trials",
            f"{len(restarted)} of {len(cells)} cells converged only in a second training at half "
            "the recipe's learning rate; num_restarts in the table of cells marks them.",
        )


def _find_leaks(num_leaked: int) -> Iterator[Caveat]:
    if num_leaked:
        subject = "1 test image is" if num_leaked == 1 else f"{num_leaked:,} test images are"
        yield Caveat(
            "Test images in training",
            f"{subject} byte for byte also in the training split of the same dataset. Accuracies "
            "of the trials that hold them are too high; manifest/duplicates.csv names them.",
        )


def _find_unscored_images(score_counts: pd.DataFrame) -> Iterator[Caveat]:
    counts = score_counts.groupby("status")["num_images"].sum()
    failed = counts.drop("ok", errors="ignore")
    if failed.sum():
        parts = _join_counts(failed)
        yield Caveat(
            "Unscored images",
            f"{failed.sum():,} of {counts.sum():,} scores are absent ({parts}). They are left out "
            "of the category statistics.",
        )


def _join_counts(counts: pd.Series) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.to_dict().items())


def _find_chance_level(cells: pd.DataFrame) -> Iterator[Caveat]:
    measured = mask_unconverged(cells).dropna(subset=["top1"])
    chance = measured["chance_top1"].to_numpy(dtype=float)
    num_images = measured["num_test_images"].to_numpy(dtype=float)
    error = np.sqrt(chance * (1 - chance) / num_images)
    num_at_chance = int((measured["top1"].to_numpy(dtype=float) <= chance + 2 * error).sum())
    if num_at_chance:
        yield Caveat(
            "Chance level",
            f"{num_at_chance} of {len(measured)} cells have a top-1 within two standard errors of "
            "guessing, or below it. Ranks among such cells are noise.",
        )


def _find_certain_top5(cells: pd.DataFrame) -> Iterator[Caveat]:
    num_certain = int((cells["chance_top5"] == 1).sum())
    if num_certain:
        yield Caveat(
            "Certain top-5",
            f"{num_certain} cells have five categories or fewer, where any guess is a top-5 hit. "
            "Their top-5 ranks carry no information.",
        )


def _find_small_tests(cells: pd.DataFrame) -> Iterator[Caveat]:
    smallest = cells["num_test_images"].min()
    if pd.notna(smallest) and 0 < smallest < _FEW_TEST_IMAGES:
        points = 100 * 0.5 / math.sqrt(smallest)
        yield Caveat(
            "Tiny test sets",
            f"a trial was tested on as few as {smallest:.0f} images, where the standard error of "
            f"an accuracy can reach {points:.1f} percentage points.",
        )


def _find_uneven_pairs(cells: pd.DataFrame) -> Iterator[Caveat]:
    # A total of zero has no defined pair count here; it is a collapsed network, not an uneven one.
    measured = cells[cells["mean_distance"] > 0]
    num_pairs = (measured["distance"] / measured["mean_distance"]).round()
    groups = num_pairs.groupby([measured[key] for key in (*COMBINATION, "seed")])
    num_uneven = int((groups.nunique() > 1).sum())
    if num_uneven:
        yield Caveat(
            "Uneven pairs",
            f"in {num_uneven} combinations (counted per seed) the subsets have different numbers "
            "of test images. The total distance grows with the pairs, so compare the mean "
            "distance there.",
        )


def _find_ties(rank_counts: pd.DataFrame) -> Iterator[Caveat]:
    overall = rank_counts[rank_counts["scope"] == "all"].groupby("measure")
    num_tied = overall["num_tied"].first().to_dict()
    num_combinations = overall["num_combinations"].first().to_dict()
    tied = [
        f"{MEASURE_LABELS[measure]} in {num_tied[measure]} of {num_combinations[measure]}"
        for measure in MEASURES
        if num_tied[measure]
    ]
    if tied:
        yield Caveat(
            "Ties",
            f"{', '.join(tied)} combinations. Ties share the average rank; a shared first place "
            "counts for no subset.",
        )


def _find_single_seed(cells: pd.DataFrame) -> Iterator[Caveat]:
    if cells["seed"].nunique() == 1:
        yield Caveat(
            "Single seed",
            "each cell was trained once, so the spread between trainings of the same cell is "
            "unknown. Three seeds or more are advised.",
        )


def _find_shared_trials(cells: pd.DataFrame) -> Iterator[Caveat]:
    num_trials = cells["trial_id"].nunique()
    if num_trials < len(cells):
        yield Caveat(
            "Shared trials",
            f"{len(cells)} cells and seeds needed only {num_trials} distinct trials, because some "
            "subsets hold the same categories. Their results are the same numbers, not "
            "independent evidence.",
        )
