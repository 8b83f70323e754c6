"""Trials small enough to train in seconds, and a runner for them."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from iqray.dataset import Dataset
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.listing import list_images
from iqray.inputs.sources import ImageSource
from iqray.recipes import RECIPES
from iqray.schemas import MANIFEST
from iqray.storage import Storage
from iqray.training.trial_runner import TrialRunner
from iqray.trials import Trial


def make_trial(
    seed: int = 0,
    categories: tuple[str, ...] = ("ant", "cat", "dog"),
    num_steps: int = 2,
    num_workers: int = 1,
    learning_rate: float = 0.2,
    clip_norm: float = 20.0,
    **recipe_changes: Any,
) -> Trial:
    """ResNet-50 at 32 px in batches of four, by the demo's recipe."""
    recipe = RECIPES["demo"].model_copy(update={"batch_size": 4, **recipe_changes})
    changes = {"learning_rate": learning_rate, "clip_norm": clip_norm}
    own = recipe.architectures["resnet50"].model_copy(update=changes)
    recipe = recipe.model_copy(update={"architectures": {"resnet50": own}})
    trial = Trial(
        "d", "resnet50", categories, "images", 9, 6, 2, num_steps, seed, recipe, {"torch": "x"}
    )
    return dataclasses.replace(trial, num_workers=num_workers)


def make_runner(images: Path, output: Path, **settings: Any) -> TrialRunner:
    """A runner on a folder of images from `make_dataset`, with its own cache beside the output."""
    source = ImageSource(ImageRoot(str(images)))
    rows = [
        {
            **row,
            "sha256": hashlib.sha256((images / row["path"]).read_bytes()).hexdigest(),
            "width": 112,
            "height": 96,
            "status": "ok",
        }
        for row in list_images(Dataset(name="d", root=str(images)), source.root).to_pylist()
    ]
    return TrialRunner(
        storage=Storage(str(output)),
        manifests={"d": pa.Table.from_pylist(rows, schema=MANIFEST)},
        sources={"d": source},
        save_models=True,
        cache=output.parent / "cache",
        **settings,
    )
