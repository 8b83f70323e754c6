"""What BRISQUE and NIQE have learnt, read from pyiqa's weight files without pyiqa.

To import pyiqa takes longer than to score hundreds of images with either.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iqray.metrics.tensor_files import check_shape, explain_misfit, read_tensors

NUM_NSS_FEATURES = 36  # 18 natural-scene statistics at each of two scales


@dataclass(frozen=True)
class BrisqueParameters:
    """A support vector regression with a Gaussian kernel.

    Attributes:
        coefficients: (num_vectors,) float32.
        vectors: (num_vectors, 36) float32, of statistics scaled to [-1, 1].
    """

    coefficients: torch.Tensor
    vectors: torch.Tensor


@dataclass(frozen=True)
class NiqeParameters:
    """The Gaussian of pristine images' statistics.

    Attributes:
        mean: (36,) float64.
        covariance: (36, 36) float64.
    """

    mean: np.ndarray
    covariance: np.ndarray


def read_brisque_parameters(path: Path) -> BrisqueParameters:
    """Read a file of two tensors: coefficients, and support vectors.

    Raises:
        StudyError: the file is damaged, needs unpickling, or holds something else.
    """
    content = read_tensors(path)
    with explain_misfit(path, "BRISQUE"):
        coefficients, vectors = content
        check_shape("sv", vectors.shape, (len(coefficients), NUM_NSS_FEATURES))
        return BrisqueParameters(coefficients.float(), vectors.float())


def read_niqe_parameters(path: Path) -> NiqeParameters:
    """Read a MATLAB file of `mu_prisparam` and `cov_prisparam`.

    Raises:
        StudyError: the file is damaged or holds something else.
    """
    # Imported here, since BRISQUE needs none of it.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    with explain_misfit(path, "NIQE", MatReadError):
        content = loadmat(path)
        mean = _convert(content["mu_prisparam"]).ravel()
        covariance = _convert(content["cov_prisparam"])
        check_shape("mu_prisparam", mean.shape, (NUM_NSS_FEATURES,))
        check_shape("cov_prisparam", covariance.shape, (NUM_NSS_FEATURES,) * 2)
        return NiqeParameters(mean, covariance)


def _convert(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
