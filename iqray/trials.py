"""Which trainings the grid needs: cells, and the distinct trials that they share. Pure.

A cell is (dataset, architecture, metric, subset); a trial is one training, keyed by its content:
the images it trains and tests on, architecture, recipe, steps, initialisation, seed, and the
versions that change numbers. Cells of equal content share a trial.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqray.identity import hash_content
from iqray.recipes import Recipe
from iqray.study import Study
from iqray.usable_images import ImageIndex

# Raise when the same trial would end with other numbers.
TRAINING_VERSION = 3


@dataclass(frozen=True)
class Cell:
    """One place of the grid with one seed, and the trial that fills it."""

    dataset: str
    architecture: str
    metric: str
    subset: str
    seed: int
    trial_id: str


@dataclass(frozen=True)
class Trial:
    """One distinct training; everything that defines its numbers."""

    dataset: str
    architecture: str
    categories: tuple[str, ...]  # sorted; the position is the target
    images: str  # hash of the train and test images' paths and bytes
    num_train_images: int
    num_test_images: int
    num_matched: int  # test images per category among which distances are taken
    num_steps: int  # 0 leaves the model as it is drawn
    seed: int
    recipe: Recipe
    versions: Mapping[str, str]
    num_workers: int = 1  # batch normalisation and dropout are per worker: `iqray.training.team`
    # image_ids (num_train_images,) int64 where not all training images of the categories are taken;
    # `images` stands for them in the identity.
    chosen: np.ndarray | None = field(default=None, compare=False, repr=False)

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The trial as JSON types."""
        return {
            "dataset": self.dataset,
            "architecture": self.architecture,
            "categories": list(self.categories),
            "images": self.images,
            "num_train_images": self.num_train_images,
            "num_test_images": self.num_test_images,
            "num_matched": self.num_matched,
            "num_steps": self.num_steps,
            "seed": self.seed,
            "initialisation": "scratch",
            "num_workers": self.num_workers,
            "recipe": _describe_recipe(self.recipe, self.architecture),
            "versions": dict(self.versions),
        }

    @cached_property
    def trial_id(self) -> str:
        """Readable, safe as a folder name, equal for equal content."""
        content = hash_content(self.definition)[:12]
        return f"{self.dataset}-{self.architecture}-k{len(self.categories)}-s{self.seed}-{content}"


def plan_trials(
    study: Study,
    subsets: pa.Table,
    manifests: Mapping[str, pa.Table],
    versions: Mapping[str, str],
) -> tuple[list[Cell], dict[str, Trial]]:
    """All cells of the study's grid, and the distinct trials by their id.

    Every trial of a dataset and architecture takes the same number of optimizer steps: the
    recipe's budget at the median number of training images over the dataset's subsets. All its
    distances are taken among the same number of test images per category: as many as the smallest
    category of any subset has. Adding a metric to a study can change both, and with them trials.
    """
    cells: list[Cell] = []
    trials: dict[str, Trial] = {}
    for dataset in study.datasets:
        planner = TrialPlanner(study, dataset.name, subsets, manifests[dataset.name], versions)
        for architecture in study.architectures:
            for metric in study.metrics:
                for subset in study.subsets.names:
                    categories = planner.chosen[metric, subset]
                    for seed in study.seeds:
                        trial = planner.plan(architecture, categories, seed)
                        trials.setdefault(trial.trial_id, trial)
                        cells.append(
                            Cell(dataset.name, architecture, metric, subset, seed, trial.trial_id)
                        )
    return cells, trials


@dataclass(frozen=True)
class ImageChoice:
    """Training images of a trial that does not take all of its categories'.

    Attributes:
        image_ids: (num_images,) int64.
        content: hash of these and of the categories' test images.
    """

    image_ids: np.ndarray
    content: str


class TrialPlanner:
    """Plans trials of a dataset that can be compared with those of its grid.

    Attributes:
        chosen: categories by (metric, subset), sorted.
        num_matched: test images per category among which distances are taken.
    """

    def __init__(
        self,
        study: Study,
        dataset: str,
        subsets: pa.Table,
        manifest: pa.Table,
        versions: Mapping[str, str],
    ) -> None:
        self._study = study
        self._dataset = dataset
        self._versions = versions
        self._usable = ImageIndex(manifest)
        self.chosen = {
            (metric, subset): categories
            for (name, metric, subset), categories in _list_categories(subsets).items()
            if name == dataset
        }
        sizes = [self._usable.count("train", categories) for categories in self.chosen.values()]
        self._median_size = float(np.median(sizes))
        self.num_matched = min(
            self._usable.count("test", [category])
            for categories in self.chosen.values()
            for category in categories
        )

    def choose_images(self, categories: Sequence[str], images: pa.Table) -> ImageChoice:
        """Training images of categories for trials that are trained on these alone.

        Args:
            categories: sorted.
            images: columns image_id and category of usable training images; those of other
                categories are passed over.
        """
        is_own = pc.is_in(images["category"], value_set=pa.array(categories, pa.string()))
        image_ids = images.filter(is_own)["image_id"].to_numpy()
        return ImageChoice(image_ids, self._usable.hash_images(categories, image_ids))

    def plan(
        self,
        architecture: str,
        categories: Sequence[str],
        seed: int,
        choice: ImageChoice | None = None,
    ) -> Trial:
        """Trial of any categories, with the grid's steps and matched counts.

        Args:
            architecture: to train.
            categories: sorted.
            seed: of the training.
            choice: from `choose_images`, of the same categories; none for all training images.
        """
        if choice is None:
            images = self._usable.hash_images(categories)
            num_train_images = self._usable.count("train", categories)
        else:
            images, num_train_images = choice.content, len(choice.image_ids)
        return Trial(
            dataset=self._dataset,
            architecture=architecture,
            categories=tuple(categories),
            images=images,
            num_train_images=num_train_images,
            num_test_images=self._usable.count("test", categories),
            num_matched=self.num_matched,
            num_steps=self._study.recipe.compute_steps(architecture, self._median_size),
            seed=seed,
            recipe=self._study.recipe,
            versions=self._versions,
            num_workers=self._study.training.num_workers,
            chosen=choice.image_ids if choice else None,
        )

    def plan_untrained(self, architecture: str, categories: Sequence[str], seed: int) -> Trial:
        """Trial that tests the model as it is drawn; training images are not in its identity."""
        nothing = np.empty(0, dtype=np.int64)
        none = ImageChoice(nothing, self._usable.hash_images(categories, nothing))
        return replace(self.plan(architecture, categories, seed, none), num_steps=0)


def get_checkpoint_folder(trial_id: str) -> str:
    """Folder of a trial's checkpoint while it is trained, relative to the output root."""
    return f"trials/{trial_id}/checkpoint"


def order_longest_first(trials: Iterable[Trial]) -> list[Trial]:
    """Trials by falling estimate of their cost, so that no long one starts last."""
    return sorted(trials, key=lambda trial: (-_estimate_cost(trial), trial.trial_id))


# Forward and backward GFLOP per image at the paper's input size, measured with torch's
# FlopCounterMode; only the order matters here.
_TRAIN_GFLOP = {"alexnet": 4.1, "inception_v3": 34.3, "resnet50": 24.3, "vgg16": 92.6}


def _estimate_cost(trial: Trial) -> float:
    return trial.num_steps * _TRAIN_GFLOP[trial.architecture]


def _list_categories(subsets: pa.Table) -> dict[tuple[str, str, str], tuple[str, ...]]:
    chosen: dict[tuple[str, str, str], list[str]] = {}
    for row in subsets.select(["dataset", "metric", "subset", "category"]).to_pylist():
        key = row["dataset"], row["metric"], row["subset"]
        chosen.setdefault(key, []).append(row["category"])
    return {key: tuple(sorted(categories)) for key, categories in chosen.items()}


def _describe_recipe(recipe: Recipe, architecture: str) -> dict[str, Any]:
    """What the recipe says about one architecture; names and budgets are not content."""
    described = recipe.model_dump(
        mode="json", exclude={"name", "is_preview", "architectures", "epochs"}
    )
    own = recipe.architectures[architecture].model_dump(mode="json", exclude={"steps"})
    return {**described, **own, "stored_px": recipe.compute_stored_px(architecture)}
