"""Which categories make a subset."""

import math
from typing import Literal, get_args

from pydantic import Field, field_validator

from iqray.dataset import StudyPart

Average = Literal["mean", "median", "trimmed_mean"]
Range = Literal["max_min", "p95_p5", "p99_p1", "iqr", "sd"]
SizeStatistic = Literal["num_images", "num_scored", "median_pixels", "bytes_per_pixel"]
AVERAGES, RANGES, SIZES = get_args(Average), get_args(Range), get_args(SizeStatistic)

SUBSET_NAMES = ("avg_high", "avg_low", "range_high", "range_low")


class SubsetRules(StudyPart):
    """Which categories make the subsets of a dataset and metric: in the paper, four."""

    names: tuple[str, ...] = Field(
        SUBSET_NAMES,
        min_length=1,
        description="avg_ or range_, or any statistic of a category and _, then high or low",
    )
    fraction: float = Field(0.05, gt=0, le=0.5, description="share of categories in a subset")
    k: int | None = Field(None, ge=2, description="absolute number of categories instead")
    average: Average = Field("mean", description="that avg_high and avg_low sort by")
    range: Range = Field("max_min", description="that range_high and range_low sort by")
    disjoint: bool = Field(
        False, description="a category is in one subset of a dataset and metric at most"
    )
    orientation: Literal["quality", "raw"] = Field(
        "quality", description="raw sorts lower-is-better metrics by their raw value"
    )
    min_scored_share: float = Field(
        0.95, ge=0, le=1, description="a category with a smaller share of scored images is left out"
    )

    @field_validator("names")
    @classmethod
    def _check_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = ("avg", "range", *AVERAGES, *RANGES, *SIZES)
        for name in value:
            stem, _, end = name.rpartition("_")
            if stem not in known or end not in ("high", "low"):
                raise ValueError(
                    f"unknown subset '{name}'; a name is one of {', '.join(known)}, followed by "
                    "_high or _low"
                )
        return value

    def get_statistic(self, name: str) -> str:
        """Column of `schemas.CATEGORY_STATS` that a subset sorts by."""
        stem = name.rpartition("_")[0]
        return {"avg": self.average, "range": self.range}.get(stem, stem)

    @property
    def statistics(self) -> tuple[str, ...]:
        """Statistics that any subset sorts by, each once."""
        return tuple(dict.fromkeys(self.get_statistic(name) for name in self.names))

    def compute_k(self, num_categories: int) -> int:
        """Number of categories in a subset: `floor(fraction * C + 0.5)` unless `k` is given."""
        if self.k is not None:
            return self.k
        return math.floor(self.fraction * num_categories + 0.5)
