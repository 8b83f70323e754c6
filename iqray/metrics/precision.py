"""How precisely networks compute: fp32 exactly, or less where a study asks for it.

`fp32` keeps TF32 off. `tf32` lets CUDA round the factors of matrix products and convolutions to 10
bits. `bf16` computes the heavy part of a network in bfloat16; forwards say which part that is.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from iqray.metrics.registry import FULL_PRECISION
from iqray.metrics.strips import Convolution

PRECISIONS = (FULL_PRECISION, "tf32", "bf16")


def check_precision(precision: str) -> None:
    """Refuse a precision that does not exist.

    Raises:
        ValueError: with those to choose from.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision '{precision}'; choose from {', '.join(PRECISIONS)}")


@contextlib.contextmanager
def use_precision(precision: str) -> Iterator[None]:
    """Set CUDA's libraries as pyiqa does, apart from TF32, for one forward pass."""
    allows_tf32 = precision == "tf32"
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = allows_tf32
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=allows_tf32
        ):
            yield
    finally:
        matmul.allow_tf32 = before


class PreciseForward(nn.Module):
    """A forward pass with a heavy part that may compute in bfloat16.

    Args:
        precision: one of `PRECISIONS`.
    """

    def __init__(self, precision: str) -> None:
        super().__init__()
        self._is_bf16 = precision == "bf16"

    def _store_weights(self, *heavy_parts: nn.Module) -> None:
        """Keep the weights of matrix products in the precision they are used in."""
        if self._is_bf16:
            for part in heavy_parts:
                for layer in part.modules():
                    if isinstance(layer, (Convolution, nn.Conv2d, nn.Linear)):
                        layer.to(torch.bfloat16)

    def _compute_heavy_part(self, device: torch.device) -> Any:
        """Context in which convolutions and matrix products have the precision asked for."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self._is_bf16)
