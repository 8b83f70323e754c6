"""The report's tables of interventions: what changing a subset's images did.

Reads `schemas.INTERVENTION_EFFECTS` and `schemas.INTERVENTION_SCORES`. Pure.
"""

import pandas as pd

from iqray.report.tables import PageTable, has_demo, make_table

_SUBSET = ["dataset", "metric", "subset"]
_VARIANT = [*_SUBSET, "variant", "control"]
_MEASURES = {
    "average": "mean score",
    "average_difference": "score difference",
    "range": "mean range",
    "range_difference": "range difference",
}
_DIFFERENCES = {
    "top1_difference": "top-1 difference",
    "top5_difference": "top-5 difference",
    "distance_difference": "distance difference",
}

INTERVENTIONS_TEXT = (
    "The same categories trained again with changed images, each beside its control: the unchanged "
    "images or, where images were chosen, a random choice of as many. Scores are those of the "
    "subset's own metric, measured after the change: averages and ranges of each category, and of "
    "these the mean over categories. Where test images were changed too, rows of split test have "
    "their scores beside those of the untouched ones, on which all others are tested. Differences "
    "of accuracy and distance are averaged over architectures and seeds of which both trials ended "
    "well. The scores of every metric are in measured_scores.csv, each trial is in effects.csv, "
    "both below interventions/."
)


def tabulate_changed_scores(scores: pd.DataFrame) -> PageTable:
    """What every changed subset's own metric measured, a row for each split that was scored.

    Args:
        scores: a table of `schemas.INTERVENTION_SCORES`.
    """
    columns = [*_VARIANT, "split", "num_images", "num_scored", *_MEASURES]
    frame = _select_own(scores)[columns].rename(columns=_MEASURES)
    title = "Changed subsets: measured scores"
    return make_table("changed_scores", title, frame, has_demo_weights=has_demo(scores))


def tabulate_interventions(effects: pd.DataFrame, scores: pd.DataFrame) -> PageTable:
    """Effects of every changed subset, a row each, beside how far its training images moved.

    Args:
        effects: a table of `schemas.INTERVENTION_EFFECTS`.
        scores: a table of `schemas.INTERVENTION_SCORES`.
    """
    moved = {name: _MEASURES[name] for name in ("average_difference", "range_difference")}
    measured = _select_own(scores)
    measured = measured.loc[measured["split"] == "train", [*_SUBSET, "variant", *moved]]
    groups = effects.assign(num_pairs=effects["top1_difference"].notna()).groupby(
        _VARIANT, sort=False
    )
    frame = groups.agg(
        num_trials=("trial_id", "size"),
        num_pairs=("num_pairs", "sum"),
        **{name: (name, "mean") for name in _DIFFERENCES},
    ).reset_index()
    frame = frame.merge(measured, how="left", on=[*_SUBSET, "variant"])
    frame = frame[[*_VARIANT, *moved, "num_trials", "num_pairs", *_DIFFERENCES]]
    frame = frame.rename(columns={"num_pairs": "num_compared", **moved, **_DIFFERENCES})
    demo = has_demo(effects) or has_demo(scores)
    title = "Changed subsets: effects"
    return make_table("interventions", title, frame, has_demo_weights=demo)


def _select_own(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows of the metric by which a subset was chosen."""
    return scores[scores["scored_by"] == scores["metric"]]
