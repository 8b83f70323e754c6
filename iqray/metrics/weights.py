"""The weights directory: which files a metric needs, and whether they are there and intact.

Reads a folder or a URI with pyiqa's files and, if there is one, its `weights.json` (see
`iqray.metrics.weights_manifest`); `jobs/prefetch_weights.py` fills it. A directory behind a URI is
copied once to every node that scores.
"""

from dataclasses import dataclass
from pathlib import Path

from iqray.errors import StudyError
from iqray.identity import compute_sha256
from iqray.metrics.published import list_published_files
from iqray.metrics.registry import METRICS_WITH_FILES, METRICS_WITHOUT_WEIGHTS, find_metric
from iqray.metrics.weights_manifest import (
    MANIFEST_NAME,
    ListedFile,
    WeightsManifest,
    check_listed_sum,
    find_listed_file,
    open_directory,
    read_weights_manifest,
    save_weights_manifest,
)
from iqray.node_cache import copy_to_node
from iqray.storage import Storage

# Provenance of weights that no manifest describes, and of metrics that are a formula only.
USER_WEIGHTS = "user weights"
NO_WEIGHTS = "no weights needed"


@dataclass(frozen=True)
class MetricWeights:
    """The weight files of one metric, known by their sums. Cheap to send to another node.

    Attributes:
        metric: pyiqa's name of the metric.
        directory: the weights directory, an absolute path or a URI.
        names: of the files, relative to the directory; of one of the paper's six, the file that
            iqray loads; else the files that pyiqa finds below `pyiqa/`.
        sha256s: hexadecimal sums of their bytes, in the same order.
        provenance: where they come from, in words for tables and reports.
    """

    metric: str
    directory: str
    names: tuple[str, ...]
    sha256s: tuple[str, ...]
    provenance: str

    def locate(self) -> Path:
        """Folder on this node that holds the files, their sums verified.

        It is the weights directory itself where that is a folder, which every node must then see;
        else this node's copy, which the first process to ask makes.

        Raises:
            StudyError: a file is missing here, or has another sum.
        """
        sha256s = dict(zip(self.names, self.sha256s, strict=True))
        if "://" in self.directory:
            return copy_to_node(Storage(self.directory), sha256s, self.metric)
        folder = Path(self.directory)
        for name, expected in sha256s.items():
            _check_here(folder / name, expected)
        return folder


def find_weights(directory: Path | str, metric: str) -> MetricWeights:
    """Find a metric's weight files and verify their sums against the manifest, if there is one.

    Behind a URI, sums are taken from the manifest and the files are verified where they are
    loaded.

    Args:
        directory: folder or URI of weight files.
        metric: pyiqa's name.

    Raises:
        StudyError: unknown metric, missing file, wrong sum, a manifest that is unreadable or does
            not list the file, a URI without a manifest, or a metric that pyiqa loads for itself
            and whose files were not prefetched.
    """
    place = resolve_directory(directory)
    info = find_metric(metric)
    if metric in METRICS_WITHOUT_WEIGHTS:
        return MetricWeights(metric, place, (), (), NO_WEIGHTS)
    storage = open_directory(place)
    manifest = read_weights_manifest(storage)
    if "://" in place and manifest is None:
        raise StudyError(
            f"there is no {MANIFEST_NAME} in {storage.describe('')}, and files behind a URI are "
            "known by their sums; fill it with jobs/prefetch_weights.py"
        )
    if info.weight_files:
        names = [_choose_file(storage, manifest, metric, name) for name in info.weight_files]
    else:
        names = _list_pyiqa_files(storage, manifest, metric)
    sums = tuple(_verify_file(storage, manifest, metric, name) for name in names)
    provenance = manifest.provenance if manifest else USER_WEIGHTS
    return MetricWeights(metric, place, tuple(names), sums, provenance)


def resolve_directory(directory: Path | str) -> str:
    """Absolute path of a folder; a URI as it is."""
    if "://" in str(directory):
        return str(directory).rstrip("/")
    return str(Path(directory).expanduser().absolute())


def get_converted_name(name: str) -> str:
    """Name of the safetensors file that holds the tensors of a weight file."""
    return str(Path(name).with_suffix(".safetensors"))


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
        name: ListedFile(sha256=compute_sha256(directory / name), metric=metric)
        for metric in METRICS_WITH_FILES
        for original in find_metric(metric).weight_files
        for name in (get_converted_name(original), original)
        if (directory / name).is_file()
    }
    if not files:
        raise StudyError(f"no weight files in {directory}; put files under pyiqa's names there")
    manifest = WeightsManifest(provenance=provenance, files=files)
    save_weights_manifest(Storage(str(directory)), manifest)


def _choose_file(storage: Storage, manifest: WeightsManifest | None, metric: str, name: str) -> str:
    """The file to load: the converted one where it is there, else the published one."""
    there = [each for each in (get_converted_name(name), name) if storage.exists(each)]
    if not there:
        [url] = [file.url for file in list_published_files(metric) if file.name == name]
        raise StudyError(
            f"metric '{metric}' needs {name}, which is not in {storage.describe('')}; "
            "fetch it with jobs/prefetch_weights.py, or download "
            f"{url} on a machine with internet and put it there"
        )
    listed = [each for each in there if manifest is None or each in manifest.files]
    return (listed or there)[0]


def _list_pyiqa_files(storage: Storage, manifest: WeightsManifest | None, metric: str) -> list[str]:
    if manifest is None or metric not in manifest.pyiqa_metrics:
        raise StudyError(
            f"metric '{metric}' needs files that pyiqa finds for itself, and "
            f"{storage.describe(MANIFEST_NAME)} lists none for it; nothing is downloaded during a "
            "run, so fetch them first, on a machine with internet: jobs/prefetch_weights.py "
            f"--metrics {metric} --directory {storage.describe('')}"
        )
    return manifest.pyiqa_metrics[metric]


def _verify_file(storage: Storage, manifest: WeightsManifest | None, metric: str, name: str) -> str:
    """Sum of a file that is there; behind a URI the listed one."""
    if not storage.exists(name):
        raise StudyError(
            f"metric '{metric}' needs {name}, which {MANIFEST_NAME} lists and which is not in "
            f"{storage.describe('')}; fetch it again with jobs/prefetch_weights.py"
        )
    if manifest is None:
        return compute_sha256(storage.get_local_path(name))
    listed = find_listed_file(storage, manifest, name)
    if "://" in storage.root:
        return listed.sha256.lower()
    found = compute_sha256(storage.get_local_path(name))
    check_listed_sum(storage, name, listed, found)
    return found


def _check_here(path: Path, expected: str) -> None:
    if not path.is_file():
        raise StudyError(
            f"{path} is not there, though the machine that started the work has it; the weights "
            "directory must be a folder that all nodes see, or a URI"
        )
    found = compute_sha256(path)
    if found != expected:
        raise StudyError(
            f"{path} has a wrong sha256 here: expected {expected}, found {found}; it has changed "
            "since the work started, or differs between nodes"
        )
