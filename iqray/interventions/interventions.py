"""Interventions: images of a changed subset, the study that trains on them, what came out. Pure.

A changed subset is a derived dataset: the same categories, the same paths, other pixels or fewer
images. The study of a subset's changes has one dataset for each, with every category in the one
subset that it trains, so that images are inspected, scored and trained on as any others.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from iqray import schemas
from iqray.settings.intervention import (
    CHOICES,
    FARTHEST,
    NEAREST,
    UNCHANGED,
    Intervention,
    Variant,
)
from iqray.study import Study
from iqray.usable_images import select_usable

_MEASURES = ("top1", "top5", "distance")


def select_images(
    manifest: pa.Table, scores: pa.Table, categories: list[str], split: str, variant: Variant
) -> pa.Table:
    """Rows of the manifest that a changed subset has, as they stand there.

    Args:
        manifest: of the dataset.
        scores: of its training images by the metric that chose the subset.
        categories: of the subset.
        split: train or test. Choices are among training images.
        variant: the change.
    """
    usable = select_usable(manifest)
    is_own = pc.is_in(usable["category"], value_set=pa.array(categories))
    rows = usable.filter(pc.and_(pc.equal(usable["split"], split), is_own))
    if split == "test" or variant.change not in CHOICES:
        return rows
    assert variant.amount is not None
    kept = choose_images(scores.to_pandas(), variant.change, variant.amount)
    return rows.filter(pc.is_in(rows["image_id"], value_set=pa.array(kept, pa.int64())))


def choose_images(scores: pd.DataFrame, choice: str, share: float) -> list[int]:
    """Ids of images by how far their score lies from their category's mean.

    Every choice takes equally many images of a category, `round(share * n)` of the n with a score,
    but at least one.

    Args:
        scores: rows of `schemas.SCORES` of one metric.
        choice: nearest to the mean, farthest from it, or random: by image id, which is a hash of
            the path.
        share: of a category's images, in (0, 1).
    """
    scored = scores[scores["status"] == "ok"]
    apart = (scored["score"] - scored.groupby("category")["score"].transform("mean")).abs()
    order = {NEAREST: apart, FARTHEST: -apart}.get(choice, pd.Series(0.0, index=apart.index))
    ranked = scored.assign(order=order).sort_values(["category", "order", "image_id"])
    groups = ranked.groupby("category")
    wanted = np.maximum(1, np.rint(share * groups["image_id"].transform("size")))
    return ranked.loc[groups.cumcount() < wanted, "image_id"].tolist()


def derive_study(
    study: Study,
    intervention: Intervention,
    num_categories: int,
    folders: Mapping[Variant, str],
    root: str,
    images_root: str,
    weights: str,
) -> Study:
    """The study that scores and trains on every variant of a subset.

    Args:
        study: that the subset is of; its metrics, architectures, recipe and seeds are kept.
        intervention: one of its.
        num_categories: of the subset.
        folders: of the variants, below `images_root`, with folders train and test.
        root: output root of the derived study.
        images_root: folder or URI of the derived datasets.
        weights: folder or URI of the metrics' weights.
    """
    untouched = next(iter(folders.values()))
    datasets = [
        {
            "name": variant.name,
            "root": images_root,
            "layout": "parquet",
            "train": f"{folder}/train",
            "test": f"{folder if variant.changes_test else untouched}/test",
            "image_column": "image",
            "category_column": "category",
            "key_column": "path",
        }
        for variant, folder in folders.items()
    ]
    # Controls are drawn among all categories, and here are only those of the one subset.
    kept = study.model_dump(exclude={"embeddings", "rdms", "interventions", "controls"})
    changes = {
        "name": f"{study.name}-{intervention.name}",
        "root": root,
        "datasets": datasets,
        "weights": {"directory": weights},
        # All categories are in the one subset, however well they can still be scored.
        "subsets": {
            **kept["subsets"],
            "names": (intervention.subset,),
            "k": num_categories,
            "min_scored_share": 0.0,
        },
    }
    return Study.model_validate({**kept, **changes})


def derive_test_study(study: Study, intervention: Intervention, root: str) -> Study:
    """The study that scores test images, and nothing else: the changed and the untouched ones.

    Args:
        study: from `derive_study`.
        intervention: the same, with a change of test images.
        root: output root of this study.
    """
    scored = {
        variant.name
        for variant in intervention.list_variants()
        if variant.changes_test or variant.change == UNCHANGED
    }
    # What a study scores are its training images.
    datasets = tuple(
        dataset.model_copy(update={"train": dataset.test, "test": None})
        for dataset in study.datasets
        if dataset.name in scored
    )
    changes = {"name": f"{study.name}-test", "root": root, "datasets": datasets}
    return study.model_copy(update=changes)


def compute_effects(intervention: Intervention, cells: pd.DataFrame) -> pd.DataFrame:
    """Accuracies and distances of every variant, and their difference from the control's.

    Args:
        intervention: of the cells.
        cells: of the derived study.

    Returns:
        A table of `schemas.INTERVENTION_EFFECTS`; a difference is null where either trial has not
        ended well.
    """
    own = cells[cells["metric"] == intervention.metric]
    usable = own.copy()
    usable.loc[usable["status"] != "ok", list(_MEASURES)] = np.nan
    keys = ["architecture", "seed"]
    table = _add_differences(intervention, usable, keys, _MEASURES)
    table[list(_MEASURES)] = own[list(_MEASURES)].to_numpy()
    return table[schemas.INTERVENTION_EFFECTS.names]


def summarise_scores(
    intervention: Intervention, stats: Mapping[str, pd.DataFrame], average: str, range_name: str
) -> pd.DataFrame:
    """What the metrics say of every variant's training images, and of test images if scored.

    Args:
        intervention: of the images.
        stats: by split (train, test) rows of `schemas.CATEGORY_STATS` of the study that scored it.
        average: column of the study's average.
        range_name: column of the study's range.

    Returns:
        A table of `schemas.INTERVENTION_SCORES`.
    """
    frame = pd.concat([own.assign(split=split) for split, own in stats.items()])
    groups = frame.groupby(["split", "dataset", "metric"], sort=False)
    table = groups.agg(
        num_images=("num_images", "sum"),
        num_scored=("num_scored", "sum"),
        average=(average, "mean"),
        range=(range_name, "mean"),
        weights=("weights", "first"),
    ).reset_index()
    table = table.rename(columns={"metric": "scored_by"})
    found = _add_differences(intervention, table, ["split", "scored_by"], ("average", "range"))
    return found[schemas.INTERVENTION_SCORES.names]


def _add_differences(
    intervention: Intervention, table: pd.DataFrame, keys: list[str], measures: tuple[str, ...]
) -> pd.DataFrame:
    """Name each row's variant and control, and subtract the control's measures."""
    controls = {each.name: each.control.name for each in intervention.list_variants()}
    rows = table.rename(columns={"dataset": "variant"}).reset_index(drop=True)
    rows["control"] = rows["variant"].map(controls)
    known = rows[["variant", *keys, *measures]].rename(columns={"variant": "control"})
    joined = rows.merge(known, how="left", on=["control", *keys], suffixes=("", "_control"))
    named: dict[str, Any] = {
        "dataset": intervention.dataset,
        "metric": intervention.metric,
        "subset": intervention.subset,
    }
    differences = {
        f"{name}_difference": joined[name] - joined[f"{name}_control"] for name in measures
    }
    return joined.assign(**named, **differences)
