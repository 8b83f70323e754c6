"""The tables of the report: finished tables turned into titled rows of text.

Reads the tables named in `schemas`; every function returns one `PageTable`, which the template
`report.html.j2` draws. All numbers of the page are formatted here. Pure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from iqray.results.cells import DEMO_WEIGHTS, MEASURE_LABELS, tabulate_firsts
from iqray.results.ranks import MEASURES, mask_unconverged

ABSENT = "–"


@dataclass(frozen=True)
class PageTable:
    """A table as text, and as what it was made of.

    Attributes:
        name: safe as a file name.
        title: its caption.
        header: one heading per column.
        rows: text cells, as many per row as headings.
        is_number: by column: numbers are set flush right.
        frame: the same rows, with numbers that are not rounded.
        has_demo_weights: the numbers were made with demo weights, which the page then says.
        is_folded: long tables are closed until they are asked for.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_number: tuple[bool, ...]
    frame: pd.DataFrame
    has_demo_weights: bool = False
    is_folded: bool = False


def format_value(value: object, *, is_rank: bool = False) -> str:
    """Write one value for the page.

    Whole numbers get separators, other numbers three decimals below 1000 and none above, ranks as
    few as they need; an absent value is a dash.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, int | float | np.integer) or math.isnan(value):
        return ABSENT
    if is_rank:
        return f"{value:g}"
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.3f}"
    return f"{value:,.0f}"


def has_demo(frame: pd.DataFrame) -> bool:
    """Say whether any row of a table with a `weights` column was made with demo weights."""
    return bool(frame["weights"].fillna("").str.contains(DEMO_WEIGHTS, regex=False).any())


def make_table(
    name: str,
    title: str,
    frame: pd.DataFrame,
    *,
    has_demo_weights: bool = False,
    is_folded: bool = False,
) -> PageTable:
    """Make a table of the page of a frame whose columns are its headings.

    Whole numbers of columns that begin with `num_`, ranks of those that begin with `rank_`.
    """
    columns = [_format_column(str(column), values) for column, values in frame.items()]
    rows = tuple(zip(*columns, strict=True))
    is_number = tuple(pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes)
    header = tuple(map(_format_heading, frame.columns))
    return PageTable(name, title, header, rows, is_number, frame, has_demo_weights, is_folded)


def _format_heading(name: str) -> str:
    return name.removeprefix("num_").replace("_", " ") if name.startswith("num_") else name


def _format_column(name: str, values: pd.Series) -> list[str]:
    if name.startswith("num_"):
        values = values.astype("Int64")  # a null elsewhere in the column made floats of counts
    return [format_value(value, is_rank=name.startswith("rank_")) for value in values]


def tabulate_overall(rank_counts: pd.DataFrame) -> PageTable:
    """First places over all combinations, one row per subset: narrow enough for a phone."""
    firsts = tabulate_firsts(rank_counts).rename(index=MEASURE_LABELS)
    frame = firsts.T.rename_axis(index="subset", columns=None).reset_index()
    demo = has_demo(rank_counts)
    return make_table("firsts", "First places, all combinations", frame, has_demo_weights=demo)


def tabulate_by(rank_counts: pd.DataFrame, column: str) -> PageTable:
    """First places for each value of `dataset` or `metric`."""
    prefix = f"{column}:"
    chosen = rank_counts[rank_counts["scope"].str.startswith(prefix)]
    parts = []
    for scope in chosen["scope"].unique():
        part = tabulate_firsts(rank_counts, scope).rename(index=MEASURE_LABELS).reset_index()
        part.insert(0, column, scope.removeprefix(prefix))
        parts.append(part)
    title = f"First places by {column}"
    frame = pd.concat(parts)
    return make_table(f"firsts_by_{column}", title, frame, has_demo_weights=has_demo(chosen))


def tabulate_ranks(rank_counts: pd.DataFrame) -> PageTable:
    """Every rank of every subset over all combinations, shared ranks included."""
    chosen = rank_counts[rank_counts["scope"] == "all"].astype({"rank": "float64"})
    wide = chosen.pivot(index=["measure", "subset"], columns="rank", values="count")
    wide = wide.fillna(0).astype("int64")
    order = pd.MultiIndex.from_product([MEASURES, chosen["subset"].unique()])
    wide = wide.reindex(order).rename_axis(["measure", "subset"])
    wide.columns = pd.Index([f"rank {rank:g}" for rank in wide.columns])
    frame = wide.rename(index=MEASURE_LABELS, level="measure").reset_index()
    title = "How often a subset takes a rank"
    return make_table("ranks", title, frame, has_demo_weights=has_demo(chosen))


def tabulate_accuracies(cells: pd.DataFrame) -> PageTable:
    """Means over metrics and seeds, by dataset, architecture and subset, beside chance level."""
    columns = ["top1", "chance_top1", "top5", "chance_top5", "mean_distance"]
    keys = ["dataset", "architecture", "subset"]
    measured = mask_unconverged(cells)
    values = measured[columns].astype("float64").groupby([cells[key] for key in keys], sort=False)
    frame = values.mean().reset_index()
    frame.columns = pd.Index(
        [*keys, "top-1", "chance top-1", "top-5", "chance top-5", "mean distance"]
    )
    title = "Accuracy and mean distance (means over metrics and seeds)"
    demo = has_demo(cells)
    return make_table("accuracies", title, frame, has_demo_weights=demo, is_folded=True)


def tabulate_cells(cells: pd.DataFrame) -> PageTable:
    """Every cell and seed, with its trial."""
    columns = ["dataset", "architecture", "metric", "subset", "seed", "top1", "top5", "distance"]
    columns += ["rank_top1", "rank_top5", "rank_distance", "final_loss", "num_restarts"]
    columns += ["status", "trial_id"]
    demo = has_demo(cells)
    return make_table("cells", "All cells", cells[columns], has_demo_weights=demo, is_folded=True)


def tabulate_lost_cells(cells: pd.DataFrame) -> PageTable:
    """The cells whose trial failed, did not converge or has no result, with the reason."""
    columns = ["dataset", "architecture", "metric", "subset", "seed", "trial_id", "status"]
    lost = cells[cells["status"] != "ok"]
    frame = lost[[*columns, "reason"]]
    demo = has_demo(lost)
    return make_table("lost_cells", "Cells without a result", frame, has_demo_weights=demo)


def tabulate_subsets(subsets: pd.DataFrame) -> PageTable:
    """The categories of every subset, the most extreme first."""
    groups = subsets.sort_values("position", kind="stable").groupby(
        ["dataset", "metric", "subset"], sort=False
    )
    frame = groups.agg(
        num_categories=("category", "size"),
        num_train_images=("num_train_images", "sum"),
        num_test_images=("num_test_images", "sum"),
        categories=("category", ", ".join),
    ).reset_index()
    frame = frame.sort_values(["dataset", "metric", "subset"], kind="stable")
    title = "Categories of the subsets"
    demo = has_demo(subsets)
    return make_table("subsets", title, frame, has_demo_weights=demo, is_folded=True)


def tabulate_images(image_counts: pd.DataFrame) -> PageTable:
    """Images found, as `results.count_images` counts them."""
    return make_table("images", "Images", image_counts)


def tabulate_scores(score_counts: pd.DataFrame, has_demo_weights: bool) -> PageTable:
    """Scores of each dataset and metric, one column per status."""
    wide = score_counts.pivot(index=["dataset", "metric"], columns="status", values="num_images")
    frame = wide.fillna(0).astype("int64").reset_index()
    frame.columns.name = None
    return make_table("scores", "Scores by status", frame, has_demo_weights=has_demo_weights)


def tabulate_mapping(
    name: str, title: str, mapping: Mapping[str, str], key: str, value: str
) -> PageTable:
    """Two columns from a mapping of names to text, such as versions."""
    frame = pd.DataFrame(list(mapping.items()), columns=[key, value], dtype=str)
    return make_table(name, title, frame)
