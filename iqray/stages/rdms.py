"""Stage `rdms`: from embedding tables to representational dissimilarity matrices.

Reads the embeddings of finished trials and those of stage `embeddings`; writes
`rdms/<dataset>/<images>/<layer>/<level>-<measure>/<network>.parquet`, the same as .h5 for
rsatoolbox, and a table of these files, `rdms/index.parquet`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from iqray import schemas
from iqray.identity import hash_content
from iqray.pools import Pool, run_pools
from iqray.progress import show_stage
from iqray.rdms.worker import RdmWorker
from iqray.resources import WorkerRequest
from iqray.run import Run
from iqray.settings.embedding import OWN, PENULTIMATE, TRIALS
from iqray.shards import Shard
from iqray.stages.embeddings import INDEX_PATH as EMBEDDINGS_PATH
from iqray.stages.results import read_frame
from iqray.stages.trials import plan_grid
from iqray.tables import write_with_csv
from iqray.training.trial_runner import list_finished, read_results

RDMS_PATH = "rdms/index.parquet"

# Raise when the same embeddings would give other numbers.
RDM_VERSION = 1

# A table takes its embeddings twice while it is read; work on more than one at a time is the
# cluster's, not a process's.
_REQUEST = WorkerRequest("rdms", num_cpus=1)


@dataclass(frozen=True)
class RdmSource:
    """An embedding table, as `schemas.RDMS` names it.

    Attributes:
        content: key of what is in it.
    """

    dataset: str
    images: str
    layer: str
    network: str
    kind: str
    architecture: str
    num_images: int
    table: str
    content: str

    def describe(self) -> dict[str, str]:
        """What an RDM is of."""
        names = ("dataset", "images", "layer", "network", "kind", "architecture")
        return {name: getattr(self, name) for name in names}


# A table with level, measure, path and key of each of its RDMs.
_Planned = tuple[RdmSource, list[dict[str, str]]]


def make_rdms(run: Run) -> None:
    """Write the RDMs that the study names, of every embedding table."""
    settings = run.study.rdms
    if not settings.levels:
        return
    planned = [(source, _plan_files(run, source)) for source in _list_sources(run)]
    with show_stage("rdms", sum(len(files) for _, files in planned), "RDMs") as line:
        missing = [
            (source, [file for file in files if run.storage.read_key(file["path"]) != file["key"]])
            for source, files in planned
        ]
        todo = [(source, files) for source, files in missing if files]
        line.skip(line.total - sum(len(files) for _, files in todo))
        if todo:
            run_pools([_build_pool(run, todo)], lambda written: line(written.num_rows))
            run.record_seconds(line)
        _write_index(run, planned)


def _list_sources(run: Run) -> Iterator[RdmSource]:
    """Each finished trial's own table, and those of stage `embeddings`."""
    _, trials = plan_grid(run)
    finished = list_finished(run.storage, trials)
    results = read_results(run.storage, finished)
    for trial_id in (trial_id for trial_id in trials if trial_id in finished):
        trial = trials[trial_id]
        yield RdmSource(
            dataset=trial.dataset,
            images=OWN,
            layer=PENULTIMATE,
            network=trial_id,
            kind=TRIALS,
            architecture=trial.architecture,
            num_images=trial.num_test_images,
            table=f"trials/{trial_id}/embeddings.parquet",
            # One that was trained again need not have the same embeddings.
            content=hash_content([trial_id, results[trial_id]]),
        )
    if run.study.embeddings.is_empty:
        return
    run.require(EMBEDDINGS_PATH, "embeddings")
    for row in read_frame(run, EMBEDDINGS_PATH).to_dict("records"):
        if row["images"] == OWN and row["layer"] == PENULTIMATE:
            continue  # the trial's own table has them
        path = str(row.pop("path"))
        content = run.storage.read_key(path) or ""
        yield RdmSource(**{str(key): row[key] for key in row}, table=path, content=content)


def _plan_files(run: Run, source: RdmSource) -> list[dict[str, str]]:
    """Level, measure, path and key of each RDM of a table."""
    folder = f"rdms/{source.dataset}/{source.images}/{source.layer}"
    settings = run.study.rdms
    return [
        {
            "level": level,
            "measure": measure,
            "path": f"{folder}/{level}-{measure}/{source.network}.parquet",
            "key": hash_content([RDM_VERSION, source.content, level, measure]),
        }
        for level in settings.levels
        for measure in settings.measures
    ]


def _build_pool(run: Run, missing: list[_Planned]) -> Pool:
    return Pool(
        name="WriteRdms",
        size=run.fit_pool(_REQUEST),
        storage=run.storage,
        worker=RdmWorker,
        worker_arguments={"storage": run.storage},
        tasks=[
            (
                Shard(source.table, 0, 0, source.num_images, source.content),
                {"descriptors": source.describe(), "files": files},
            )
            for source, files in missing
        ],
    )


def _write_index(run: Run, planned: list[_Planned]) -> None:
    rows = [
        {
            **source.describe(),
            **{name: file[name] for name in ("level", "measure", "path")},
            "num_images": source.num_images,
        }
        for source, files in planned
        for file in files
    ]
    key = hash_content([rows, [file["key"] for _, files in planned for file in files]])
    if run.storage.read_key(RDMS_PATH) != key:
        frame = pd.DataFrame(rows, columns=schemas.RDMS.names)
        write_with_csv(run.storage, RDMS_PATH, frame, schemas.RDMS, key)
