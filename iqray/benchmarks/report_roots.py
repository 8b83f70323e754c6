"""An invented finished study of any size below an output root, for reports to be made of it.

Writes every table, log and embedding that `stages.report_sources` reads, and small images. Nothing
was scored or trained: numbers are drawn, with `range_high` covering the most distance.
"""

import itertools
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from iqray import schemas
from iqray.benchmarks.invented_results import (
    count_by_definition,
    make_cross_distances,
    place_controls,
)
from iqray.benchmarks.invented_trials import write_images, write_logs, write_shown_embeddings
from iqray.categories.category_stats import STATISTICS
from iqray.categories.score_quantiles import find_quantiles
from iqray.categories.subsets import choose_subsets
from iqray.inputs.duplicates import find_duplicates
from iqray.inputs.manifest import get_manifest_path
from iqray.metrics.registry import find_metric
from iqray.recipes import ARCHITECTURES
from iqray.results.cells import build_cells
from iqray.results.ranks import COMBINATION, MEASURES, count_ranks
from iqray.settings.subset import SUBSET_NAMES, SubsetRules
from iqray.stages.controls import CONTROLS_PATH
from iqray.stages.manifest import DUPLICATES_PATH
from iqray.stages.results import (
    CELLS_PATH,
    CROSS_DISTANCES_PATH,
    DEFINITION_COUNTS_PATH,
    RANK_COUNTS_PATH,
)
from iqray.stages.statistics import (
    DIAGNOSTICS_PATH,
    INTERVALS_PATH,
    SCORE_QUANTILES_PATH,
    STATISTICS_PATH,
    make_statistics_key,
)
from iqray.stages.subsets import CATEGORY_STATS_PATH, SUBSETS_PATH
from iqray.statistics.diagnostics import (
    build_diagnostics,
    diagnose_category_stats,
    diagnose_subsets,
)
from iqray.statistics.intervals import build_intervals
from iqray.statistics.statistics import compute_statistics
from iqray.storage import Storage
from iqray.study import PAPER_METRICS
from iqray.study_record import StudyRecord, write_study_record
from iqray.tables import write_with_csv
from iqray.trials import Cell

_WEIGHTS = "invented weights"
_AVERAGES = ("mean", "median", "trimmed_mean")


@dataclass(frozen=True)
class RootSize:
    """How large an invented study is; by default as the paper's with three seeds.

    Attributes:
        categories: by dataset, how many.
        metrics: pyiqa's names, of the paper's six.
        architectures: names.
        seeds: of each cell.
        num_train: training images of a category.
        num_test: test images of a category.
        num_epochs: of a trial.
        dim: of an embedding.
        fraction: of the categories in a subset.
    """

    categories: dict[str, int] = field(default_factory=lambda: {"imagenet": 1000, "ecoset": 565})
    metrics: tuple[str, ...] = PAPER_METRICS
    architectures: tuple[str, ...] = ARCHITECTURES
    seeds: tuple[int, ...] = (0, 1, 2)
    num_train: int = 1250
    num_test: int = 50
    num_epochs: int = 90
    dim: int = 4096
    fraction: float = 0.05


def write_report_root(storage: Storage, size: RootSize) -> None:
    """Write an invented study below an empty local root."""
    generator = np.random.default_rng(0)
    rules = SubsetRules(fraction=size.fraction)
    manifests = {name: _make_manifest(name, count, size) for name, count in size.categories.items()}
    for name, manifest in manifests.items():
        storage.write_table(get_manifest_path(name), manifest)
    storage.write_table(DUPLICATES_PATH, find_duplicates(manifests.values()))
    stats = _draw_category_stats(size, generator)
    subsets = choose_subsets(
        pa.Table.from_pandas(stats, schema=schemas.CATEGORY_STATS, preserve_index=False),
        rules,
        {metric: find_metric(metric).lower_better for metric in size.metrics},
        _count_images(size),
    ).to_pandas()
    quantiles = _draw_quantiles(storage, size, manifests, generator)
    cells = _draw_cells(size, subsets, generator)
    _write(storage, CATEGORY_STATS_PATH, stats, schemas.CATEGORY_STATS)
    _write(storage, SUBSETS_PATH, subsets, schemas.SUBSETS)
    _write(storage, CELLS_PATH, cells, schemas.CELLS)
    write_with_csv(storage, CONTROLS_PATH, place_controls(cells), schemas.CONTROLS, CELLS_PATH)
    _write(storage, CROSS_DISTANCES_PATH, make_cross_distances(cells), schemas.CROSS_DISTANCES)
    counts = count_by_definition(cells)
    _write(storage, DEFINITION_COUNTS_PATH, counts, schemas.DEFINITION_COUNTS)
    _write(storage, RANK_COUNTS_PATH, count_ranks(cells), schemas.RANK_COUNTS)
    diagnostics = build_diagnostics(
        [*diagnose_subsets(subsets), *diagnose_category_stats(stats, rules)]
    )
    for path, frame, schema in (
        (DIAGNOSTICS_PATH, diagnostics, schemas.DIAGNOSTICS),
        (SCORE_QUANTILES_PATH, quantiles, schemas.SCORE_QUANTILES),
        (STATISTICS_PATH, compute_statistics(cells), schemas.STATISTICS),
        (INTERVALS_PATH, _draw_intervals(cells, generator), schemas.INTERVALS),
    ):
        write_with_csv(storage, path, frame, schema, make_statistics_key(storage, path))
    write_logs(storage, cells["trial_id"].unique(), size.num_epochs, generator)
    write_shown_embeddings(storage, cells, subsets, manifests, size.dim, generator)
    write_images(storage, manifests, quantiles)
    storage.write_json("stage_seconds.json", {"scores": 5400.0, "trials": 320000.0})
    write_study_record(storage, _make_record(size))


def _write(storage: Storage, path: str, frame: pd.DataFrame, schema: pa.Schema) -> None:
    write_with_csv(storage, path, frame, schema, path)


def _make_record(size: RootSize) -> StudyRecord:
    here = {"root": None, "layout": "folders", "image_column": None}
    return StudyRecord(
        study="invented",
        images=dict.fromkeys(size.categories, here),
        weights=dict.fromkeys(size.metrics, _WEIGHTS),
        recipe="paper",
        is_preview=False,
        notes=["Every number of this study is drawn."],
        versions={"torch": "0"},
    )


def _name_categories(count: int) -> list[str]:
    return [f"category_{number:04d}" for number in range(count)]


def _make_manifest(dataset: str, num_categories: int, size: RootSize) -> pa.Table:
    """All columns that a report reads; the others are null."""
    names = _name_categories(num_categories)
    counts = (("train", size.num_train), ("test", size.num_test))
    places = [
        (split, category, f"{split}/{category}/{number:05d}.jpg")
        for split, count in counts
        for category in names
        for number in range(count)
    ]
    splits, categories, paths = zip(*places, strict=True)
    columns = {
        "dataset": pa.array([dataset]).take(pa.array(np.zeros(len(paths), np.int32))),
        "split": splits,
        "category": categories,
        "path": paths,
        "image_id": np.arange(len(paths)),
        "num_bytes": np.full(len(paths), 1),
        "sha256": paths,  # as different as the paths
        "container": [""] * len(paths),
        "position": np.zeros(len(paths), np.int64),
        "status": ["ok"] * len(paths),
    }
    table = pa.table(columns)
    for column in schemas.MANIFEST:
        if column.name not in columns:
            table = table.append_column(column.name, pa.nulls(len(paths), column.type))
    return table.select(schemas.MANIFEST.names).cast(schemas.MANIFEST)


def _count_images(size: RootSize) -> dict[tuple[str, str, str], int]:
    return {
        (dataset, split, category): number
        for dataset, count in size.categories.items()
        for category in _name_categories(count)
        for split, number in (("train", size.num_train), ("test", size.num_test))
    }


def _draw_category_stats(size: RootSize, generator: np.random.Generator) -> pd.DataFrame:
    parts = []
    for dataset, metric in itertools.product(size.categories, size.metrics):
        names = _name_categories(size.categories[dataset])
        mean = generator.normal(50, 6, len(names))
        spread = np.exp(generator.normal(2.5, 0.3, len(names))) + 0.2 * np.abs(mean - 50)
        statistics = {name: spread if name not in _AVERAGES else mean for name in STATISTICS}
        part = pd.DataFrame({"category": names, **statistics})
        parts.append(part.assign(dataset=dataset, metric=metric))
    stats = pd.concat(parts, ignore_index=True)
    return stats.assign(
        num_images=size.num_train,
        num_scored=size.num_train,
        median_pixels=1.5e5,
        bytes_per_pixel=0.6,
        weights=_WEIGHTS,
    )[schemas.CATEGORY_STATS.names]


def _draw_quantiles(
    storage: Storage,
    size: RootSize,
    manifests: dict[str, pa.Table],
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Draw a score for every training image; write only the records of the scores."""
    parts = []
    for dataset, metric in itertools.product(size.categories, size.metrics):
        train = manifests[dataset].slice(0, size.categories[dataset] * size.num_train)
        scores = train.select(["dataset", "status", "image_id", "category", "path"]).to_pandas()
        scores = scores.assign(
            metric=metric, score=generator.gamma(6, 8, len(scores)), weights=_WEIGHTS
        )
        table = pa.Table.from_pandas(scores, preserve_index=False)
        parts.append(find_quantiles(table, find_metric(metric)))
        record = {"status": {"ok": train.num_rows - 2, "too_small": 2}}
        storage.write_json(f"scores/{dataset}/{metric}/_complete.json", record)
    return pd.concat(parts)


def _draw_cells(
    size: RootSize, subsets: pd.DataFrame, generator: np.random.Generator
) -> pd.DataFrame:
    sizes = subsets.groupby(["dataset", "metric", "subset"]).size()
    cells, results = [], {}
    for dataset, architecture, metric, subset, seed in itertools.product(
        size.categories, size.architectures, size.metrics, SUBSET_NAMES, size.seeds
    ):
        trial_id = f"{dataset}-{architecture}-{metric}-{subset}-s{seed}"
        cells.append(asdict(Cell(dataset, architecture, metric, subset, seed, trial_id)))
        results[trial_id] = _draw_result(
            subset, int(sizes[dataset, metric, subset]), size.num_test, generator
        )
    return build_cells(cells, results, dict.fromkeys(size.metrics, _WEIGHTS))


def _draw_intervals(cells: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    draws = {}
    for names, own in cells.groupby([*COMBINATION, "subset"]):
        dataset, architecture, metric, subset = map(str, names)
        spread = own[list(MEASURES)].std()
        draws[dataset, architecture, metric, subset] = {
            name: generator.normal(own[name].mean(), spread[name], 100) for name in MEASURES
        }
    return build_intervals(cells, draws)


def _draw_result(
    subset: str, num_categories: int, num_test: int, generator: np.random.Generator
) -> dict[str, Any]:
    num_images = num_categories * num_test
    num_pairs = num_images * (num_images - 1) // 2
    mean_distance = generator.normal(22 if subset == "range_high" else 20, 1.2)
    top1 = float(np.clip(generator.normal(0.55, 0.05), 0, 1))
    return {
        "status": "ok",
        "num_categories": num_categories,
        "num_test_images": num_images,
        "top1": top1,
        "top5": (1 + top1) / 2,
        "distance": mean_distance * num_pairs,
        "mean_distance": mean_distance,
        "final_loss": 1.2,
        "train_s": 1800.0,
    }
