"""All six metrics from encoded files to rows: iqray's worker beside pyiqa's loop over files.

The worker is the one that pools hold, with as many calls in flight as in a pool with a GPU; only
Ray is left out. It writes a Parquet file per shard and metric, as always.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from iqray.benchmarks.pyiqa_device import MetricPeer, Settings, score_one_by_one
from iqray.dataset import Dataset
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.inspection import ImageInspector
from iqray.inputs.listing import list_images
from iqray.inputs.manifest import (
    get_manifest_path,
    plan_manifest,
    read_manifest,
    select_train,
)
from iqray.inputs.sources import ImageSource
from iqray.metrics.weights import MetricWeights
from iqray.scoring.jobs import ScoreJob
from iqray.scoring.worker import ScoreWorker
from iqray.shards import Shard, split_into_shards
from iqray.storage import Storage

# Scores in the order of the images, by metric.
Scores = dict[str, list[float]]

_DATASET = "photos"
_NUM_CALLS = 2  # in flight, as in a pool with a GPU: one decodes while the other scores
_NUM_SHARDS = 8  # so that there is something left to decode while the first are scored
_MAX_IMAGE_S = 600.0


def write_images(folder: Path, images: Sequence[bytes]) -> list[Path]:
    """Write image files, sorted as they come, below `<folder>/train/all`."""
    target = folder / "train" / "all"
    target.mkdir(parents=True)
    paths = [target / f"{number:06d}.jpg" for number in range(len(images))]
    for path, data in zip(paths, images, strict=True):
        path.write_bytes(data)
    return paths


class ScoringPipeline:
    """The way of iqray: a worker, its shards, and threads that call it.

    Args:
        images: folder from `write_images`.
        weights: by metric.
        root: output root, empty.
        device: torch's name of it.
        precision: one of `iqray.metrics.precision.PRECISIONS`.
        num_threads: that decode, and of torch on the CPU.
    """

    def __init__(
        self,
        images: Path,
        weights: Mapping[str, MetricWeights],
        root: Path,
        device: str,
        precision: str,
        num_threads: int,
    ) -> None:
        self._storage = Storage(str(root))
        source = ImageSource(ImageRoot(str(images)))
        self._shards = _make_shards(self._storage, images, source)
        self._jobs = {
            job.name: job
            for job in (
                ScoreJob(_DATASET, source, metric, own, "reject", precision)
                for metric, own in weights.items()
            )
        }
        self._worker = ScoreWorker(
            self._storage, self._jobs, device, num_threads, "attempts", _MAX_IMAGE_S
        )

    def score(self) -> Scores:
        """Score all images; NaN where an image has no score."""
        with ThreadPoolExecutor(_NUM_CALLS) as calls:
            list(calls.map(self._score_shard, self._shards))
        return {job.metric: self._read_scores(job) for job in self._jobs.values()}

    def _score_shard(self, shard: Shard) -> None:
        rows = self._storage.read_rows(shard.table, shard.start, shard.num_rows)
        files = {job.name: _name_file(job, shard) for job in self._jobs.values()}
        self._worker.work(rows, files)

    def _read_scores(self, job: ScoreJob) -> list[float]:
        rows = self._storage.read_tables([_name_file(job, shard) for shard in self._shards])
        return [math.nan if score is None else score for score in rows["score"].to_pylist()]


def score_files(
    peers: Sequence[MetricPeer], paths: Sequence[Path], device: torch.device, settings: Settings
) -> Scores:
    """The way of pyiqa: metric by metric, file by file, each decoded anew."""
    return {
        peer.metric: [
            score
            for path in paths
            for score in score_one_by_one(peer.network, [_decode(path)], device, settings)
        ]
        for peer in peers
    }


def _make_shards(storage: Storage, images: Path, source: ImageSource) -> list[Shard]:
    dataset = Dataset(name=_DATASET, root=str(images), test=None)
    plan = plan_manifest(_DATASET, source, list_images(dataset, source.root))
    path = get_manifest_path(_DATASET)
    ImageInspector(storage, {_DATASET: source}, "attempts").work(plan.listing, path, _DATASET)
    start, rows = select_train(read_manifest(storage, _DATASET))
    return split_into_shards(rows, math.ceil(rows.num_rows / _NUM_SHARDS), path, start)


def _name_file(job: ScoreJob, shard: Shard) -> str:
    return f"{job.directory}/{shard.name_file(job.key)}"


def _decode(path: Path) -> np.ndarray:
    """Decode as pyiqa does (utils/img_util.py)."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))
