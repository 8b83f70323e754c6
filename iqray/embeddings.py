"""Embeddings and logits of a trial's test images, in one forward pass of a trained model.

The embedding is the vector before the classifier: the input of the last Linear layer, 4096
values for AlexNet and VGG16, 2048 for ResNet-50 and Inception-v3.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from iqray.architectures import find_last_linear
from iqray.augment import compute_centre_boxes
from iqray.batches import make_batch
from iqray.errors import StudyError
from iqray.packing import PackedImages

LOGITS = "logits"


def embed(
    model: nn.Module,
    data: PackedImages,
    input_px: int,
    batch_size: int,
    layer: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Embed images by their central crop, with the model in evaluation mode.

    The model stays on its device and comes back in the mode it had, without hooks.

    Args:
        model: any torchvision classifier.
        data: (num_images) images.
        input_px: side of the network input, pixels.
        batch_size: images per forward pass; changes results by rounding errors only.
        layer: none for the input of the last Linear layer, `logits` for the model's output, or a
            module's name for that module's output, flattened per image.

    Returns:
        embeddings (num_images, dim) float32 and logits (num_images, num_categories) float32, in
        the order of `data`. NaN where the model gives NaN.

    Raises:
        StudyError: there are no images, or the model has no such layer.
    """
    if not len(data):
        raise StudyError("there are no images to embed; a trial needs at least one test image")
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), _record(model, layer) as recorded:
            logits = [_forward(model, batch) for batch in _iterate(data, input_px, batch_size)]
    finally:
        model.train(was_training)
    embeddings = logits if layer == LOGITS else recorded
    return np.concatenate(embeddings), np.concatenate(logits)


@contextmanager
def _record(model: nn.Module, layer: str | None) -> Iterator[list[np.ndarray]]:
    """Collect, batch by batch, what the layer receives (last Linear) or gives (named layer)."""
    recorded: list[np.ndarray] = []

    def keep_input(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        recorded.append(_to_rows(inputs[0]))

    def keep_output(_module: nn.Module, _inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        recorded.append(_to_rows(output))

    if layer == LOGITS:
        yield recorded
        return
    if layer is None:
        handle = model.get_submodule(find_last_linear(model)).register_forward_pre_hook(keep_input)
    else:
        handle = _find_layer(model, layer).register_forward_hook(keep_output)
    try:
        yield recorded
    finally:
        handle.remove()


def _find_layer(model: nn.Module, layer: str) -> nn.Module:
    modules = dict(model.named_modules())
    if not layer or layer not in modules:
        names = [name for name, _ in model.named_children()]
        raise StudyError(
            f"unknown layer '{layer}' of {type(model).__name__}; name a module such as "
            f"{', '.join(names)}, or '{LOGITS}'"
        )
    return modules[layer]


def _iterate(data: PackedImages, input_px: int, batch_size: int) -> Iterator[torch.Tensor]:
    boxes = compute_centre_boxes(data.shapes)
    for start in range(0, len(data), batch_size):
        indices = range(start, min(start + batch_size, len(data)))
        yield make_batch(
            [data.image(i) for i in indices],
            boxes[indices.start : indices.stop],
            np.zeros(len(indices), dtype=bool),
            input_px,
            torch.get_num_threads(),
        )


def _forward(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    device = next(model.parameters()).device
    return _to_rows(model(images.to(device)))


def _to_rows(values: torch.Tensor) -> np.ndarray:
    """(N, ...) to (N, D) float32; a copy, since a later layer may work in place."""
    return np.array(values.flatten(1).float().cpu(), dtype=np.float32)
