"""Interventions of a study: changed images, their scores, their trials, and what came out.

Reads finished subsets; writes, for every changed subset, `interventions/<subset>/`: `images/` with
the derived datasets, the tables of a study of its own, `test_images/` with those of a study that
scores test images where any are changed, and last `effects` and `measured_scores`.
"""

from collections.abc import Iterator, Mapping
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
    derive_test_study,
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
from iqray.stages.subsets import (
    CATEGORY_STATS_PATH,
    SUBSETS_PATH,
    make_category_stats,
    make_subsets,
)
from iqray.stages.trials import train_grid
from iqray.study import Study
from iqray.tables import write_with_csv

# Raise when the same images would be changed in another way.
CHANGES_VERSION = 1

# Raise when the same scores and trials would give other tables or more of them.
TABLES_VERSION = 2

# Images of a file: what one task changes and holds encoded in memory.
_SHARD_SIZE = 64

# Of a changed subset's own studies: of each one first, then of that which trains.
_SCORING_STAGES = (inspect_and_score, make_manifests, make_scores, make_category_stats)
_TRAINING_STAGES = (make_subsets, train_grid, make_results)

_TEST_FOLDER = "test_images"

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
                hash_function(variant.function, variant.files)


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
    runs = {"train": Run(study, storage, run.cluster)}
    if any(variant.changes_test for variant in folders):
        own = storage.below(_TEST_FOLDER)
        runs["test"] = Run(derive_test_study(study, intervention, own.root), own, run.cluster)
    for split, derived in runs.items():
        if len(runs) > 1:
            show_line("split", split)
        for stage in _SCORING_STAGES:
            stage(derived)
    for stage in _TRAINING_STAGES:
        stage(runs["train"])
    return _write_tables(runs, intervention)


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
    described = asdict(variant)
    files = described.pop("files")  # what they hold counts, not where they lie
    source = hash_function(variant.function, files) if variant.function is not None else ""
    columns = ["category", "path", "sha256"]
    contents = {split: hash_rows(own.select(columns)) for split, own in rows.items()}
    return hash_content([CHANGES_VERSION, described, source, contents])


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


def _write_tables(
    runs: Mapping[str, Run], intervention: Intervention
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write what came out, where it is not there.

    Args:
        runs: by the split whose images they have scored; that of train has trained as well.
        intervention: of these.
    """
    derived = runs["train"]
    rules = derived.study.subsets
    effects = compute_effects(intervention, read_frame(derived, CELLS_PATH))
    stats = {split: read_frame(own, CATEGORY_STATS_PATH) for split, own in runs.items()}
    scores = summarise_scores(intervention, stats, rules.average, rules.range)
    keys = {split: own.storage.read_key(CATEGORY_STATS_PATH) for split, own in runs.items()}
    scored = [keys, rules.average, rules.range]
    trained = derived.storage.read_key(CELLS_PATH)
    for path, frame, schema, content in (
        (SCORES_PATH, scores, schemas.INTERVENTION_SCORES, scored),
        (EFFECTS_PATH, effects, schemas.INTERVENTION_EFFECTS, trained),
    ):
        key = hash_content([TABLES_VERSION, content])
        if derived.storage.read_key(path) != key:
            write_with_csv(derived.storage, path, frame, schema, key)
    return effects, scores
