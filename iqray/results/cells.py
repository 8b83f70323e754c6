"""From finished trials to the table of cells, and the short text that ends a run.

Reads what trials returned and the cells of the study, and returns `schemas.CELLS`. Also counts
images for the report. Pure: knows neither Ray nor the disk.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from iqray.finite import drop_non_finite
from iqray.results.ranks import MEASURES, count_ranks, describe_weights, rank_cells
from iqray.schemas import CELLS

MEASURE_LABELS = {"distance": "distance", "top1": "top-1", "top5": "top-5"}

_LEADS = {
    "distance": "covers the most distance",
    "top1": "has the best top-1 accuracy",
    "top5": "has the best top-5 accuracy",
}

# What every text and page says about stand-in weights; metrics whose provenance contains it are
# named there.
DEMO_WEIGHTS = "demo weights"

_COUNTS = ("num_categories", "num_test_images")
_IMAGE_COUNTS = ("num_categories", "num_images", "num_unreadable")
_NUMBERS = ("top1", "top5", "distance", "mean_distance", "final_loss", "train_s")
_MORE_NUMBERS = ("top1_images", "top5_images", "learning_rate_factor")  # a trial may lack them


def build_cells(
    study_cells: Sequence[Mapping[str, Any]],
    trial_results: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, str],
) -> pd.DataFrame:
    """Join the cells of a study with the results of their trials, and rank them.

    Args:
        study_cells: one per cell and seed: dataset, architecture, metric, subset, seed, trial_id.
            Several may name one trial.
        trial_results: by trial_id: status (ok, not_converged or failed), reason, num_categories,
            num_test_images, top1, top5, distance, mean_distance, final_loss, train_s, and where it
            has them top1_images, top5_images, num_restarts, learning_rate_factor. A failed trial
            may lack all numbers.
        weights: by metric: where its weights come from.

    Returns:
        A table of `schemas.CELLS`, in the order of `study_cells`. A trial without a result has
        status `missing`. Numbers that are absent or not finite are null, and so are the ranks of
        a combination with a trial of another status than ok.
    """
    rows = [
        _build_row(cell, trial_results.get(cell["trial_id"]), weights[cell["metric"]])
        for cell in study_cells
    ]
    cells = pd.DataFrame(rows, columns=CELLS.names)
    counts = dict.fromkeys((*_COUNTS, "num_restarts"), "Int64")
    cells = cells.astype({**counts, **dict.fromkeys((*_NUMBERS, *_MORE_NUMBERS), "float64")})
    num_categories = cells["num_categories"].astype("float64")
    cells["chance_top1"] = 1 / num_categories
    cells["chance_top5"] = num_categories.clip(upper=5) / num_categories
    return rank_cells(cells)


def _build_row(
    cell: Mapping[str, Any], result: Mapping[str, Any] | None, weights: str
) -> dict[str, Any]:
    row = {**cell, "weights": weights}
    if result is None:
        return row | {"status": "missing", "reason": f"trial {cell['trial_id']} has no result"}
    row |= {"status": result["status"], "reason": result.get("reason") or ""}
    if result["status"] == "ok":
        row |= {name: result[name] for name in (*_COUNTS, *_NUMBERS)}
    else:
        row |= {name: result.get(name) for name in (*_COUNTS, *_NUMBERS)}
    row |= {name: result.get(name) for name in (*_MORE_NUMBERS, "num_restarts")}
    return row | {name: drop_non_finite(row[name]) for name in (*_NUMBERS, *_MORE_NUMBERS)}


def tabulate_firsts(rank_counts: pd.DataFrame, scope: str = "all") -> pd.DataFrame:
    """Count first places: one row per measure, for one scope of `schemas.RANK_COUNTS`.

    Returns:
        Index measure; one column per subset with its number of outright first places, then
        `shared` (combinations whose first place is a tie) and `combinations`, their total.
    """
    chosen = rank_counts[rank_counts["scope"] == scope]
    firsts = chosen[chosen["rank"] == 1]
    table = firsts.pivot(index="measure", columns="subset", values="count")
    table = table.reindex(index=list(MEASURES), columns=list(chosen["subset"].unique()))
    num_combinations = chosen.groupby("measure")["num_combinations"].first()
    table.columns.name = None
    return table.assign(
        shared=num_combinations - table.sum(axis="columns"), combinations=num_combinations
    )


def summarise(cells: pd.DataFrame) -> str:
    """Write the end-of-run text: first places per subset for distance, top-1 and top-5.

    Args:
        cells: a table of `schemas.CELLS`.

    Returns:
        At most nine lines of plain ASCII without a final line break; 80 columns with the four
        subsets of the paper.
    """
    firsts = tabulate_firsts(count_ranks(cells)).rename(index=MEASURE_LABELS)
    num_seeds = cells["seed"].nunique()
    header = "First places by subset (dataset x architecture x metric"
    header += f", averaged over {num_seeds} seeds)" if num_seeds > 1 else ")"
    lines = [header, firsts.rename_axis(index=None).to_string()]
    if firsts["shared"].any():
        lines.append("shared: the first place is a tie and counts for no subset")
    num_lost = int((cells["status"] != "ok").sum())
    if num_lost:
        lines.append(f"{num_lost} of {len(cells)} cells have no result; see status in the table")
    if DEMO_WEIGHTS in describe_weights(cells["weights"]):
        lines.append(f"{DEMO_WEIGHTS}: these ranks say nothing about real images")
    return "\n".join(lines)


def describe_finding(rank_counts: pd.DataFrame) -> list[str]:
    """Say for each measure which subset takes the first place most often, with n."""
    firsts = tabulate_firsts(rank_counts)
    return [_describe_leader(str(measure), places) for measure, places in firsts.T.items()]


def list_leaders(firsts: pd.Series) -> list[str]:
    """Name the subsets with the most first places; none where no subset has any.

    Args:
        firsts: number of outright first places, by subset.
    """
    return list(firsts.index[(firsts == firsts.max()) & (firsts > 0)])


def _describe_leader(measure: str, places: pd.Series) -> str:
    num_combinations = places["combinations"]
    counts = places.drop(["shared", "combinations"])
    if num_combinations == 0:
        return f"No combination has a complete {MEASURE_LABELS[measure]} result yet."
    leaders = list_leaders(counts)
    if not leaders:
        return f"No subset takes a first place of its own on {MEASURE_LABELS[measure]}."
    share = f"in {counts.max()} of {num_combinations} combinations"
    if len(leaders) == 1:
        return f"{leaders[0]} {_LEADS[measure]} {share}."
    return f"{' and '.join(leaders)} lead on {MEASURE_LABELS[measure]}, each {share}."


def count_images(manifests: Iterable[pa.Table]) -> pd.DataFrame:
    """Count the images of manifests (`schemas.MANIFEST`) by dataset and split, for the report.

    Returns:
        Columns dataset, split, num_categories, num_images, num_unreadable; sorted by the first two.
    """
    counts = []
    for manifest in manifests:
        images = manifest.select(["dataset", "split", "category"])
        is_unreadable = pc.not_equal(manifest["status"], "ok").cast(pa.int64())
        images = images.append_column("unreadable", is_unreadable)
        groups = images.group_by(["dataset", "split"]).aggregate(
            [("category", "count_distinct"), ([], "count_all"), ("unreadable", "sum")]
        )
        counts.append(groups.rename_columns(["dataset", "split", *_IMAGE_COUNTS]))
    return (
        pa.concat_tables(counts)
        .sort_by([("dataset", "ascending"), ("split", "ascending")])
        .to_pandas()
    )
