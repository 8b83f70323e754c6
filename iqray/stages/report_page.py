"""What the stage `report` needs, collected from the study's tables, and the page made of it."""

from collections.abc import Hashable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

import iqray
from iqray.figures import MdsExample, render_png, render_svg
from iqray.inputs.duplicates import DuplicateCounts, count_duplicates, describe_duplicates
from iqray.metrics.registry import FULL_PRECISION, METRICS_WITH_PRECISIONS
from iqray.rdm import compute_centroids, compute_rdm, embed_mds
from iqray.recipes import INCEPTION_AUX_MIN_PX
from iqray.report import ReportInputs, build_report, draw_figures
from iqray.report_figures import ReportFigure
from iqray.results import count_images, count_scores
from iqray.run import Run, get_versions
from iqray.scoring.plans import read_scores
from iqray.stages.manifest import DUPLICATES_PATH
from iqray.stages.results import CELLS_PATH, RANK_COUNTS_PATH, REPORT_PATH, read_frame
from iqray.stages.statistics import DIAGNOSTICS_PATH, STATISTICS_PATH
from iqray.stages.subsets import CATEGORY_STATS_PATH, SUBSETS_PATH
from iqray.trial_runner import read_embeddings

_NUM_MDS_CATEGORIES = 10  # of the paper's "sample categories"
_SEED = 0


def write_page(run: Run) -> None:
    """Write the figures and, last, the page."""
    inputs = _collect_inputs(run, count_duplicates(run.storage.read_table(DUPLICATES_PATH)))
    figures = draw_figures(inputs)
    for figure in figures:
        _write_figure(run, figure)
    run.storage.write_bytes(REPORT_PATH, build_report(inputs, figures).encode())


def _write_figure(run: Run, figure: ReportFigure) -> None:
    path = f"report/figures/{figure.name}"
    run.storage.write_bytes(f"{path}.png", render_png(figure.figure))
    run.storage.write_bytes(f"{path}.svg", render_svg(figure.figure))


def _collect_inputs(run: Run, duplicates: DuplicateCounts) -> ReportInputs:
    study = run.study
    scores = (
        read_scores(run.storage, dataset.name, metric, ["dataset", "metric", "status"])
        for dataset in study.datasets
        for metric in study.metrics
    )
    cells = read_frame(run, CELLS_PATH)
    return ReportInputs(
        study=study.name,
        cells=cells,
        rank_counts=read_frame(run, RANK_COUNTS_PATH),
        category_stats=read_frame(run, CATEGORY_STATS_PATH),
        subsets=read_frame(run, SUBSETS_PATH),
        statistics=read_frame(run, STATISTICS_PATH),
        diagnostics=read_frame(run, DIAGNOSTICS_PATH),
        image_counts=count_images(run.manifests[dataset.name] for dataset in study.datasets),
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
