"""Weight files read without unpickling, and converted once to safetensors where they need it.

Reads torch files, TorchScript archives and safetensors; writes safetensors. What is in a pickle can
run any code when it is read, so only a file whose sha256 is pinned in iqray is ever unpickled, and
only by `convert_file`, which scoring never calls.
"""

import contextlib
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from iqray.errors import StudyError
from iqray.identity import compute_sha256

# What torch, pyiqa and scipy raise when a file's content is not what a metric needs.
MISFITS = (RuntimeError, LookupError, TypeError, ValueError, AttributeError)

# Joins the keys of nested containers in a safetensors file. State dicts use dots.
_NESTING = "/"


def read_tensors(path: Path) -> Any:
    """Read a file that holds nothing but tensors and plain containers.

    Args:
        path: a torch file or, by its suffix, safetensors.

    Raises:
        StudyError: the file is damaged, or would need unpickling.
    """
    try:
        if path.suffix == ".safetensors":
            return _nest(load_file(path))
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise refuse_pickle(path) from error
    except (RuntimeError, EOFError, OSError, SafetensorError) as error:
        raise StudyError(f"{path} cannot be read ({error}); fetch it again") from error


def refuse_pickle(path: object) -> StudyError:
    """The error for a file that holds more than tensors."""
    return StudyError(
        f"{path} is refused: it is damaged, or holds Python objects that would have to be "
        "unpickled, which can run any code. Weights must be tensors only; fetch the file "
        "again, or save its state dict anew with torch.save"
    )


def check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Check the shape of an array in a weight file.

    Raises:
        ValueError: it is another.
    """
    if tuple(found) != expected:
        raise ValueError(f"{name} has shape {tuple(found)}, not {expected}")


@contextlib.contextmanager
def explain_misfit(path: Path, what: str, *more: type[Exception]) -> Iterator[None]:
    """Turn what goes wrong while weights are taken from a file into an error naming the file.

    Args:
        path: of the weight file.
        what: whose weights it should hold.
        more: errors that the file's reader raises besides `MISFITS`.

    Raises:
        StudyError: the block has raised one of them.
    """
    try:
        yield
    except MISFITS + more as error:
        raise StudyError(
            f"{path} does not hold the weights of {what} ({str(error)[:300]}); fetch it again"
        ) from error


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with constants.pkl, unlike a state dict's."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def secure_file(path: Path, trusted: Set[str]) -> Path | None:
    """Make sure that a weight file can be read without unpickling, converting it where it must be.

    A TorchScript archive that nothing vouches for stays as it is: it holds no Python objects.

    Args:
        path: a file of any kind; only `.pt` and `.pth` are looked into.
        trusted: sums of files that may be unpickled once.

    Returns:
        The safetensors file made beside it; none where the file is fine as it is.

    Raises:
        StudyError: the file is damaged, or needs unpickling and nothing vouches for it.
    """
    if path.suffix not in (".pt", ".pth"):
        return None
    if is_torchscript(path):
        if compute_sha256(path) not in trusted:
            return None
    elif not _needs_unpickling(path):
        return None
    target = path.with_suffix(".safetensors")
    convert_file(path, target, trusted)
    return target


def convert_file(path: Path, target: Path, trusted: Set[str]) -> None:
    """Write the tensors of a trusted file as safetensors, whole or not at all.

    Args:
        path: a TorchScript archive, or a torch file that needs unpickling.
        target: of the safetensors file; nested keys are joined by a slash.
        trusted: sums of files that may be unpickled.

    Raises:
        StudyError: the file's sum is none of them, so nothing vouches for it.
    """
    if compute_sha256(path) not in trusted:
        raise refuse_pickle(path)
    if is_torchscript(path):
        content: Any = torch.jit.load(path, map_location="cpu").state_dict()
    else:
        content = torch.load(path, map_location="cpu", weights_only=False)  # vouched for
    # Copies, since safetensors takes no tensors that share memory.
    tensors = {key: tensor.contiguous().clone() for key, tensor in _flatten(content).items()}
    descriptor, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(descriptor)
    try:
        save_file(tensors, partial)
        Path(partial).chmod(0o644)
        Path(partial).replace(target)
    finally:
        Path(partial).unlink(missing_ok=True)


def _needs_unpickling(path: Path) -> bool:
    try:
        # What torch can map into memory need not be read.
        torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        return True
    except (RuntimeError, EOFError) as error:
        raise StudyError(f"{path} cannot be read ({error}); fetch it again") from error
    return False


def _flatten(content: object, prefix: str = "") -> dict[str, torch.Tensor]:
    """Tensors of nested mappings and sequences by their joined keys; other values are dropped."""
    if isinstance(content, torch.Tensor):
        return {prefix: content.detach()}
    if isinstance(content, np.ndarray):
        return {prefix: torch.from_numpy(content)}
    if isinstance(content, list | tuple):
        content = {str(index): value for index, value in enumerate(content)}
    if not isinstance(content, Mapping):
        return {}
    flat: dict[str, torch.Tensor] = {}
    for key, value in content.items():
        flat.update(_flatten(value, f"{prefix}{_NESTING}{key}" if prefix else str(key)))
    return flat


def _nest(tensors: Mapping[str, torch.Tensor]) -> Any:
    """Reverse of `_flatten`; keys 0, 1, ... at the top make a tuple."""
    nested: dict[str, Any] = {}
    for key, tensor in tensors.items():
        *parents, last = key.split(_NESTING)
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = tensor
    if nested and set(nested) == {str(index) for index in range(len(nested))}:
        return tuple(nested[str(index)] for index in range(len(nested)))
    return nested
