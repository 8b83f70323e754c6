"""The weights directory: which files a metric needs, where they come from, and their sha256 sums.

Reads a local folder with pyiqa's file names and, if there is one, its `weights.json`:
`{"provenance": "demo weights", "files": {"RN50.pt": {"sha256": "...", "metric": "clipiqa"}}}`.
Writes that manifest.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from iqray.errors import StudyError
from iqray.metrics.registry import METRICS_WITH_FILES, find_metric

MANIFEST_NAME = "weights.json"

# Provenance of weights that no manifest describes, and of metrics whose weights pyiqa itself finds.
USER_WEIGHTS = "user weights"
PYIQA_WEIGHTS = "pyiqa's download"

# Where pyiqa 0.1.16 fetches its files from (archs/arch_util.py, archs/clip_model.py).
_PYIQA_HUB = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main"
_CLIP_RN50_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt"
)


@dataclass(frozen=True)
class MetricWeights:
    """The weight files of one metric, present and verified.

    Attributes:
        metric: pyiqa's name of the metric.
        paths: the files, in the order of `MetricInfo.weight_files`.
        sha256s: hexadecimal sums of their bytes, in the same order.
        provenance: where they come from, in words for tables and reports.
    """

    metric: str
    paths: tuple[Path, ...]
    sha256s: tuple[str, ...]
    provenance: str


class _ListedFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sha256: str
    metric: str


class _WeightsManifest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    provenance: str
    files: dict[str, _ListedFile]


def find_weights(directory: Path | str, metric: str) -> MetricWeights:
    """Find a metric's weight files and verify their sums against the manifest, if there is one.

    Args:
        directory: local folder of weight files. A metric without files of its own (any but the
            paper's six) is left to pyiqa, and nothing is read.
        metric: pyiqa's name.

    Raises:
        StudyError: unknown metric, missing file, wrong sum, or a manifest that is unreadable or
            does not list the file.
    """
    directory = Path(directory)
    names = find_metric(metric).weight_files
    if not names:
        return MetricWeights(metric, (), (), PYIQA_WEIGHTS)
    paths = tuple(_find_file(directory, name, metric) for name in names)
    sums = tuple(compute_sha256(path) for path in paths)
    manifest = _read_manifest(directory)
    if manifest is None:
        return MetricWeights(metric, paths, sums, USER_WEIGHTS)
    for path, found in zip(paths, sums, strict=True):
        _check_sum(manifest, path, found)
    return MetricWeights(metric, paths, sums, manifest.provenance)


def write_weights_manifest(directory: Path | str, provenance: str) -> None:
    """Write `weights.json` for the weight files that are in a folder, whole or not at all.

    Args:
        directory: folder that holds weight files under pyiqa's names; other files are left out.
        provenance: where they come from, such as `demo weights`; shown in every table.

    Raises:
        StudyError: the folder holds none of the files that iqray knows.
    """
    directory = Path(directory)
    files = {
        name: _ListedFile(sha256=compute_sha256(directory / name), metric=metric)
        for metric in METRICS_WITH_FILES
        for name in find_metric(metric).weight_files
        if (directory / name).is_file()
    }
    if not files:
        raise StudyError(f"no weight files in {directory}; put files under pyiqa's names there")
    manifest = _WeightsManifest(provenance=provenance, files=files)
    partial = directory / f".{MANIFEST_NAME}.{os.getpid()}"
    partial.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(directory / MANIFEST_NAME)


def compute_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_file(directory: Path, name: str, metric: str) -> Path:
    path = directory / name
    if path.is_file():
        return path
    url = _CLIP_RN50_URL if name == "RN50.pt" else f"{_PYIQA_HUB}/{name}"
    raise StudyError(
        f"metric '{metric}' needs {name}, which is not in {directory}; download {url} on a "
        "machine with internet and put it there"
    )


def _read_manifest(directory: Path) -> _WeightsManifest | None:
    path = directory / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        return _WeightsManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise StudyError(
            f"{path} must hold provenance and files with sha256 and metric ({error}); "
            "write it anew or delete it"
        ) from error


def _check_sum(manifest: _WeightsManifest, path: Path, found: str) -> None:
    listed = manifest.files.get(path.name)
    if listed is None:
        raise StudyError(
            f"{path.parent / MANIFEST_NAME} does not list {path.name}; list it with its sha256 "
            f"{found}, or delete {MANIFEST_NAME}"
        )
    if listed.sha256.lower() != found:
        raise StudyError(
            f"{path} has a wrong sha256: expected {listed.sha256}, found {found}; fetch the file "
            f"again, or write {MANIFEST_NAME} anew if it was replaced on purpose"
        )
