"""A run: a study, where its artifacts lie, and the cluster that makes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version

import pyarrow as pa

from iqray.cluster import Cluster
from iqray.dataset import Dataset
from iqray.embeddings.network_kinds import Network
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.known_listings import list_or_restore
from iqray.inputs.manifest import (
    get_manifest_path,
    is_manifest_current,
    make_manifest_key,
    read_manifest,
    select_train,
)
from iqray.inputs.sources import ImageSource
from iqray.metrics.weights import MetricWeights, find_weights, resolve_directory
from iqray.pools import PoolSize
from iqray.progress import StageLine
from iqray.resources import WorkerRequest, fit_pools
from iqray.shards import Shard, split_into_shards
from iqray.storage import Storage
from iqray.study import Study
from iqray.trials import TRAINING_VERSION

_SECONDS_PATH = "stage_seconds.json"


@dataclass(frozen=True)
class Run:
    """What every stage gets. Listings, manifests, weights and networks are read once, when needed.

    Attributes:
        listed: listings that were made before the run, by dataset.
    """

    study: Study
    storage: Storage
    cluster: Cluster
    listed: Mapping[str, pa.Table] = field(default_factory=dict)

    def open_images(self, dataset: Dataset) -> ImageSource:
        """A dataset's images, to be listed or read."""
        if dataset.root is not None:
            return ImageSource.of(dataset, ImageRoot.parse(dataset.root))
        folder = self.storage.get_local_path(f"data/{dataset.name}")
        return ImageSource.of(dataset, ImageRoot(str(folder)))

    def locate_weights(self) -> str:
        """Folder or URI of the metrics' weights; of demo weights always a folder."""
        if self.study.weights.directory is not None:
            return resolve_directory(self.study.weights.directory)
        return str(self.storage.get_local_path("weights"))

    @cached_property
    def weights(self) -> dict[str, MetricWeights]:
        """Verified weights by metric."""
        return {
            metric: find_weights(self.locate_weights(), metric) for metric in self.study.metrics
        }

    @cached_property
    def listings(self) -> dict[str, pa.Table]:
        """Tables of `listing.LISTING` by dataset."""
        missing = [
            dataset for dataset in self.study.all_datasets if dataset.name not in self.listed
        ]
        made = {
            dataset.name: list_or_restore(dataset, self.open_images(dataset), self.storage)
            for dataset in missing
        }
        return {**self.listed, **made}

    @cached_property
    def manifest_keys(self) -> dict[str, str]:
        """Keys of the manifests by dataset: hashes of all that the listings say."""
        return {
            dataset.name: make_manifest_key(self.open_images(dataset), self.listings[dataset.name])
            for dataset in self.study.all_datasets
        }

    def is_inspected(self, dataset: str) -> bool:
        """Whether a dataset's manifest is there and of the images that are listed now."""
        return is_manifest_current(self.storage, dataset, self.manifest_keys[dataset])

    @cached_property
    def manifests(self) -> dict[str, pa.Table]:
        """Finished manifests by dataset, those of extra images included."""
        for dataset in self.study.all_datasets:
            self.require(get_manifest_path(dataset.name), "manifest")
            if not self.is_inspected(dataset.name):
                raise StudyError(
                    f"images of '{dataset.name}' have changed since its manifest was made; run "
                    "--only manifest first, or all stages without --only"
                )
        return {
            dataset.name: read_manifest(self.storage, dataset.name)
            for dataset in self.study.all_datasets
        }

    @cached_property
    def shards(self) -> dict[str, tuple[Shard, ...]]:
        """Training images by dataset, cut as they are scored."""
        size = self.study.scoring.shard_size
        shards = {}
        for name in (dataset.name for dataset in self.study.datasets):
            start, rows = select_train(self.manifests[name])
            shards[name] = tuple(split_into_shards(rows, size, get_manifest_path(name), start))
        return shards

    @cached_property
    def other_networks(self) -> list[Network]:
        """The study's networks that no trial trains, below the output root."""
        # Imported here, as the module needs this one for its keys.
        from iqray.embeddings.network_files import provide_networks

        return provide_networks(self.study, self.storage)

    def fit_pool(self, request: WorkerRequest) -> PoolSize:
        """Size of a pool that has the cluster for itself, which is joined or started.

        Raises:
            StudyError: its smallest number of workers does not fit.
        """
        [count] = fit_pools([request], self.cluster.connect())
        return PoolSize.of(request, count)

    def require(self, path: str, stage: str) -> None:
        """Check that an earlier stage's artifact exists.

        Raises:
            StudyError: it does not.
        """
        if not self.storage.exists(path):
            raise StudyError(
                f"'{self.storage.describe(path)}' is missing; run the stage that makes it first: "
                f"--only {stage}, or all stages without --only"
            )

    def record_seconds(self, line: StageLine) -> None:
        """Add a stage's seconds to what earlier runs have spent on it."""
        if line.num_done == line.num_found:
            return
        seconds = read_stage_seconds(self.storage)
        seconds[line.name] = seconds.get(line.name, 0.0) + line.elapsed_s
        self.storage.write_json(_SECONDS_PATH, seconds)


def read_stage_seconds(storage: Storage) -> dict[str, float]:
    """Seconds that a root's study has spent, by stage."""
    if not storage.exists(_SECONDS_PATH):
        return {}
    return dict(storage.read_json(_SECONDS_PATH))


def get_versions() -> dict[str, str]:
    """Versions that change what a training ends with."""
    packages = ("torch", "torchvision", "pillow", "numpy")
    return {**{name: version(name) for name in packages}, "training": str(TRAINING_VERSION)}
