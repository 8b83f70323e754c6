"""The peer on a device: pyiqa's own networks at batch 1, as its loop calls them.

Also says what its exact scores are. pyiqa leaves TF32 on in convolutions, whose factors CUDA then
rounds to 10 bits; scores without it are the exact ones here.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn
from torchvision.transforms.functional import to_tensor

from iqray.benchmarks.arithmetic import count_metric_flops, synchronize
from iqray.benchmarks.harness import find_largest_deviation
from iqray.metrics.networks import load_network
from iqray.metrics.precision import use_precision
from iqray.metrics.registry import METRICS_WITH_PRECISIONS
from iqray.metrics.weights import MetricWeights

# Images whose scores on the device are held against those on the CPU, which take seconds each.
_NUM_ON_CPU = 8

Settings = Callable[[], AbstractContextManager[object]]

# What pyiqa 0.1.16 sets around each call (models/inference_model.py), and the same without TF32.
PYIQA_SETTINGS: Settings = partial(
    torch.backends.cudnn.flags, enabled=True, benchmark=False, deterministic=True
)
EXACT_SETTINGS: Settings = partial(use_precision, "fp32")


@dataclass(frozen=True)
class MetricPeer:
    """pyiqa's network of a metric, and what is known of the images it is to score.

    Attributes:
        metric: pyiqa's name.
        weights: of both sides.
        network: on the device.
        exact: pyiqa's scores of the images without TF32: on the device, or on the CPU for BRISQUE
            and NIQE, which iqray computes there.
        own_deviation: largest relative difference between pyiqa's scores on the device and on the
            CPU. No other implementation can be expected to come closer to both.
        num_flops: that the network needs for all images; none for BRISQUE and NIQE.
    """

    metric: str
    weights: MetricWeights
    network: nn.Module = field(repr=False)
    exact: tuple[float, ...]
    own_deviation: float
    num_flops: int | None


def load_peer(
    weights: MetricWeights, images: Sequence[np.ndarray], device: torch.device
) -> MetricPeer:
    """Load pyiqa's network, count its operations and compute its exact scores.

    Args:
        weights: of one of the paper's metrics.
        images: each (height, width, 3) uint8, RGB.
        device: that it is to run on.
    """
    metric = weights.metric
    network = load_network(weights)
    is_deep = metric in METRICS_WITH_PRECISIONS
    num_flops = count_metric_flops(metric, network, images) if is_deep else None
    some = images[:_NUM_ON_CPU] if is_deep else images
    on_cpu = score_one_by_one(network, some, torch.device("cpu"), EXACT_SETTINGS)
    network = network.to(device)
    there = score_one_by_one(network, images, device, EXACT_SETTINGS)
    deviation = find_largest_deviation(there[: len(on_cpu)], on_cpu)
    exact = tuple(there if is_deep else on_cpu)
    return MetricPeer(metric, weights, network, exact, deviation, num_flops)


@torch.inference_mode()
def score_one_by_one(
    network: nn.Module, images: Sequence[np.ndarray], device: torch.device, settings: Settings
) -> list[float]:
    """Score as pyiqa's loop does: `to_tensor`, to the device, one image a call, to a number.

    Args:
        network: pyiqa's, on the device.
        images: each (height, width, 3) uint8, RGB.
        device: of the network.
        settings: in which it computes.

    Returns:
        A score per image.
    """
    with settings():
        scores = [network(to_tensor(image)[None].to(device)).item() for image in images]
    synchronize(device)
    return scores
