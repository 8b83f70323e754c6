"""Stage `cross`: what each network makes of the test images of all four subsets.

Reads the embeddings that a study asks for with `embeddings.images: [all_subsets]`, of its trials'
networks; writes `cross_distances/<dataset>/<layer>/<trial_id>.parquet` for each and, last, the
4 x 4 matrices of all cells, `results/cross_distances.parquet` (`iqray.results.cross_distances`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from iqray import schemas
from iqray.embeddings.cross_worker import CrossWorker
from iqray.identity import hash_content
from iqray.pools import Pool, run_pools
from iqray.progress import show_stage
from iqray.resources import WorkerRequest
from iqray.run import Run
from iqray.settings.embedding import ALL_SUBSETS, TRIALS
from iqray.shards import Shard
from iqray.stages.embeddings import INDEX_PATH as EMBEDDINGS_PATH
from iqray.stages.results import CROSS_DISTANCES_PATH, read_frame
from iqray.stages.subsets import SUBSETS_PATH
from iqray.stages.trials import plan_grid
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
        trial: of the network.
        layer: of the embeddings.
        shard: the whole embedding table.
        subsets: categories by metric and subset.
    """

    trial: Trial
    layer: str
    shard: Shard
    subsets: dict[str, dict[str, list[str]]]

    @property
    def path(self) -> str:
        """Of what comes out."""
        return f"cross_distances/{self.trial.dataset}/{self.layer}/{self.trial.trial_id}.parquet"

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the worker."""
        measured = {
            "subsets": self.subsets,
            "seed": self.trial.seed,
            "num_matched": self.trial.num_matched,
        }
        key = hash_content([CROSS_VERSION, self.shard.content, measured])
        return {**measured, "path": self.path, "key": key}


def make_cross_distances(run: Run) -> None:
    """Measure every subset's images in every network's embeddings, where a study has them."""
    settings = run.study.embeddings
    if ALL_SUBSETS not in settings.images or TRIALS not in settings.networks:
        return
    run.require(EMBEDDINGS_PATH, "embeddings")
    cells, trials = plan_grid(run)
    tasks = list(_plan(run, cells, trials))
    with show_stage("cross", len(tasks), "embedding tables") as line:
        todo = [task for task in tasks if run.storage.read_key(task.path) != task.arguments["key"]]
        line.skip(len(tasks) - len(todo))
        if todo:
            run_pools([_build_pool(run, todo)], lambda written: line(written.num_rows))
            run.record_seconds(line)
        if tasks:
            _write_matrices(run, cells, tasks)


def _plan(run: Run, cells: Sequence[Cell], trials: dict[str, Trial]) -> Iterator[CrossTask]:
    chosen = read_frame(run, SUBSETS_PATH)
    keys = ["dataset", "metric", "subset"]
    groups = chosen.groupby(keys, sort=False)["category"]
    categories = {names: sorted(own) for names, own in groups}
    metrics: dict[str, list[str]] = {}
    for cell in cells:
        own = metrics.setdefault(cell.trial_id, [])
        if cell.metric not in own:
            own.append(cell.metric)
    index = read_frame(run, EMBEDDINGS_PATH)
    is_wanted = (index["images"] == ALL_SUBSETS) & index["network"].isin(list(metrics))
    for row in index[is_wanted].to_dict("records"):
        trial = trials[row["network"]]
        if row["dataset"] != trial.dataset:
            continue
        content = run.storage.read_key(row["path"]) or ""
        yield CrossTask(
            trial,
            row["layer"],
            Shard(row["path"], 0, 0, row["num_images"], content),
            {
                metric: {
                    subset: categories[trial.dataset, metric, subset]
                    for subset in run.study.subsets.names
                }
                for metric in metrics[trial.trial_id]
            },
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
    measured = [
        run.storage.read_table(task.path)
        .to_pandas()
        .assign(trial_id=task.trial.trial_id, layer=task.layer)
        for task in tasks
    ]
    frame = _join(pd.DataFrame(map(asdict, cells)), pd.concat(measured))
    frame["weights"] = frame["metric"].map(weights)
    frame = frame[schemas.CROSS_DISTANCES.names]
    write_with_csv(run.storage, CROSS_DISTANCES_PATH, frame, schemas.CROSS_DISTANCES, key)


def _join(cells: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Every cell with what its trial's network has measured, and who was trained on that subset."""
    trained = cells.rename(columns={"subset": "trained_on"})
    tested = cells.rename(columns={"subset": "tested_on", "trial_id": "tested_trial_id"})
    return trained.merge(measured, on=["trial_id", "metric"]).merge(tested)
