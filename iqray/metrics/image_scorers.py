"""Metrics that score one image at a time on the CPU, in compiled code, where that beats a network.

They need neither pyiqa nor a network, so that a process with such metrics alone is soon ready.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from iqray.metrics.weights import MetricWeights

# From (height, width, 3) uint8 RGB to the score, which is NaN or raises where pyiqa's is or does.
ImageScorer = Callable[[np.ndarray], float]


def load_image_scorer(weights: MetricWeights) -> ImageScorer | None:
    """Load a metric that has such a scorer.

    Args:
        weights: from `iqray.metrics.weights.find_weights`.

    Returns:
        None for metrics that are networks.

    Raises:
        StudyError: the metric's file is missing on this node, has a wrong sum, is damaged, holds
            something else, or would need unpickling.
    """
    load = _LOADERS.get(weights.metric)
    return None if load is None else load(weights.locate() / weights.names[0])


def _load_brisque(path: Path) -> ImageScorer:
    # Imported here, and below, since kernels take time to load.
    from iqray.metrics.brisque import BrisqueScorer
    from iqray.metrics.nss_parameters import read_brisque_parameters

    return BrisqueScorer(read_brisque_parameters(path))


def _load_niqe(path: Path) -> ImageScorer:
    from iqray.metrics.niqe import NiqeScorer
    from iqray.metrics.nss_parameters import read_niqe_parameters

    return NiqeScorer(read_niqe_parameters(path))


_LOADERS: dict[str, Callable[[Path], ImageScorer]] = {
    "brisque": _load_brisque,
    "niqe": _load_niqe,
}
