"""Fills a weights directory with everything that the metrics of a study need, `weights.json` last.

Reads the published files, or a mirror of them; writes a folder or a URI. A file is written whole or
not at all, and one that is there and intact is not fetched again.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from iqray.errors import StudyError
from iqray.identity import compute_sha256
from iqray.metrics.fetching import fetch_file
from iqray.metrics.published import (
    PublishedFile,
    check_published_sum,
    describe_check,
    find_published_sum,
    list_published_files,
    list_trusted_sums,
)
from iqray.metrics.registry import METRICS_WITHOUT_WEIGHTS, find_metric
from iqray.metrics.weights import MetricWeights, get_converted_name, resolve_directory
from iqray.metrics.weights_manifest import (
    MANIFEST_NAME,
    ListedFile,
    WeightsManifest,
    check_listed_sum,
    open_directory,
    read_weights_manifest,
    save_weights_manifest,
)
from iqray.node_cache import get_cache_folder
from iqray.storage import Storage

# Provenance of what this module fetches.
PREFETCHED_WEIGHTS = "pyiqa's weights"


@dataclass(frozen=True)
class PrefetchedFile:
    """One file of a metric in the weights directory.

    Attributes:
        metric: that needs it.
        name: relative to the directory; empty for a metric without weights.
        num_bytes: its size.
        check: what its sum was held against, in words.
        was_there: whether it was there before.
    """

    metric: str
    name: str
    num_bytes: int
    check: str
    was_there: bool


Report = Callable[[PrefetchedFile], object]


def prefetch_weights(
    directory: str, metrics: Sequence[str], source: str | None, report: Report
) -> None:
    """Fill a weights directory.

    Args:
        directory: folder or URI; made when missing.
        metrics: pyiqa's names.
        source: base URL of a mirror or a folder of files; none for where they are published.
        report: called for every file.

    Raises:
        StudyError: an unknown metric, a directory of other weights, a file that cannot be fetched
            or written, has a wrong sum, or would need unpickling.
    """
    for metric in metrics:
        find_metric(metric)
    storage = open_directory(resolve_directory(directory))
    manifest = _open_manifest(storage)
    with tempfile.TemporaryDirectory(prefix="iqray-weights-") as folder:
        prefetcher = _Prefetcher(storage, manifest, source, report, Path(folder))
        for metric in metrics:
            prefetcher.prefetch(metric)
    save_weights_manifest(storage, manifest)
    for metric in metrics:
        # Kept until now, so that an interrupted run goes on from there.
        shutil.rmtree(_locate_stage(metric), ignore_errors=True)


@dataclass(frozen=True)
class _Prefetcher:
    """Fetches the files of metrics and enters them in the manifest."""

    storage: Storage
    manifest: WeightsManifest
    source: str | None
    report: Report
    folder: Path  # for files on their way

    def prefetch(self, metric: str) -> None:
        if metric in METRICS_WITHOUT_WEIGHTS:
            self.report(PrefetchedFile(metric, "", 0, "no weights needed", was_there=True))
            return
        files = list_published_files(metric)
        for file in files:
            listed = {file.name, get_converted_name(file.name)} & set(self.manifest.files)
            if not self._confirm(metric, sorted(listed)):
                self._fetch_published(file)
        if not files and not self._confirm(metric, self.manifest.pyiqa_metrics.get(metric, [])):
            self._fetch_pyiqa(metric)

    def _confirm(self, metric: str, names: Sequence[str]) -> bool:
        """Whether files are listed and there; one with another sum is an error."""
        if not names or not all(self.storage.exists(name) for name in names):
            return False
        for name in names:
            path = self._recall(name)
            check_listed_sum(self.storage, name, self.manifest.files[name], compute_sha256(path))
            self._list(metric, name, path, "sum checked", was_there=True)
            path.unlink()
        return True

    def _fetch_published(self, file: PublishedFile) -> None:
        """Fetch a file that iqray loads, unless an interrupted run has, and secure it."""
        # Imported here, as torch and pyiqa take seconds.
        from iqray.metrics.networks import load_network
        from iqray.metrics.tensor_files import secure_file

        was_there = self.storage.exists(file.name)
        if was_there:
            path = self._recall(file.name)
            where = self.storage.describe(file.name)
            check_published_sum(find_published_sum(file.name), compute_sha256(path), where)
        else:
            path = self.folder / file.name
            fetch_file(file.name, file.url, self.source, path)
        converted = secure_file(path, list_trusted_sums())
        final = converted or path
        sums = (compute_sha256(final),)
        # A file without a published sum could be anything, such as a page that says "not found".
        load_network(MetricWeights(file.metric, str(self.folder), (final.name,), sums, ""))
        if not was_there:
            self._store(path, file.name)
        self._list(file.metric, file.name, path, describe_check(file.name), was_there)
        if converted is not None:
            self._store(converted, converted.name)
            self._list(file.metric, converted.name, converted, f"made from {file.name}", False)

    def _fetch_pyiqa(self, metric: str) -> None:
        """Let pyiqa fetch what it needs for a metric."""
        from iqray.metrics.pyiqa_files import fetch_pyiqa_files

        stage = _locate_stage(metric)
        stage.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{stage}.lock"):
            names = [path.as_posix() for path in fetch_pyiqa_files(metric, stage, self.source)]
            for name in names:
                self._store(stage / name, name)
                self._list(metric, name, stage / name, describe_check(name), was_there=False)
        self.manifest.pyiqa_metrics[metric] = names

    def _recall(self, name: str) -> Path:
        """Bring a file of the directory here."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.storage.copy_to_local(name, path)
        return path

    def _store(self, path: Path, name: str) -> None:
        self.storage.copy_from_local(path, name)

    def _list(self, metric: str, name: str, path: Path, check: str, was_there: bool) -> None:
        known = self.manifest.files.get(name)
        first = known.metric if known else metric
        self.manifest.files[name] = ListedFile(sha256=compute_sha256(path), metric=first)
        self.report(PrefetchedFile(metric, name, path.stat().st_size, check, was_there))


def _open_manifest(storage: Storage) -> WeightsManifest:
    manifest = read_weights_manifest(storage)
    if manifest is None:
        return WeightsManifest(provenance=PREFETCHED_WEIGHTS, files={})
    if manifest.provenance != PREFETCHED_WEIGHTS:
        raise StudyError(
            f"{storage.describe(MANIFEST_NAME)} says that the directory holds "
            f"'{manifest.provenance}'; weights of different origin must not mix: choose another "
            "directory"
        )
    return manifest


def _locate_stage(metric: str) -> Path:
    """Folder in which pyiqa fetches a metric's files."""
    return get_cache_folder() / "prefetch" / metric
