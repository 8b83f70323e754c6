"""What is studied: datasets, metrics, architectures, subset rules, recipe, seeds, resources.

A `Study` is read from YAML by `iqray.study_file` and is the only configuration there is. Nothing
here knows Ray or the disk; `iqray.preflight` holds a study against the disk and the cluster.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from iqray.cost import NodePrices
from iqray.dataset import NAME_PATTERN, Dataset, StudyPart
from iqray.recipes import ARCHITECTURES, RECIPES, Recipe
from iqray.settings.control import ControlSettings
from iqray.settings.embedding import TRIALS, EmbeddingSettings
from iqray.settings.intervention import CHOICES, Intervention
from iqray.settings.rdm import RdmSettings
from iqray.settings.training import TrainingSettings, check_training

Average = Literal["mean", "median", "trimmed_mean"]
Range = Literal["max_min", "p95_p5", "p99_p1", "iqr", "sd"]
SizeStatistic = Literal["num_images", "num_scored", "median_pixels", "bytes_per_pixel"]
AVERAGES, RANGES, SIZES = get_args(Average), get_args(Range), get_args(SizeStatistic)

SUBSET_NAMES = ("avg_high", "avg_low", "range_high", "range_low")
PAPER_METRICS = ("brisque", "clipiqa", "cnniqa", "dbcnn", "musiq", "niqe")


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


@dataclass(frozen=True)
class ScorePool:
    """A pool of scoring actors, with every setting."""

    metrics: tuple[str, ...]
    min_actors: int
    max_actors: int | None  # none for as many as fit
    num_cpus: float
    num_gpus: float


class PoolSettings(StudyPart):
    """A pool of scoring actors; what is left out is as `ScoringSettings` has it."""

    metrics: tuple[str, ...] = Field(min_length=1, description="that each actor holds")
    min_actors: int | None = Field(None, ge=1)
    max_actors: int | None = Field(None, ge=1)
    num_cpus: float | None = Field(None, gt=0)
    num_gpus: float | None = Field(None, ge=0)


class ScoringSettings(StudyPart):
    """How images are scored, and with what."""

    small_images: Literal["reject", "upscale"] = Field(
        "reject",
        description="an image below a metric's smallest side: a too_small row, or bicubic "
        "upscaling to that side, noted in its row",
    )
    shard_size: int = Field(256, ge=1, description="images scored and written together")
    pools: Literal["shared", "per_metric"] | tuple[PoolSettings, ...] = Field(
        "shared",
        description="shared: one pool of actors that hold all metrics and decode an image once; "
        "per_metric: a pool for each metric; or a list of pools. Pools run at the same time",
    )
    min_actors: int = Field(1, ge=1, description="of a pool, kept all the time")
    max_actors: int | None = Field(None, ge=1, description="of a pool; none for as many as fit")
    num_cpus: float = Field(1, gt=0, description="per actor; also its number of threads")
    num_gpus: float = Field(0, ge=0, description="per actor; fractions share a GPU")
    max_failed_share: float = Field(
        0.01, ge=0, le=1, description="a larger share of unscorable images stops the study"
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32",
        description="of networks; less than fp32 only behind the rank gate, which scores in fp32 "
        "whatever decides about a subset",
    )
    max_image_s: float = Field(
        1800, gt=0, description="an image that takes longer with a metric is recorded as crashed"
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for pool in self.list_pools(["any"]):
            if pool.max_actors is not None and pool.min_actors > pool.max_actors:
                raise ValueError(
                    f"scoring has a pool of at least {pool.min_actors} and at most "
                    f"{pool.max_actors} actors; lower min_actors or raise max_actors"
                )
            if self.precision == "tf32" and not pool.num_gpus:
                raise ValueError(
                    "scoring.precision is tf32, which only NVIDIA GPUs have, and a pool has no "
                    "GPU; give every pool num_gpus, or choose fp32 or bf16"
                )
        return self

    def list_pools(self, metrics: Sequence[str]) -> list[ScorePool]:
        """Pools for metrics, with every setting filled in."""
        if self.pools == "shared":
            pools = [PoolSettings(metrics=tuple(metrics))]
        elif self.pools == "per_metric":
            pools = [PoolSettings(metrics=(metric,)) for metric in metrics]
        else:
            pools = list(self.pools)
        return [
            ScorePool(
                metrics=pool.metrics,
                min_actors=self.min_actors if pool.min_actors is None else pool.min_actors,
                max_actors=self.max_actors if pool.max_actors is None else pool.max_actors,
                num_cpus=self.num_cpus if pool.num_cpus is None else pool.num_cpus,
                num_gpus=self.num_gpus if pool.num_gpus is None else pool.num_gpus,
            )
            for pool in pools
        ]


class Weights(StudyPart):
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


class Study(StudyPart):
    """The whole question and its settings."""

    name: str = Field(pattern=NAME_PATTERN)
    root: str = Field(description="output root: everything the study writes is below it")
    datasets: tuple[Dataset, ...] = Field(min_length=1)
    metrics: tuple[str, ...] = Field(PAPER_METRICS, min_length=1)
    architectures: tuple[str, ...] = Field(ARCHITECTURES, min_length=1)
    subsets: SubsetRules = SubsetRules()
    controls: ControlSettings = ControlSettings()
    recipe: Recipe
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1)
    weights: Weights
    scoring: ScoringSettings = ScoringSettings()
    training: TrainingSettings = TrainingSettings()
    embeddings: EmbeddingSettings = EmbeddingSettings()
    rdms: RdmSettings = RdmSettings()
    interventions: tuple[Intervention, ...] = Field(
        (), description="changes of subsets' images, made by jobs/intervene.py"
    )
    prices: NodePrices | None = None

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
        _check_pools(self.scoring, self.metrics)
        if self.subsets.disjoint and self.scoring.precision != "fp32":
            raise ValueError(
                "subsets.disjoint needs the exact order of categories, and scoring.precision "
                f"{self.scoring.precision} secures only which of them are chosen; score in fp32, "
                "or let subsets overlap"
            )
        if self.controls.image_halves and self.scoring.precision != "fp32":
            raise ValueError(
                "controls.image_halves needs the exact order of images, and scoring.precision "
                f"{self.scoring.precision} secures only which categories are chosen; score in "
                "fp32, or set controls.image_halves to false"
            )
        _check_embeddings(self)
        _check_interventions(self)
        check_training(self.training, self.architectures, self.recipe)
        for architecture in self.architectures:
            if architecture not in self.recipe.architectures:
                raise ValueError(
                    f"recipe '{self.recipe.name}' says nothing about '{architecture}'; "
                    f"it covers {', '.join(self.recipe.architectures)}"
                )
        return self

    @property
    def all_datasets(self) -> tuple[Dataset, ...]:
        """Datasets of the grid, and extra images that are only embedded."""
        return (*self.datasets, *self.embeddings.extra_images)

    @property
    def num_cells(self) -> int:
        """Cells of the grid, before seeds: 192 for the paper's."""
        return (
            len(self.datasets)
            * len(self.architectures)
            * len(self.metrics)
            * len(self.subsets.names)
        )


def _check_pools(scoring: ScoringSettings, metrics: Sequence[str]) -> None:
    pooled = [name for pool in scoring.list_pools(metrics) for name in pool.metrics]
    _check_no_repeats("scoring.pools", pooled)
    lost = sorted(set(metrics) ^ set(pooled))
    if lost:
        raise ValueError(
            f"scoring.pools and metrics differ in {', '.join(lost)}; every metric of the study "
            "belongs to one pool"
        )


def _check_embeddings(study: Study) -> None:
    settings = study.embeddings
    _check_no_repeats(
        "datasets and embeddings.extra_images",
        (dataset.name for dataset in (*study.datasets, *settings.extra_images)),
    )
    for checkpoint in settings.checkpoints:
        if checkpoint.architecture not in study.recipe.architectures:
            raise ValueError(
                f"checkpoint '{checkpoint.name}' is a {checkpoint.architecture}, of which recipe "
                f"'{study.recipe.name}' says nothing, not even the size of its input; it covers "
                f"{', '.join(study.recipe.architectures)}"
            )
    if not settings.is_empty and TRIALS in settings.networks and not study.training.save_models:
        raise ValueError(
            "embeddings asks for networks of trials, but training.save_models is false; set it to "
            "true, or leave trials out of embeddings.networks"
        )


def _check_interventions(study: Study) -> None:
    _check_no_repeats("interventions", (each.name for each in study.interventions))
    known = {
        "dataset": [dataset.name for dataset in study.datasets],
        "metric": study.metrics,
        "subset": study.subsets.names,
    }
    for intervention in study.interventions:
        for key, values in known.items():
            value = getattr(intervention, key)
            if value not in values:
                raise ValueError(
                    f"interventions has {key} '{value}', which the study has not; choose from "
                    f"{', '.join(values)}"
                )
        chosen = [change.kind for change in intervention.changes if change.kind in CHOICES]
        if chosen and study.scoring.precision != "fp32":
            raise ValueError(
                f"interventions, {chosen[0]}, needs the exact order of images, and "
                f"scoring.precision {study.scoring.precision} secures only which categories are "
                "chosen; score in fp32, or leave that change out"
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
