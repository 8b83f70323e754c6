"""Writes the weight files of the demo's metrics, whole or not at all, in pyiqa's formats."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import torch

from iqray.metrics.registry import find_metric


def write_weight_file(directory: Path, metric: str, write: Callable[[IO[bytes]], object]) -> None:
    """Write a metric's one weight file under the name that pyiqa gives it.

    Args:
        directory: created when missing.
        metric: brisque, clipiqa, cnniqa, dbcnn, musiq or niqe.
        write: called with the open file.
    """
    (name,) = find_metric(metric).weight_files
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f".{name}.{os.getpid()}"
    try:
        with partial.open("wb") as file:
            write(file)
        partial.replace(directory / name)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def halve(state: Mapping[str, torch.Tensor], keep: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """State dict with its floating-point tensors in float16, for half the size on disk.

    Args:
        state: of a network whose weights were rounded by `round_to_half` before the fit, so that
            nothing is lost here.
        keep: names of tensors that stay as they are: the fitted ones.
    """
    return {
        name: tensor if name in keep or not tensor.is_floating_point() else tensor.half()
        for name, tensor in state.items()
    }
