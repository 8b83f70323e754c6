"""Embeddings and logits of images, in one forward pass of a model.

The embedding of a trial is the vector before the classifier: the input of the last Linear layer,
4096 values for AlexNet and VGG16, 2048 for ResNet-50 and Inception-v3.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from iqray.errors import StudyError
from iqray.packs.packing import PackedImages
from iqray.settings.embedding import LOGITS, PENULTIMATE
from iqray.training.architectures import find_last_linear
from iqray.training.augment import compute_centre_boxes
from iqray.training.batches import make_batch

# More than this is a mistake in the choice of a layer: 28,000 images of 40,000 values.
_MAX_BYTES = 4 * 2**30


def embed(
    model: nn.Module, data: PackedImages, input_px: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and logits of a trial's images, as `embed_layers` gives them.

    Returns:
        embeddings (num_images, dim) float32 and logits (num_images, num_categories) float32, in
        the order of `data`.
    """
    found = embed_layers(model, data, input_px, batch_size, (PENULTIMATE, LOGITS))
    return found[PENULTIMATE], found[LOGITS]


def embed_layers(
    model: nn.Module,
    data: PackedImages,
    input_px: int,
    batch_size: int,
    layers: Sequence[str],
) -> dict[str, np.ndarray]:
    """Embed images by their central crop, with the model in evaluation mode, in one pass.

    The model stays on its device and comes back in the mode it had, without hooks.

    Args:
        model: any torchvision classifier.
        data: (num_images) images.
        input_px: side of the network input, pixels.
        batch_size: images per forward pass; changes results by rounding errors only.
        layers: each `penultimate` for the input of the last Linear layer, `logits` for the model's
            output, or a module's name for that module's output, flattened per image.

    Returns:
        For each layer (num_images, dim) float32, in the order of `data`. NaN where the model gives
        NaN.

    Raises:
        StudyError: there are no images, the model has no such layer, or a layer has too many
            values for this many images.
    """
    if not len(data):
        raise StudyError("there are no images to embed; a trial needs at least one test image")
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), _record(model, layers, len(data)) as recorded:
            for batch in _iterate(data, input_px, batch_size):
                output = _forward(model, batch)
                if LOGITS in recorded:
                    recorded[LOGITS].append(output)
    finally:
        model.train(was_training)
    return {layer: np.concatenate(recorded[layer]) for layer in layers}


def check_layer(model: nn.Module, layer: str) -> None:
    """Check that a model has a layer of this name.

    Raises:
        StudyError: it has not.
    """
    if layer not in (PENULTIMATE, LOGITS):
        _find_layer(model, layer)


@contextmanager
def _record(
    model: nn.Module, layers: Sequence[str], num_images: int
) -> Iterator[dict[str, list[np.ndarray]]]:
    """Collect, batch by batch, what the last Linear layer receives and what named layers give."""
    recorded: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}

    def keep(layer: str, values: torch.Tensor) -> None:
        _check_size(layer, values, num_images)
        recorded[layer].append(_to_rows(values))

    with ExitStack() as stack:
        for layer in layers:
            if layer == LOGITS:
                continue
            if layer == PENULTIMATE:
                handle = model.get_submodule(find_last_linear(model)).register_forward_pre_hook(
                    lambda _module, inputs, layer=layer: keep(layer, inputs[0])
                )
            else:
                handle = _find_layer(model, layer).register_forward_hook(
                    lambda _module, _inputs, output, layer=layer: keep(layer, output)
                )
            stack.callback(handle.remove)
        yield recorded


def _check_size(layer: str, values: torch.Tensor, num_images: int) -> None:
    dim = values[0].numel()
    num_bytes = dim * num_images * 4
    if num_bytes > _MAX_BYTES:
        raise StudyError(
            f"layer '{layer}' has {dim:,} values per image, {num_bytes / 2**30:.0f} GiB for "
            f"{num_images:,} images; choose a later layer, such as '{PENULTIMATE}', or fewer images"
        )


def _find_layer(model: nn.Module, layer: str) -> nn.Module:
    modules = dict(model.named_modules())
    if not layer or layer not in modules:
        names = [name for name, _ in model.named_children()]
        raise StudyError(
            f"unknown layer '{layer}' of {type(model).__name__}; name a module such as "
            f"{', '.join(names)}, '{PENULTIMATE}' or '{LOGITS}'"
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
