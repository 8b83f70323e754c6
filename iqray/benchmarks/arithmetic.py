"""The arithmetic that a score takes at least, and how much of it a device can do in a second."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.functional import to_tensor

from iqray.metrics.precision import use_precision

# Side of the square matrices whose product is the ceiling; smaller ones leave a GPU half idle.
_ACCELERATOR_SIDE = 8192
_CPU_SIDE = 512

_NUM_PRODUCTS = 10  # timed together, as one of them takes about a millisecond on a GPU
_NUM_TRIES = 5


def count_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of convolutions, matrix products and attention.

    A multiplication and an addition are two, however the library computes them: Winograd's
    convolutions, which multiply less, can therefore lie above a ceiling.

    Args:
        run: does the work in torch, on any device.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def count_metric_flops(metric: str, network: Any, images: Sequence[np.ndarray]) -> int:
    """Operations that pyiqa's network needs for images, one image a call.

    CLIP-IQA's prompts, which it encodes anew for each image, are left out: they need it once.

    Args:
        metric: pyiqa's name.
        network: pyiqa's, on the CPU.
        images: each (height, width, 3) uint8; every shape is computed once.
    """
    needless = 0
    if metric == "clipiqa":
        [model] = network.clip_model
        needless = count_flops(lambda: model.encode_text(network.prompt_pairs))
    return sum(
        number * (_count_image_flops(network, shape) - needless)
        for shape, number in Counter(image.shape for image in images).items()
    )


def measure_ceiling(
    device: torch.device,
    precision: str,
    side: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Operations a second of a large matrix product, the best of several tries.

    Args:
        device: to be measured.
        precision: one of `iqray.metrics.precision.PRECISIONS`.
        side: of the matrices; one that fits the device if none.
        clock: seconds from any start.
    """
    side = side or (_CPU_SIDE if device.type == "cpu" else _ACCELERATOR_SIDE)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    with torch.inference_mode(), use_precision(precision):
        seconds = list(_time_products(left, right, clock))
    return 2 * side**3 * _NUM_PRODUCTS / min(seconds)


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _count_image_flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    # Noise, since some of pyiqa's metrics fail on an image without any contrast.
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return count_flops(lambda: network(to_tensor(pixels)[None]))


def _time_products(
    left: torch.Tensor, right: torch.Tensor, clock: Callable[[], float]
) -> Iterator[float]:
    """Seconds of each try, after one that does not count."""
    for number in range(_NUM_TRIES + 1):
        synchronize(left.device)
        started_s = clock()
        for _ in range(_NUM_PRODUCTS):
            left @ right
        synchronize(left.device)
        if number:
            yield clock() - started_s
