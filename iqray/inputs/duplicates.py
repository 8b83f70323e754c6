"""Images whose bytes are equal: within a split, across splits and across datasets.

Reads manifests, returns `schemas.DUPLICATES`. A test image that is also a training image leaks:
the accuracy of the models that were trained on it is too high. Pure: knows neither Ray nor the
disk.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from iqray import schemas
from iqray.identity import find_repeats

# Raise when the same manifests would give another table.
DUPLICATES_VERSION = 1

_COLUMNS = ["dataset", "split", "category", "path", "sha256"]


@dataclass(frozen=True)
class DuplicateCounts:
    """How many images repeat another one. The first three add up to the total.

    Attributes:
        num_within_split: beyond the first of equal images of one split.
        num_across_splits: contents that lie in both splits of a dataset.
        num_across_datasets: contents that lie in several datasets, beyond the first.
        num_leaked: test images that are also training images of their dataset.
        num_other_category: contents under several categories of a dataset, beyond the first.
    """

    num_within_split: int
    num_across_splits: int
    num_across_datasets: int
    num_leaked: int
    num_other_category: int

    @property
    def num_repeats(self) -> int:
        """Images that repeat another one of the study."""
        return self.num_within_split + self.num_across_splits + self.num_across_datasets


def find_duplicates(manifests: Iterable[pa.Table]) -> pa.Table:
    """List the readable images that have an equal one (equal SHA-256): `schemas.DUPLICATES`."""
    images = pa.concat_tables(table.select([*_COLUMNS, "status"]) for table in manifests)
    readable = pc.equal(images["status"], "ok")
    sums = pc.if_else(readable, images["sha256"], pa.scalar(None, pa.string()))
    frame = images.filter(pa.array(find_repeats(sums))).to_pandas()
    frame["group"] = frame.groupby("sha256", sort=False).ngroup() + 1
    frame = frame.sort_values("group", kind="stable")
    frame["kind"] = _name_kinds(frame)
    return pa.Table.from_pandas(
        frame[schemas.DUPLICATES.names], schema=schemas.DUPLICATES, preserve_index=False
    ).replace_schema_metadata()


def count_duplicates(duplicates: pa.Table) -> DuplicateCounts:
    """Count the images of a table of `schemas.DUPLICATES`."""
    frame = duplicates.to_pandas()
    places = frame[["group", "dataset", "split"]].drop_duplicates()
    datasets = places[["group", "dataset"]].drop_duplicates()
    categories = frame[["group", "dataset", "category"]].drop_duplicates()
    leaked = frame["kind"].str.contains("across splits") & (frame["split"] == "test")
    return DuplicateCounts(
        num_within_split=len(frame) - len(places),
        num_across_splits=len(places) - len(datasets),
        num_across_datasets=len(datasets) - datasets["group"].nunique(),
        num_leaked=int(leaked.sum()),
        num_other_category=len(categories) - len(datasets),
    )


def describe_duplicates(counts: DuplicateCounts) -> str:
    """The counts as one line without a full stop; empty when nothing repeats."""
    if not counts.num_repeats:
        return ""
    leaked = f" ({_count_images(counts.num_leaked, 'test image')} in training)"
    parts = [
        (counts.num_across_splits, f"across splits{leaked}"),
        (counts.num_across_datasets, "across datasets"),
        (counts.num_within_split, "within a split"),
        (counts.num_other_category, "with another category"),
    ]
    shown = ", ".join(f"{count:,} {text}" for count, text in parts if count)
    verb = "repeats" if counts.num_repeats == 1 else "repeat"
    return f"{_count_images(counts.num_repeats, 'image')} {verb} another: {shown}"


def _count_images(count: int, name: str) -> str:
    return f"{count:,} {name}" + ("" if count == 1 else "s")


def _name_kinds(frame: pd.DataFrame) -> pd.Series:
    """Where each image's equals lie, gravest first, joined by commas."""
    own = frame.groupby(["group", "dataset"])
    is_kind = {
        "across splits": own["split"].transform("nunique") > 1,
        "across datasets": frame.groupby("group")["dataset"].transform("nunique") > 1,
        "across categories": own["category"].transform("nunique") > 1,
        "within split": frame.groupby(["group", "dataset", "split"])["path"].transform("size") > 1,
    }
    kinds = pd.Series("", index=frame.index, dtype="str")
    for name, applies in is_kind.items():
        kinds = kinds.where(~applies, kinds + f", {name}")
    return kinds.str.removeprefix(", ")
