"""Stage `embeddings`: what the study wants embedded beyond each trial's own test images.

Reads the networks of finished trials, untrained and published ones and the user's own; writes
`embeddings/<dataset>/<images>/<layer>/<network>.parquet` and a table of these files,
`embeddings/index.parquet`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from iqray import schemas
from iqray.embeddings.network_kinds import Network
from iqray.embeddings.sets import ImageSet, ImageSets, list_trained
from iqray.embeddings.worker import EmbeddingWorker
from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.pools import Pool, run_pools
from iqray.progress import show_stage
from iqray.resources import WorkerRequest
from iqray.run import Run, get_versions
from iqray.settings.embedding import TRIALS
from iqray.shards import Shard
from iqray.stages.subsets import SUBSETS_PATH
from iqray.stages.trials import plan_grid
from iqray.storage import Storage
from iqray.study import Study
from iqray.tables import write_with_csv
from iqray.training.trial_runner import list_finished, read_results
from iqray.trials import Cell, Trial

INDEX_PATH = "embeddings/index.parquet"

# Raise when the same network and images would give other numbers.
EMBEDDING_VERSION = 1

_IMAGES = "embeddings/.images"


@dataclass(frozen=True)
class EmbeddingTask:
    """A network and a set of images; a file for each layer.

    Attributes:
        network: that embeds.
        images: that are embedded.
        files: by layer the path of its table.
        key: of what is in them.
    """

    network: Network
    images: ImageSet
    files: dict[str, str]
    key: str

    @property
    def num_images(self) -> int:
        """Images of the set."""
        return self.images.images.num_rows

    def find_missing(self, storage: Storage) -> dict[str, str]:
        """Files that are not there, or are of something else, by layer."""
        return {
            layer: path for layer, path in self.files.items() if storage.read_key(path) != self.key
        }


def request_embedders(study: Study) -> WorkerRequest:
    """Processes that embed, each as large as the largest that trains."""
    settings = study.training
    num_gpus = max(settings.get_num_gpus(name) for name in study.architectures)
    return WorkerRequest("training", settings.num_cpus, num_gpus)


def make_embeddings(run: Run) -> None:
    """Embed every image set with every network that the study names."""
    if run.study.embeddings.is_empty:
        return
    tasks = list(plan_embeddings(run, *plan_grid(run)))
    _check_models(run.storage, tasks)
    with show_stage("embeddings", sum(task.num_images for task in tasks), "images") as line:
        missing = [replace(task, files=task.find_missing(run.storage)) for task in tasks]
        todo = [task for task in missing if task.files]
        line.skip(line.total - sum(task.num_images for task in todo))
        if todo:
            pool = _build_pool(run, todo)
            run_pools([pool], lambda written: line(written.num_rows))
            run.storage.delete_folder(_IMAGES)
            run.record_seconds(line)
        _write_index(run, tasks)


def plan_embeddings(
    run: Run, cells: Sequence[Cell], trials: Mapping[str, Trial]
) -> Iterator[EmbeddingTask]:
    """Every network with every set of images that the study asks for.

    Args:
        run: whose networks that no trial trains are made where they are missing.
        cells: of the grid.
        trials: by id; those that are finished have networks.
    """
    study = run.study
    subsets = run.storage.read_table(SUBSETS_PATH)
    sets = ImageSets(study, cells, trials, subsets, run.manifests)
    finished = list_finished(run.storage, trials)
    trained = [trial for trial_id, trial in trials.items() if trial_id in finished]
    results = read_results(run.storage, finished)
    networks = list_trained(trained, results) if TRIALS in study.embeddings.networks else []
    for network in (*networks, *run.other_networks):
        layers = study.embeddings.list_layers(network.architecture)
        for images in sets.list_for(network) if layers else ():
            folder = f"embeddings/{images.dataset}/{images.name}"
            yield EmbeddingTask(
                network,
                images,
                {layer: f"{folder}/{layer}/{network.name}.parquet" for layer in layers},
                _make_key(run, network, images),
            )


def _make_key(run: Run, network: Network, images: ImageSet) -> str:
    recipe = run.study.recipe
    pixels = [
        recipe.architectures[network.architecture].input_px,
        recipe.compute_stored_px(network.architecture),
    ]
    return hash_content([EMBEDDING_VERSION, network.key, images.content, pixels, get_versions()])


def _check_models(storage: Storage, tasks: Sequence[EmbeddingTask]) -> None:
    for network in dict.fromkeys(task.network for task in tasks if task.network.kind == TRIALS):
        if not storage.exists(network.path):
            raise StudyError(
                f"trial '{network.name}' has no model to embed with: it was trained with "
                f"training.save_models false; remove trials/{network.name} to have it trained "
                "again, or leave trials out of embeddings.networks"
            )


def _build_pool(run: Run, tasks: Sequence[EmbeddingTask]) -> Pool:
    size = run.fit_pool(request_embedders(run.study))
    return Pool(
        name="EmbedImages",
        size=size,
        storage=run.storage,
        worker=EmbeddingWorker,
        worker_arguments={
            "storage": run.storage,
            "sources": {each.name: run.open_images(each) for each in run.study.all_datasets},
            "device": size.device,
            "num_threads": size.num_threads,
            "pack_cache_gib": run.study.training.pack_cache_gib,
        },
        tasks=[(_write_shard(run.storage, task.images), _instruct(run, task)) for task in tasks],
    )


def _write_shard(storage: Storage, images: ImageSet) -> Shard:
    """Put an image set where the worker finds it; one task embeds it whole."""
    table = f"{_IMAGES}/{images.content[:32]}.parquet"
    if not storage.exists(table):
        storage.write_table(table, images.images)
    return Shard(table, 0, 0, images.images.num_rows, images.content)


def _instruct(run: Run, task: EmbeddingTask) -> dict[str, Any]:
    recipe, architecture = run.study.recipe, task.network.architecture
    return {
        "network": asdict(task.network),
        "input_px": recipe.architectures[architecture].input_px,
        "stored_px": recipe.compute_stored_px(architecture),
        "files": task.files,
        "key": task.key,
    }


def _write_index(run: Run, tasks: Sequence[EmbeddingTask]) -> None:
    rows = [
        {
            "dataset": task.images.dataset,
            "images": task.images.name,
            "layer": layer,
            "network": task.network.name,
            "kind": task.network.kind,
            "architecture": task.network.architecture,
            "num_images": task.num_images,
            "path": path,
        }
        for task in tasks
        for layer, path in task.files.items()
    ]
    key = hash_content([rows, [task.key for task in tasks]])
    if run.storage.read_key(INDEX_PATH) != key:
        frame = pd.DataFrame(rows, columns=schemas.EMBEDDINGS.names)
        write_with_csv(run.storage, INDEX_PATH, frame, schemas.EMBEDDINGS, key)
