"""Each metric's way from pixels to score: pyiqa's, without work that cannot change the score.

Scores stay those of pyiqa's own forward, to 1e-5 relative (CNN-IQA 1e-6), while precision is fp32.
What each metric leaves out or does otherwise stands in its own module.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from iqray.metrics.clipiqa import ClipiqaForward
from iqray.metrics.cnniqa import CnniqaForward
from iqray.metrics.dbcnn import DbcnnForward
from iqray.metrics.musiq import MusiqForward

_FORWARDS: dict[str, Callable[[Any, str], nn.Module]] = {
    "clipiqa": ClipiqaForward,
    "cnniqa": CnniqaForward,
    "dbcnn": DbcnnForward,
    "musiq": MusiqForward,
}


def build_forward(metric: str, network: nn.Module, precision: str = "fp32") -> nn.Module:
    """Build the fastest forward pass of a metric.

    Args:
        metric: pyiqa's name.
        network: from `iqray.metrics.networks.load_network`, on the CPU; not to be used any more.
        precision: one of `iqray.metrics.precision.PRECISIONS`; metrics that iqray has no forward
            of know only fp32.

    Returns:
        A module from (num_images, 3, height, width) float32 RGB in [0, 1] to num_images scores.
    """
    return _FORWARDS[metric](network, precision) if metric in _FORWARDS else network
