"""Benchmark of the training loop itself, beside a plain loop of PyTorch on the same tensors."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from iqray.benchmarks.harness import Benchmark, Fidelity, find_largest_deviation
from iqray.packs.packing import Pack, PackedImages, concatenate
from iqray.recipes import RECIPES, Recipe
from iqray.training.architectures import create_model
from iqray.training.augment import BatchStream, derive_step_seed
from iqray.training.loading import BatchLoader, BatchPlanner
from iqray.training.loop import train

STEP = "step"
STEP_TARGET = 0.95

_ARCHITECTURE = "resnet50"
_INPUT_PX, _STORED_PX = 64, 73
_BATCH_SIZE, _NUM_CATEGORIES = 16, 4
_NUM_EPOCHS = 2
_SEED = 0

# The fused optimizer rounds its updates otherwise, and twelve steps multiply that.
_TOLERANCE = 1e-3

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class StepInputs:
    """What both loops train on.

    Attributes:
        data: images as packs have them.
        recipe: of both.
        batches: made of the images for each step.
    """

    data: PackedImages
    recipe: Recipe
    batches: list[Batch]


def build_step_benchmark(images: Sequence[bytes]) -> Benchmark[list[float]]:
    """Decode images and make the batches of the plain loop, which it gets for nothing.

    Args:
        images: encoded, at least one batch of them.
    """
    data = _pack(images)
    own = (
        RECIPES["paper"]
        .architectures[_ARCHITECTURE]
        .model_copy(update={"input_px": _INPUT_PX, "learning_rate": 0.01})
    )
    recipe = RECIPES["paper"].model_copy(
        update={"batch_size": _BATCH_SIZE, "architectures": {_ARCHITECTURE: own}}
    )
    num_steps = _NUM_EPOCHS * len(data) // _BATCH_SIZE
    stream = BatchStream(len(data), _BATCH_SIZE, _SEED)
    planner = BatchPlanner(stream, data.shapes, recipe, _INPUT_PX)
    with BatchLoader(data, planner, torch.device("cpu")) as loader:
        batches = [loader.take(step) for step in range(num_steps)]
    inputs = StepInputs(data, recipe, [(x.contiguous(), y) for x, y in batches])
    return Benchmark(
        name=STEP,
        peer=f"plain loop of torch {torch.__version__}, {_ARCHITECTURE} at {_INPUT_PX} px, "
        f"{num_steps} steps of {_BATCH_SIZE}, on batches made before; iqray makes its own",
        target=STEP_TARGET,
        run_peer=partial(_run_plain_loop, inputs),
        run_ours=partial(_run_train, inputs),
        compare=_compare,
    )


def _pack(images: Sequence[bytes]) -> PackedImages:
    """As many images as fill whole batches, in equal categories."""
    chosen = images[: len(images) // _BATCH_SIZE * _BATCH_SIZE]
    packs = []
    for part in np.array_split(np.arange(len(chosen)), _NUM_CATEGORIES):
        pixels = [
            np.asarray(
                Image.open(io.BytesIO(chosen[index]))
                .convert("RGB")
                .resize((_STORED_PX, _STORED_PX), Image.Resampling.BILINEAR)
            )
            for index in part
        ]
        shapes = np.full((len(pixels), 2), _STORED_PX, dtype=np.int64)
        packs.append(Pack(np.concatenate([image.reshape(-1) for image in pixels]), shapes))
    return concatenate(packs)


def _create_model() -> nn.Module:
    return create_model(_ARCHITECTURE, _NUM_CATEGORIES, _INPUT_PX, _SEED)


def _run_plain_loop(inputs: StepInputs) -> list[float]:
    """Mean loss of each epoch."""
    recipe, model = inputs.recipe, _create_model().train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    losses = []
    for step, (images, targets) in enumerate(inputs.batches):
        torch.manual_seed(derive_step_seed(_SEED, step))
        for group in optimizer.param_groups:
            group["lr"] = recipe.compute_learning_rate(_ARCHITECTURE, step, len(inputs.batches))
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.mean(np.split(np.array(losses), _NUM_EPOCHS), axis=1).tolist()


def _run_train(inputs: StepInputs) -> list[float]:
    rows: list[dict[str, float]] = []
    train(
        *(_create_model(), inputs.data, inputs.recipe, _ARCHITECTURE, len(inputs.batches), _SEED),
        torch.device("cpu"),
        rows.append,
    )
    return [row["loss"] for row in rows]


def _compare(ours: Sequence[float], theirs: Sequence[float]) -> Fidelity:
    largest = find_largest_deviation(ours, theirs)
    words = f"losses of {len(theirs)} epochs {largest:.1e} relative, {_TOLERANCE:g} allowed"
    return Fidelity(largest <= _TOLERANCE, words)
