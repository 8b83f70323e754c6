"""Guards around pyiqa while it builds a network: no network work, no unpickling, iqray's folder.

pyiqa and the libraries below it take their settings from the environment when they are imported,
and call `torch.load` with `weights_only=False`. Each guard replaces what is needed for as long as a
network is built, in the whole process, and puts it back.
"""

import contextlib
import pickle
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.hub

from iqray.environment import set_variables
from iqray.errors import StudyError
from iqray.metrics.offline import OFFLINE_VARIABLES
from iqray.metrics.tensor_files import read_tensors, refuse_pickle

# Folder below the weights directory that holds what pyiqa and its libraries look for.
PYIQA_FOLDER = "pyiqa"


def get_pyiqa_variables(directory: Path) -> dict[str, str]:
    """Environment variables that make pyiqa and its libraries keep files in a weights directory."""
    folder = directory / PYIQA_FOLDER
    return {
        "TORCH_HOME": str(folder / "torch"),
        "HF_HOME": str(folder / "huggingface"),
        "HF_HUB_CACHE": str(folder / "huggingface" / "hub"),
        "HOME": str(folder / "home"),  # OpenAI's clip knows only ~/.cache/clip
    }


@contextlib.contextmanager
def use_pyiqa_files(directory: Path) -> Iterator[None]:
    """Make pyiqa find its files in a weights directory, whatever is imported already."""
    variables = get_pyiqa_variables(directory)
    pyiqa_folder = str(Path(variables["TORCH_HOME"]) / "hub" / "pyiqa")
    with contextlib.ExitStack() as stack:
        stack.enter_context(set_variables(variables))
        # Modules that have read the environment before.
        for module in _list_modules("pyiqa", "DEFAULT_CACHE_DIR"):
            stack.enter_context(replace_attribute(module, "DEFAULT_CACHE_DIR", pyiqa_folder))
        for module in _list_modules("huggingface_hub.constants", "HF_HUB_CACHE"):
            cache = variables["HF_HUB_CACHE"]
            stack.enter_context(replace_attribute(module, "HF_HUB_CACHE", cache))
        yield


@contextlib.contextmanager
def forbid_network(metric: str) -> Iterator[None]:
    """Make every way in which pyiqa fetches files fail at once, with an error that says why."""

    def refuse(request: Any, *_: object, **__: object) -> None:
        url = getattr(request, "full_url", request)
        raise StudyError(
            f"metric '{metric}' asks for {url}, which is not among its prefetched files; nothing "
            f"is downloaded during a run: fetch them with jobs/prefetch_weights.py --metrics "
            f"{metric}"
        )

    with contextlib.ExitStack() as stack:
        stack.enter_context(set_variables(dict.fromkeys(OFFLINE_VARIABLES, "1")))
        for module in _list_modules("huggingface_hub.constants", "HF_HUB_OFFLINE"):
            stack.enter_context(replace_attribute(module, "HF_HUB_OFFLINE", True))
        stack.enter_context(replace_attribute(torch.hub, "urlopen", refuse))
        stack.enter_context(replace_attribute(urllib.request, "urlopen", refuse))
        yield


@contextlib.contextmanager
def forbid_unpickling() -> Iterator[None]:
    """Make `torch.load` take tensors only, whatever its caller asks for.

    Where a safetensors file lies beside a torch file or TorchScript archive, it is read instead.
    """
    load, load_archive = torch.load, torch.jit.load

    def load_tensors(file: Any, *arguments: Any, **options: Any) -> Any:
        converted = _find_converted(file)
        if converted is not None:
            return read_tensors(converted)
        options.pop("pickle_module", None)
        options["weights_only"] = True
        try:
            return load(file, *arguments[:1], **options)
        except pickle.UnpicklingError as error:
            raise refuse_pickle(_get_path(file)) from error

    def load_archived_tensors(file: Any, *arguments: Any, **options: Any) -> Any:
        converted = _find_converted(file)
        if converted is not None:
            return _ArchivedTensors(read_tensors(converted))
        return load_archive(file, *arguments, **options)

    with (
        replace_attribute(torch, "load", load_tensors),
        replace_attribute(torch.jit, "load", load_archived_tensors),
    ):
        yield


@contextlib.contextmanager
def replace_attribute(owner: Any, name: str, value: object) -> Iterator[None]:
    """Replace an attribute for as long as the block runs."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class _ArchivedTensors:
    """Stands in for a loaded TorchScript archive of which only the tensors are asked for."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def eval(self) -> "_ArchivedTensors":
        return self

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self._tensors


def _list_modules(prefix: str, attribute: str) -> list[Any]:
    """Imported modules of a package that have an attribute."""
    return [
        module
        for name, module in list(sys.modules.items())
        if (name == prefix or name.startswith(f"{prefix}.")) and attribute in vars(module)
    ]


def _get_path(file: Any) -> object:
    """Path of a file given as such or opened; what it is, where it has none."""
    return getattr(file, "name", file)


def _find_converted(file: Any) -> Path | None:
    path = _get_path(file)
    if not isinstance(path, str | Path):
        return None
    converted = Path(path).with_suffix(".safetensors")
    return converted if converted.is_file() else None
