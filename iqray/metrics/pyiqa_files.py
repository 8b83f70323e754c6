"""Lets pyiqa fetch the files of one metric into a folder: a process of its own, for prefetching.

    python -m iqray.metrics.pyiqa_files METRIC [SOURCE]

The environment says where the files go (`iqray.metrics.guards.get_pyiqa_variables`). The last line
of its output is the reason when it fails. It must be a process of its own, since pyiqa and the
libraries below it read the environment when they are imported.
"""

import contextlib
import importlib
import os
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iqray.errors import StudyError
from iqray.metrics.fetching import fetch_file, is_folder

# Modules with OpenAI's loader of CLIP: its files are published under their sums.
_CLIP_MODULES = ("pyiqa.archs.clip_model", "pyiqa.archs.afineclip_model", "clip.clip")

# Where files of a metric may end up, below the folder that the environment names.
_KEPT_FOLDERS = ("torch/hub", "huggingface/hub", "home/.cache/clip")

_UNFINISHED = (".incomplete", ".lock", ".partial")


def fetch_pyiqa_files(metric: str, folder: Path, source: str | None) -> list[Path]:
    """Let pyiqa fetch a metric's files below a folder, from where it left off.

    Args:
        metric: pyiqa's name.
        folder: takes the place of the weights directory.
        source: as in `iqray.metrics.fetching.fetch_file`; files of the Hugging Face hub are taken
            from a folder's `models--*` folders, and else from the hub (or `HF_ENDPOINT`).

    Returns:
        The files, as paths relative to `folder`.

    Raises:
        StudyError: a file cannot be fetched, has a wrong sum, or needs unpickling.
    """
    from iqray.metrics.guards import get_pyiqa_variables

    variables = get_pyiqa_variables(folder)
    if is_folder(source):
        _copy_hub_folders(Path(str(source)).expanduser(), Path(variables["HF_HUB_CACHE"]))
    offline = "1" if is_folder(source) else "0"
    environment = {
        **os.environ,
        **variables,
        "HF_HUB_DISABLE_SYMLINKS": "1",  # object stores have none
        "HF_HUB_OFFLINE": offline,
        "TRANSFORMERS_OFFLINE": offline,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", __name__, metric, source or ""]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        reason = (done.stdout.strip() or done.stderr.strip() or "no message").splitlines()[-1]
        raise StudyError(f"files of metric '{metric}' cannot be fetched: {reason}")
    return list_kept_files(folder)


def list_kept_files(folder: Path) -> list[Path]:
    """Files below a folder that pyiqa may read later, relative to it, in order."""
    from iqray.metrics.guards import PYIQA_FOLDER

    kept = []
    for base in (folder / PYIQA_FOLDER / part for part in _KEPT_FOLDERS):
        for path in sorted(base.rglob("*")):
            parts = path.relative_to(base).parts
            # Hidden ones are locks, marks, and what a killed process left behind.
            left_out = any(part.startswith(".") for part in parts) or path.suffix in _UNFINISHED
            # Where the hub's cache has blobs, its snapshots are links to them.
            if path.is_file() and not left_out and "blobs" not in parts:
                kept.append(path.relative_to(folder))
    return kept


def main(metric: str, source: str) -> None:
    """Build the metric once, so that pyiqa fetches what it needs."""
    with contextlib.redirect_stdout(sys.stderr):
        reason = _build(metric, source or None)
    if reason:
        sys.stdout.write(" ".join(reason.split()) + "\n")
        sys.exit(1)


def _build(metric: str, source: str | None) -> str:
    """Why the metric cannot be built; empty when it can."""
    import pyiqa
    import torch

    from iqray.metrics.guards import forbid_unpickling

    try:
        with _fetch_through_iqray(source), forbid_unpickling():
            pyiqa.create_metric(metric, device=torch.device("cpu"))
    except StudyError as error:
        return str(error)
    except Exception as error:  # whatever pyiqa and the libraries below it raise
        return f"{type(error).__name__}: {error}"
    return ""


@contextlib.contextmanager
def _fetch_through_iqray(source: str | None) -> Iterator[None]:
    """Put iqray's fetching, which verifies sums, in the place of torch's and CLIP's."""
    import torch.hub

    from iqray.metrics.guards import replace_attribute
    from iqray.metrics.published import list_trusted_sums
    from iqray.metrics.tensor_files import secure_file

    clips = [importlib.import_module(name) for name in _CLIP_MODULES]
    urls = [url for module in clips for url in vars(module)["_MODELS"].values()]
    trusted = list_trusted_sums() | {url.split("/")[-2] for url in urls}

    def download(url: str, target: str, *_: object, **__: object) -> None:
        name = Path(urllib.parse.urlparse(url).path).name
        fetch_file(name, url, source, Path(target))
        secure_file(Path(target), trusted)

    def download_clip(url: str, folder: str) -> str:
        target = Path(folder) / Path(url).name
        fetch_file(target.name, url, source, target, url.split("/")[-2])
        secure_file(target, trusted)
        return str(target)

    original = torch.hub.download_url_to_file
    with contextlib.ExitStack() as stack:
        for module in _list_holders(original):
            stack.enter_context(replace_attribute(module, "download_url_to_file", download))
        for module in clips:
            stack.enter_context(replace_attribute(module, "_download", download_clip))
        yield


def _list_holders(function: Any) -> list[Any]:
    """Imported modules that know a function by its own name."""
    return [
        module
        for module in list(sys.modules.values())
        if vars(module).get(function.__name__) is function
    ]


def _copy_hub_folders(source: Path, cache: Path) -> None:
    """Copy models of the Hugging Face hub from another cache, links as files."""
    for folder in sorted(source.rglob("models--*")):
        if folder.is_dir() and not folder.is_relative_to(cache):
            shutil.copytree(folder, cache / folder.name, dirs_exist_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
