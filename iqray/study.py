"""What is studied: datasets, metrics, architectures, subset rules, recipe, seeds, resources.

A `Study` is read from YAML by `iqray.study_file` and is the only configuration there is. Nothing
here knows Ray or the disk; `iqray.preflight` holds a study against the disk and the cluster.
"""

from collections.abc import Iterable, Sequence
from typing import Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from iqray.cost import NodePrices
from iqray.dataset import NAME_PATTERN, Dataset, StudyPart
from iqray.recipes import ARCHITECTURES, RECIPES, Recipe
from iqray.settings.control import ControlSettings
from iqray.settings.embedding import TRIALS, EmbeddingSettings
from iqray.settings.intervention import CHOICES, Intervention
from iqray.settings.rdm import RdmSettings
from iqray.settings.scoring import ScoringSettings
from iqray.settings.subset import SubsetRules
from iqray.settings.training import TrainingSettings, check_training

PAPER_METRICS = ("brisque", "clipiqa", "cnniqa", "dbcnn", "musiq", "niqe")


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
