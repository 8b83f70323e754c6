"""Interventions of a study: changed images, their scores, their trials, and what came out.

Reads finished subsets; writes, for every changed subset, `interventions/<subset>/`: `images/` with
the derived datasets, the tables of a study of its own, and last `effects` and `measured_scores`.
"""

from collections.abc import Iterator
from dataclasses import asdict

import pandas as pd
import pyarrow as pa

from iqray import schemas
from iqray.errors import StudyError
from iqray.identity import hash_content, hash_rows
from iqray.interventions.image_changes import hash_function
from iqray.interventions.interventions import (
    compute_effects,
    derive_study,
    select_images,
    summarise_scores,
)
from iqray.interventions.worker import InterventionWorker
from iqray.pools import Pool, run_pools
from iqray.progress import show_line, show_stage
from iqray.resources import WorkerRequest
from iqray.run import Run
from iqray.scoring.plans import read_scores
from iqray.settings.intervention import UNCHANGED, Intervention, Variant
from iqray.shards import Shard, split_into_shards
from iqray.stages.images import inspect_and_score
from iqray.stages.intervention_results import (
    EFFECTS_PATH,
    SCORES_PATH,
    get_intervention_folder,
)
from iqray.stages.manifest import make_manifests
from iqray.stages.results import CELLS_PATH, make_results, read_frame
from iqray.stages.scores import make_scores
from iqray.stages.subsets import CATEGORY_STATS_PATH, SUBSETS_PATH, make_subsets
from iqray.stages.trials import train_grid
from iqray.study import Study
from iqray.tables import write_with_csv

# Raise when the same images would be changed in another way, or tables would hold other numbers.
INTERVENTION_VERSION = 1

# Images of a file: what one task changes and holds encoded in memory.
_SHARD_SIZE = 64

# Of a changed subset's own study.
_STAGES = (
    inspect_and_score,
    make_manifests,
    make_scores,
    make_subsets,
    train_grid,
    make_results,
)

_REQUEST = WorkerRequest("interventions", num_cpus=1)


def check_interventions(study: Study) -> None:
    """Check that there is something to change, and that functions can be imported.

    Raises:
        StudyError: at the first mistake.
    """
    if not study.interventions:
        raise StudyError("the study has no interventions; jobs/studies/example.yaml shows the key")
    for intervention in study.interventions:
        for variant in intervention.list_variants():
            if variant.function is not None:
                hash_function(variant.function)


def intervene(run: Run, intervention: Intervention) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Change a subset's images, score them, train on them, and compare with the unchanged ones.

    Returns:
        Tables of `schemas.INTERVENTION_EFFECTS` and `schemas.INTERVENTION_SCORES`.
    """
    show_line("intervention", intervention.name)
    base = get_intervention_folder(intervention.name)
    categories = _list_categories(run, intervention)
    folders = _make_images(run, intervention, categories, f"{base}/images")
    storage = run.storage.below(base)
    study = derive_study(
        run.study,
        intervention,
        len(categories),
        folders,
        storage.root,
        run.storage.below(f"{base}/images").root,
        run.locate_weights(),
    )
    derived = Run(study, storage, run.cluster)
    for stage in _STAGES:
        stage(derived)
    return _write_tables(derived, intervention)


def _list_categories(run: Run, intervention: Intervention) -> list[str]:
    subsets = read_frame(run, SUBSETS_PATH)
    own = subsets[
        (subsets["dataset"] == intervention.dataset)
        & (subsets["metric"] == intervention.metric)
        & (subsets["subset"] == intervention.subset)
    ]
    return sorted(own["category"])


def _make_images(
    run: Run, intervention: Intervention, categories: list[str], base: str
) -> dict[Variant, str]:
    """Write what is missing of the derived datasets; gives each one's folder below `base`."""
    manifest = run.manifests[intervention.dataset]
    scores = read_scores(run.storage, intervention.dataset, intervention.metric)
    folders: dict[Variant, str] = {}
    tasks: list[tuple[Shard, dict[str, object]]] = []
    for variant in intervention.list_variants():
        rows = {
            split: select_images(manifest, scores, categories, split, variant)
            for split in ("train", "test")
        }
        # Other images or another function make another folder, so that no file of before is read.
        folders[variant] = f"{variant.name}-{_make_key(variant, rows)[:12]}"
        if variant.change != UNCHANGED and not variant.changes_test:
            del rows["test"]
        for split, own in rows.items():
            folder = f"{base}/{folders[variant]}/{split}"
            table = f"{base}/.rows/{folders[variant]}-{split}.parquet"
            for shard, path in _list_missing(run, own, folder, table):
                tasks.append((shard, {"variant": asdict(variant), "path": path}))
            if any(task[0].table == table for task in tasks):
                run.storage.write_table(table, own)
    total = sum(shard.num_rows for shard, _ in tasks)
    with show_stage("changes", total, "images") as line:
        if tasks:
            run_pools([_build_pool(run, tasks)], lambda written: line(written.num_rows))
            run.storage.delete_folder(f"{base}/.rows")
    return folders


def _make_key(variant: Variant, rows: dict[str, pa.Table]) -> str:
    source = hash_function(variant.function) if variant.function is not None else ""
    columns = ["category", "path", "sha256"]
    contents = {split: hash_rows(own.select(columns)) for split, own in rows.items()}
    return hash_content([INTERVENTION_VERSION, asdict(variant), source, contents])


def _list_missing(run: Run, rows: pa.Table, folder: str, table: str) -> Iterator[tuple[Shard, str]]:
    there = run.storage.list_names(folder)
    for shard in split_into_shards(rows, _SHARD_SIZE, table):
        name = shard.name_file("")
        if name not in there:
            yield shard, f"{folder}/{name}"


def _build_pool(run: Run, tasks: list[tuple[Shard, dict[str, object]]]) -> Pool:
    return Pool(
        name="ChangeImages",
        size=run.fit_pool(_REQUEST),
        storage=run.storage,
        worker=InterventionWorker,
        worker_arguments={
            "storage": run.storage,
            "sources": {each.name: run.open_images(each) for each in run.study.datasets},
        },
        tasks=tasks,
    )


def _write_tables(derived: Run, intervention: Intervention) -> tuple[pd.DataFrame, pd.DataFrame]:
    rules = derived.study.subsets
    effects = compute_effects(intervention, read_frame(derived, CELLS_PATH))
    scores = summarise_scores(
        intervention, read_frame(derived, CATEGORY_STATS_PATH), rules.average, rules.range
    )
    for path, frame, schema, source in (
        (SCORES_PATH, scores, schemas.INTERVENTION_SCORES, CATEGORY_STATS_PATH),
        (EFFECTS_PATH, effects, schemas.INTERVENTION_EFFECTS, CELLS_PATH),
    ):
        key = hash_content([INTERVENTION_VERSION, derived.storage.read_key(source)])
        if derived.storage.read_key(path) != key:
            write_with_csv(derived.storage, path, frame, schema, key)
    return effects, scores
