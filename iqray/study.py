"""What is studied: datasets, metrics, architectures, subset rules, recipe, seeds, resources.

A `Study` is read from YAML by `iqray.study_file` and is the only configuration there is. Nothing
here knows Ray or the disk; `iqray.preflight` holds a study against the disk and the cluster.
"""

import math
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    field_validator,
    model_validator,
)

from iqray.recipes import ARCHITECTURES, RECIPES, Recipe

SubsetName = Literal["avg_high", "avg_low", "range_high", "range_low"]
SUBSET_NAMES: tuple[SubsetName, ...] = ("avg_high", "avg_low", "range_high", "range_low")
PAPER_METRICS = ("brisque", "clipiqa", "cnniqa", "dbcnn", "musiq", "niqe")

_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(_Part):
    """One dataset: where its images are and how they are laid out."""

    name: str = Field(pattern=_NAME_PATTERN)
    root: str | None = Field(
        None, description="folder that holds the split folders; none only with `demo`"
    )
    layout: Literal["folders"] = Field(
        "folders", description="<root>/<split>/<category>/.../<image>"
    )
    train: str = Field("train", description="split folder whose images are scored and trained on")
    test: str = Field("val", description="split folder whose images are embedded and tested on")
    demo: Literal["a", "b"] | None = Field(
        None, description="generate this demo dataset under the output root"
    )

    @model_validator(mode="after")
    def _check_root(self) -> Self:
        if (self.root is None) == (self.demo is None):
            raise ValueError(
                f"dataset '{self.name}' must have either root (a folder of images) or "
                "demo (a, b: generated images)"
            )
        for split in (self.train, self.test):
            if split.startswith(("/", "~")) or ".." in split.split("/"):
                raise ValueError(
                    f"dataset '{self.name}' has a split folder '{split}'; it must be a folder "
                    "below the dataset's root: give its path relative to root"
                )
        if self.train == self.test:
            raise ValueError(
                f"dataset '{self.name}' has train and test both '{self.train}'; a model must not "
                "be tested on the images it was trained on"
            )
        return self


class SubsetRules(_Part):
    """Which categories make the four subsets of a dataset and metric."""

    names: tuple[SubsetName, ...] = Field(SUBSET_NAMES, min_length=1)
    fraction: float = Field(0.05, gt=0, le=0.5, description="share of categories in a subset")
    k: int | None = Field(None, ge=2, description="absolute number of categories instead")
    average: Literal["mean", "median", "trimmed_mean"] = "mean"
    range: Literal["max_min", "p95_p5", "p99_p1", "iqr", "sd"] = "max_min"
    orientation: Literal["quality", "raw"] = Field(
        "quality", description="raw sorts lower-is-better metrics by their raw value"
    )
    min_scored_share: float = Field(
        0.95, ge=0, le=1, description="a category with a smaller share of scored images is left out"
    )

    def compute_k(self, num_categories: int) -> int:
        """Number of categories in a subset: `floor(fraction * C + 0.5)` unless `k` is given."""
        if self.k is not None:
            return self.k
        return math.floor(self.fraction * num_categories + 0.5)


class ScoringSettings(_Part):
    """How images are scored, and with what."""

    small_images: Literal["reject", "upscale"] = Field(
        "reject",
        description="an image below a metric's smallest side: a too_small row, or bicubic "
        "upscaling to that side, noted in its row",
    )
    shard_size: int = Field(256, ge=1, description="images scored and written together")
    pools: Literal["shared", "per_metric"] = Field(
        "shared",
        description="shared: one pool of actors that hold all metrics and decode an image once; "
        "per_metric: one pool after another, each with one metric",
    )
    num_actors: int | None = Field(None, ge=1, description="none for as many as the CPUs allow")
    num_cpus: float = Field(1, gt=0, description="per actor; also its number of threads")
    num_gpus: float = Field(0, ge=0, description="per actor")
    max_failed_share: float = Field(
        0.01, ge=0, le=1, description="a larger share of unscorable images stops the study"
    )


class TrainingSettings(_Part):
    """What a trial may use, and how many run at once."""

    num_concurrent: int | None = Field(None, ge=1, description="none for as many as fit")
    num_cpus: float = Field(1, gt=0, description="per trial; also its number of threads")
    num_gpus: float = Field(0, ge=0, description="per trial")
    save_models: bool = Field(True, description="false drops the weights after evaluation")
    max_retries: int = Field(1, ge=0, description="after a crash of a trial's process")


class Weights(_Part):
    """Where the metrics' weights are."""

    directory: str | None = Field(
        None, description="folder or URI with weights.json; none only with demo"
    )
    demo: bool = Field(False, description="fit small stand-ins under the output root")

    @model_validator(mode="after")
    def _check_directory(self) -> Self:
        if (self.directory is None) != self.demo:
            raise ValueError("weights must have either directory (a folder or URI) or demo: true")
        return self


class Study(_Part):
    """The whole question and its settings."""

    name: str = Field(pattern=_NAME_PATTERN)
    root: str = Field(description="output root: everything the study writes is below it")
    datasets: tuple[Dataset, ...] = Field(min_length=1)
    metrics: tuple[str, ...] = Field(PAPER_METRICS, min_length=1)
    architectures: tuple[str, ...] = Field(ARCHITECTURES, min_length=1)
    subsets: SubsetRules = SubsetRules()
    recipe: Recipe
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1)
    weights: Weights
    scoring: ScoringSettings = ScoringSettings()
    training: TrainingSettings = TrainingSettings()

    @field_validator("recipe", mode="before")
    @classmethod
    def _resolve_recipe(cls, value: object) -> object:
        """Accept a recipe's name, or a mapping with `base` and the settings that differ."""
        if isinstance(value, str):
            return _find_recipe(value)
        if isinstance(value, dict) and "base" in value:
            changes = {key: setting for key, setting in value.items() if key != "base"}
            changes.setdefault("name", f"{value['base']} (changed)")
            return _merge(_find_recipe(value["base"]).model_dump(), changes)
        return value

    @field_validator("architectures")
    @classmethod
    def _check_architectures(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for architecture in value:
            if architecture not in ARCHITECTURES:
                raise ValueError(
                    f"unknown architecture '{architecture}'; choose from {', '.join(ARCHITECTURES)}"
                )
        return value

    @model_validator(mode="after")
    def _check_unique(self) -> Self:
        _check_no_repeats("datasets", (dataset.name for dataset in self.datasets))
        _check_no_repeats("metrics", self.metrics)
        _check_no_repeats("architectures", self.architectures)
        _check_no_repeats("subsets.names", self.subsets.names)
        _check_no_repeats("seeds", self.seeds)
        for architecture in self.architectures:
            if architecture not in self.recipe.architectures:
                raise ValueError(
                    f"recipe '{self.recipe.name}' says nothing about '{architecture}'; "
                    f"it covers {', '.join(self.recipe.architectures)}"
                )
        return self

    @property
    def num_cells(self) -> int:
        """Cells of the grid, before seeds: 192 for the paper's."""
        return (
            len(self.datasets)
            * len(self.architectures)
            * len(self.metrics)
            * len(self.subsets.names)
        )


def _find_recipe(name: object) -> Recipe:
    if name not in RECIPES:
        raise ValueError(f"unknown recipe '{name}'; choose from {', '.join(RECIPES)}")
    return RECIPES[str(name)]


def _merge(base: dict, changes: dict) -> dict:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if nested else value
    return merged


def _check_no_repeats(what: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} names {value!r} twice; name it once")
        seen.add(value)
