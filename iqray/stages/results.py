"""Stages `results` and `report`: from finished trials to rank tables, figures and one page."""

import io
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

import iqray
from iqray import schemas
from iqray.errors import StudyError
from iqray.figures import MdsExample, render_png, render_svg
from iqray.identity import hash_content
from iqray.inputs.duplicates import DuplicateCounts, count_duplicates, describe_duplicates
from iqray.metrics.registry import FULL_PRECISION, METRICS_WITH_PRECISIONS
from iqray.progress import show_stage
from iqray.ranks import count_ranks
from iqray.rdm import compute_centroids, compute_rdm, embed_mds
from iqray.recipes import INCEPTION_AUX_MIN_PX
from iqray.report import ReportInputs, build_report
from iqray.report_figures import ReportFigure, build_figures
from iqray.results import build_cells, count_images, count_scores, summarise
from iqray.run import Run, get_versions
from iqray.scoring.plans import read_scores
from iqray.stages.manifest import DUPLICATES_PATH, make_duplicates_key
from iqray.stages.subsets import CATEGORY_STATS_PATH, SUBSETS_PATH
from iqray.stages.trials import plan_grid
from iqray.trial_runner import read_embeddings, read_results

CELLS_PATH = "results/cells.parquet"
RANK_COUNTS_PATH = "results/rank_counts.parquet"
REPORT_PATH = "report/index.html"

# Raise when the same tables would give another page.
REPORT_VERSION = 2

_NUM_MDS_CATEGORIES = 10  # of the paper's "sample categories"
_SEED = 0


def make_results(run: Run) -> None:
    """Join every cell with its trial's result, and rank the subsets."""
    cells, trials = plan_grid(run)
    results = read_results(run.storage, trials)
    weights = {metric: found.provenance for metric, found in run.weights.items()}
    key = hash_content([[asdict(cell) for cell in cells], results, weights])
    with show_stage("results", len(cells), "cells") as line:
        if run.storage.read_key(CELLS_PATH) == key:
            line.skip(len(cells))
            return
        table = build_cells([asdict(cell) for cell in cells], results, weights)
        _write_with_csv(run, RANK_COUNTS_PATH, count_ranks(table), schemas.RANK_COUNTS, key)
        _write_with_csv(run, CELLS_PATH, table, schemas.CELLS, key)
        line(len(cells))
        run.record_seconds(line)


def make_report(run: Run) -> None:
    """Write the page and its figures from finished tables."""
    run.require(CELLS_PATH, "results")
    duplicates = _read_duplicates(run)
    settings = run.study.model_dump(mode="json", exclude={"root"})
    tables = [run.storage.read_key(path) for path in (CELLS_PATH, DUPLICATES_PATH)]
    key = hash_content([tables, settings, REPORT_VERSION])
    record_path = "report/record.json"
    with show_stage("report", 1, "page") as line:
        if run.storage.exists(record_path) and run.storage.read_json(record_path) == key:
            line.skip(1)
            return
        inputs = _collect_inputs(run, duplicates)
        figures = list(
            build_figures(
                inputs.rank_counts,
                inputs.cells,
                inputs.category_stats,
                inputs.subsets,
                inputs.mds_examples,
            )
        )
        for figure in figures:
            _write_figure(run, figure)
        run.storage.write_bytes(REPORT_PATH, build_report(inputs, figures).encode())
        run.storage.write_json(record_path, key)
        line(1)


def summarise_run(run: Run) -> str:
    """The few lines that end a run: who ranks first, and where the report is."""
    text = summarise(_read_frame(run, CELLS_PATH))
    recipe = run.study.recipe
    if recipe.is_preview:
        text += f"\nrecipe '{recipe.name}' is a preview: no finding, only a look at the machinery"
    return f"\n{text}\n\nreport: {run.storage.describe(REPORT_PATH)}"


def count_lost_cells(run: Run) -> int:
    """Cells without a result: trials that failed or never ran."""
    return int(_read_frame(run, CELLS_PATH)["status"].isin(["failed", "missing"]).sum())


def _write_with_csv(run: Run, path: str, frame: pd.DataFrame, schema: pa.Schema, key: str) -> None:
    text = io.StringIO()
    frame.to_csv(text, index=False)
    run.storage.write_bytes(path.replace(".parquet", ".csv"), text.getvalue().encode())
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    run.storage.write_table(path, table.replace_schema_metadata(), key=key)


def _read_frame(run: Run, path: str) -> pd.DataFrame:
    return run.storage.read_table(path).to_pandas()


def _write_figure(run: Run, figure: ReportFigure) -> None:
    path = f"report/figures/{figure.name}"
    run.storage.write_bytes(f"{path}.png", render_png(figure.figure))
    run.storage.write_bytes(f"{path}.svg", render_svg(figure.figure))


def _read_duplicates(run: Run) -> DuplicateCounts:
    run.require(DUPLICATES_PATH, "manifest")
    if run.storage.read_key(DUPLICATES_PATH) != make_duplicates_key(run):
        raise StudyError(
            f"'{run.storage.describe(DUPLICATES_PATH)}' is of other images than the study's; run "
            "--only manifest first, or all stages without --only"
        )
    return count_duplicates(run.storage.read_table(DUPLICATES_PATH))


def _collect_inputs(run: Run, duplicates: DuplicateCounts) -> ReportInputs:
    study = run.study
    scores = (
        read_scores(run.storage, dataset.name, metric, ["dataset", "metric", "status"])
        for dataset in study.datasets
        for metric in study.metrics
    )
    cells = _read_frame(run, CELLS_PATH)
    return ReportInputs(
        study=study.name,
        cells=cells,
        rank_counts=_read_frame(run, RANK_COUNTS_PATH),
        category_stats=_read_frame(run, CATEGORY_STATS_PATH),
        subsets=_read_frame(run, SUBSETS_PATH),
        image_counts=count_images(run.manifests.values()),
        score_counts=count_scores(scores),
        weights={metric: found.provenance for metric, found in run.weights.items()},
        recipe=study.recipe.name,
        is_preview=study.recipe.is_preview,
        notes=list(_list_notes(run, duplicates)),
        num_leaked=duplicates.num_leaked,
        stage_s=run.read_seconds(),
        versions={
            **get_versions(),
            "iqray": iqray.__version__,
            "pyiqa": version("pyiqa"),
            "ray": version("ray"),
        },
        mds_examples=list(_make_mds_examples(run, cells)),
    )


def _list_notes(run: Run, duplicates: DuplicateCounts) -> Iterator[str]:
    study = run.study
    for architecture in study.architectures:
        input_px = study.recipe.architectures[architecture].input_px
        if architecture == "inception_v3" and input_px < INCEPTION_AUX_MIN_PX:
            yield (
                f"Inception-v3 trained at {input_px} px without its auxiliary head, which needs "
                f"about {INCEPTION_AUX_MIN_PX} px."
            )
    if study.scoring.small_images == "upscale":
        yield "Images below a metric's smallest side were enlarged to it before scoring."
    gated = sorted(METRICS_WITH_PRECISIONS & set(study.metrics))
    if study.scoring.precision != FULL_PRECISION and gated:
        yield (
            f"{', '.join(gated)} computed in {study.scoring.precision} behind the rank gate: every "
            f"category that could have changed a subset was scored in {FULL_PRECISION}."
        )
    if study.subsets.orientation == "raw":
        yield "High and low are by raw score, also for metrics where lower is better."
    repeats = describe_duplicates(duplicates)
    if repeats:
        yield f"{repeats}. All are listed in {DUPLICATES_PATH} and .csv."


def _make_mds_examples(run: Run, cells: pd.DataFrame) -> Iterator[MdsExample]:
    """One map per subset of the first combination whose cells all have a result."""
    order = ["dataset", "architecture", "metric", "seed"]
    for names, rows in cells.groupby(order, sort=True):
        if (rows["status"] != "ok").any():
            continue
        for row in rows.to_dict("records"):
            yield _map_centroids(run, row, ", ".join(map(str, (*names[:3], row["subset"]))))
        return


def _map_centroids(run: Run, cell: Mapping[Hashable, Any], title: str) -> MdsExample:
    embeddings, categories = read_embeddings(run.storage, cell["trial_id"])
    names, centroids = compute_centroids(embeddings, categories)
    generator = np.random.default_rng(_SEED)
    chosen = np.sort(generator.permutation(len(names))[:_NUM_MDS_CATEGORIES])
    coordinates, stress = embed_mds(compute_rdm(centroids[chosen]), _SEED)
    return MdsExample(
        title=title,
        categories=tuple(names[index] for index in chosen),
        coordinates=coordinates,
        stress=stress,
        weights=cell["weights"],
    )
