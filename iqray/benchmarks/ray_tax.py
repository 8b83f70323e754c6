"""Benchmark of Ray itself: scoring through a pool of actors beside a plain pool of processes.

Both run the same worker on the same shards, in as many processes with one thread each, and write
the same files. Both start their processes anew; Ray itself is there before.
"""

import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from iqray.benchmarks.harness import Benchmark, Fidelity
from iqray.benchmarks.inputs import provide_weights
from iqray.dataset import Dataset
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.listing import list_images
from iqray.inputs.manifest import build_manifests, plan_manifest, read_manifest, select_train
from iqray.inputs.sources import ImageSource
from iqray.pools import Pool, PoolSize, run_pools
from iqray.scoring.jobs import ScoreJob
from iqray.scoring.plans import ScorePlan, build_score_pool, plan_scores
from iqray.scoring.worker import ScoreWorker
from iqray.shards import Shard, split_into_shards
from iqray.storage import Storage

RAY_TAX = "ray_tax"

# At most 1.15 times slower than the plain pool.
RAY_TAX_TARGET = 1 / 1.15
NUM_IMAGES = 2000

_METRICS = ("brisque", "niqe")
_SHARD_SIZE = 100
_TABLE = "manifest/d.parquet"
_MAX_IMAGE_S = 600.0


@dataclass(frozen=True)
class TaxInputs:
    """What both pools work on.

    Attributes:
        manifest: one row per image.
        jobs: to be done on it.
        size: of both pools.
        folder: for the output roots.
    """

    manifest: pa.Table
    jobs: tuple[ScoreJob, ...]
    size: PoolSize
    folder: Path

    def plan(self, storage: Storage) -> list[ScorePlan]:
        """Shards of a new output root."""
        storage.write_table(_TABLE, self.manifest)
        start, rows = select_train(self.manifest)
        shards = tuple(split_into_shards(rows, _SHARD_SIZE, _TABLE, start))
        return plan_scores(storage, self.jobs, {"d": shards})


def build_ray_tax(
    images: Sequence[bytes],
    weights_folder: Path | None,
    folder: Path,
    num_actors: int,
    num_images: int = NUM_IMAGES,
) -> Benchmark[pa.Table]:
    """Write images, start Ray, and make the manifest that both pools read.

    Args:
        images: encoded; repeated until there are enough files.
        weights_folder: of the user's weight files.
        folder: empty, for everything that is written.
        num_actors: processes of each pool.
        num_images: files of a run.
    """
    for number in range(num_images):
        file = folder / "images" / "train" / "c" / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(images[number % len(images)])
    source = ImageSource(ImageRoot(str(folder / "images")))
    size = PoolSize(num_actors, num_actors)
    storage = Storage(str(folder / "manifest"))
    listing = list_images(Dataset(name="d", root=str(folder / "images"), test=None), source.root)
    build_manifests(storage, [plan_manifest("d", source, listing)], size, lambda _: None)
    jobs = tuple(
        ScoreJob("d", source, metric, provide_weights(metric, weights_folder, folder), "reject")
        for metric in _METRICS
    )
    inputs = TaxInputs(read_manifest(storage, "d"), jobs, size, folder)
    return Benchmark(
        name=RAY_TAX,
        peer=f"a pool of {num_actors} processes, {num_images} images, {' and '.join(_METRICS)}",
        target=RAY_TAX_TARGET,
        run_peer=partial(_run, inputs, _run_in_processes),
        run_ours=partial(_run, inputs, _run_in_actors),
        compare=_compare_rows,
    )


def _run(inputs: TaxInputs, run: Any) -> pa.Table:
    with tempfile.TemporaryDirectory(dir=inputs.folder) as root:
        storage = Storage(root)
        plans = inputs.plan(storage)
        run(build_score_pool(storage, plans, inputs.size, "attempts", _MAX_IMAGE_S))
        paths = [f"{plan.job.directory}/{name}" for plan in plans for name in plan.names]
        return storage.read_tables(paths)


def _run_in_actors(pool: Pool) -> None:
    run_pools([pool], lambda _: None)


def _run_in_processes(pool: Pool) -> None:
    with ProcessPoolExecutor(
        pool.size.max_actors,
        multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(pool.worker_arguments,),
    ) as processes:
        for _ in processes.map(partial(_work, pool.storage), pool.tasks):
            pass


_worker: ScoreWorker


def _start_worker(arguments: dict[str, Any]) -> None:
    global _worker
    _worker = ScoreWorker(**arguments)


def _work(storage: Storage, task: tuple[Shard, dict[str, Any]]) -> None:
    shard, instructions = task
    _worker.work(storage.read_rows(shard.table, shard.start, shard.num_rows), **instructions)


def _compare_rows(ours: pa.Table, theirs: pa.Table) -> Fidelity:
    is_equal = ours.equals(theirs)
    return Fidelity(is_equal, f"{ours.num_rows} rows {'equal' if is_equal else 'DIFFER'}")
