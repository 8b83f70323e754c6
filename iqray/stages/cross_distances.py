"""Stage `cross`: what each network makes of the test images of all four subsets.

Reads the embeddings that a study asks for with `embeddings.images: [all_subsets]`, of its trials'
networks and of others; writes `cross_distances/<dataset>/<layer>/<network>.parquet` for each and,
last, the 4 x 4 matrices of all cells, `results/cross_distances.parquet`
(`iqray.results.cross_distances`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from iqray import schemas
from iqray.embeddings.cross_worker import CrossWorker
from iqray.embeddings.network_kinds import Network
from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.pools import Pool, run_pools
from iqray.progress import show_stage
from iqray.resources import WorkerRequest
from iqray.run import Run
from iqray.settings.embedding import ALL_SUBSETS, CHECKPOINT, TRIALS
from iqray.shards import Shard
from iqray.stages.embeddings import EmbeddingTask, plan_embeddings
from iqray.stages.results import CROSS_DISTANCES_PATH, read_frame
from iqray.stages.subsets import SUBSETS_PATH
from iqray.stages.trials import plan_grid
from iqray.storage import Storage
from iqray.tables import write_with_csv
from iqray.trials import Cell, Trial

# Raise when the same embeddings would give other numbers.
CROSS_VERSION = 1

# A table takes its embeddings twice while it is read, so a process works on one.
_REQUEST = WorkerRequest("cross", num_cpus=1)


@dataclass(frozen=True)
class CrossTask:
    """An embedding table of one network, and what is measured there.

    Attributes:
        network: that has embedded.
        dataset: of the images.
        layer: of the embeddings.
        shard: the whole embedding table.
        subsets: categories by metric and subset.
        seed: that picks the images: the network's, or one of the study's if it has none.
        num_matched: images of a category.
    """

    network: Network
    dataset: str
    layer: str
    shard: Shard
    subsets: dict[str, dict[str, list[str]]]
    seed: int
    num_matched: int

    @property
    def path(self) -> str:
        """Of what comes out."""
        name = self.network.name
        if self.network.seed is None:
            name = f"{name}-s{self.seed}"
        return f"cross_distances/{self.dataset}/{self.layer}/{name}.parquet"

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the worker."""
        measured = {
            "subsets": self.subsets,
            "seed": self.seed,
            "num_matched": self.num_matched,
        }
        key = hash_content([CROSS_VERSION, self.shard.content, measured])
        return {**measured, "path": self.path, "key": key}

    def describe(self) -> dict[str, Any]:
        """What is measured of which network, as `join_cells` reads it."""
        name, kind = self.network.name, self.network.kind
        if kind == TRIALS:
            return {"layer": self.layer, "trial_id": name}
        return {
            "layer": self.layer,
            "dataset": self.dataset,
            "architecture": self.network.architecture,
            "trained_on": f"{kind}:{name}" if kind == CHECKPOINT else kind,
            "seed": self.seed,
        }


def make_cross_distances(run: Run) -> None:
    """Measure every subset's images in every network's embeddings, where a study has them."""
    if ALL_SUBSETS not in run.study.embeddings.images:
        return
    cells, trials = plan_grid(run)
    tasks = list(_plan(run, cells, trials))
    with show_stage("cross", len(tasks), "distance tables") as line:
        todo = [task for task in tasks if run.storage.read_key(task.path) != task.arguments["key"]]
        line.skip(len(tasks) - len(todo))
        if todo:
            run_pools([_build_pool(run, todo)], lambda written: line(written.num_rows))
            run.record_seconds(line)
        if tasks:
            _write_matrices(run, cells, tasks)


def _plan(run: Run, cells: Sequence[Cell], trials: Mapping[str, Trial]) -> Iterator[CrossTask]:
    study = run.study
    groups = read_frame(run, SUBSETS_PATH).groupby(["dataset", "metric", "subset"], sort=False)
    categories = {names: sorted(own) for names, own in groups["category"]}
    metrics: dict[str, list[str]] = {}
    for cell in cells:
        own = metrics.setdefault(cell.trial_id, [])
        if cell.metric not in own:
            own.append(cell.metric)
    num_matched = {trial.dataset: trial.num_matched for trial in trials.values()}
    for task in plan_embeddings(run, cells, trials):
        if task.images.name != ALL_SUBSETS:
            continue
        _check_embedded(run.storage, task)
        network, dataset = task.network, task.images.dataset
        subsets = {
            metric: {name: categories[dataset, metric, name] for name in study.subsets.names}
            for metric in metrics.get(network.name, study.metrics)
        }
        for layer, path in task.files.items():
            shard = Shard(path, 0, 0, task.num_images, task.key)
            for seed in study.seeds if network.seed is None else (network.seed,):
                yield CrossTask(network, dataset, layer, shard, subsets, seed, num_matched[dataset])


def _check_embedded(storage: Storage, task: EmbeddingTask) -> None:
    """Check that embeddings are of the study's subsets and networks as they are now.

    Raises:
        StudyError: they are not.
    """
    missing = list(task.find_missing(storage).values())
    if missing:
        raise StudyError(
            f"'{storage.describe(missing[0])}' is missing, or is of other subsets, images or "
            "weights than the study's; run --only embeddings first, or all stages without --only"
        )


def _build_pool(run: Run, todo: Sequence[CrossTask]) -> Pool:
    return Pool(
        name="CrossDistances",
        size=run.fit_pool(_REQUEST),
        storage=run.storage,
        worker=CrossWorker,
        worker_arguments={"storage": run.storage},
        tasks=[(task.shard, task.arguments) for task in todo],
    )


def _write_matrices(run: Run, cells: Sequence[Cell], tasks: Sequence[CrossTask]) -> None:
    weights = {metric: found.provenance for metric, found in run.weights.items()}
    made_from = [[task.path, task.arguments["key"]] for task in tasks]
    key = hash_content([[asdict(cell) for cell in cells], made_from, weights])
    if run.storage.read_key(CROSS_DISTANCES_PATH) == key:
        return
    from iqray.results.cross_distances import join_cells  # needs scipy

    trained: list[pd.DataFrame] = []
    others: list[pd.DataFrame] = []
    for task in tasks:
        measured = run.storage.read_table(task.path).to_pandas().assign(**task.describe())
        (trained if task.network.kind == TRIALS else others).append(measured)
    frame = join_cells(pd.DataFrame(map(asdict, cells)), trained, others)
    frame["weights"] = frame["metric"].map(weights)
    frame = frame[schemas.CROSS_DISTANCES.names]
    write_with_csv(run.storage, CROSS_DISTANCES_PATH, frame, schemas.CROSS_DISTANCES, key)
