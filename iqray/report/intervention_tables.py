"""The report's table of interventions: what changing a subset's images did.

Reads `schemas.INTERVENTION_EFFECTS` and `schemas.INTERVENTION_SCORES`. Pure.
"""

import pandas as pd

from iqray.report.tables import PageTable, has_demo, make_table

_SUBSET = ["dataset", "metric", "subset"]
_VARIANT = [*_SUBSET, "variant", "control"]
_DIFFERENCES = {
    "top1_difference": "top-1 difference",
    "top5_difference": "top-5 difference",
    "distance_difference": "distance difference",
}

INTERVENTIONS_TEXT = (
    "The same categories trained again with changed images, each beside its control: the unchanged "
    "images or, where images were chosen, a random choice of as many. Scores are the subset's own "
    "metric, measured after the change and averaged over categories; differences are averaged over "
    "architectures and seeds of which both trials ended well. Each trial is in effects.csv below "
    "interventions/."
)


def tabulate_interventions(effects: pd.DataFrame, scores: pd.DataFrame) -> PageTable:
    """Measured scores and effects of every changed subset, a row each.

    Args:
        effects: a table of `schemas.INTERVENTION_EFFECTS`.
        scores: a table of `schemas.INTERVENTION_SCORES`.
    """
    measured = scores[scores["scored_by"] == scores["metric"]]
    measured = measured[[*_SUBSET, "variant", "average", "average_difference"]]
    groups = effects.assign(num_pairs=effects["top1_difference"].notna()).groupby(
        _VARIANT, sort=False
    )
    frame = groups.agg(
        num_trials=("trial_id", "size"),
        num_pairs=("num_pairs", "sum"),
        **{name: (name, "mean") for name in _DIFFERENCES},
    ).reset_index()
    frame = frame.merge(measured, how="left", on=[*_SUBSET, "variant"])
    measures = ["average", "average_difference", "num_trials", "num_pairs", *_DIFFERENCES]
    frame = frame[[*_VARIANT, *measures]]
    frame = frame.rename(
        columns={
            "average": "mean score",
            "average_difference": "score difference",
            "num_pairs": "num_compared",
            **_DIFFERENCES,
        }
    )
    demo = has_demo(effects) or has_demo(scores)
    title = "Changed subsets: measured scores and effects"
    return make_table("interventions", title, frame, has_demo_weights=demo)
