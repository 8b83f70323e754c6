"""Stage `statistics`: from finished tables to what scores alone tell, and to tests of ranks."""

from collections.abc import Callable, Iterator

import pandas as pd
import pyarrow as pa

from iqray import schemas
from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.metrics.registry import find_metric
from iqray.progress import show_stage
from iqray.run import Run
from iqray.scoring.plans import read_scores
from iqray.stages.results import CELLS_PATH, read_frame
from iqray.stages.subsets import CATEGORY_STATS_PATH, SUBSETS_PATH
from iqray.storage import Storage
from iqray.tables import write_with_csv

DIAGNOSTICS_PATH = "results/diagnostics.parquet"
SCORE_QUANTILES_PATH = "results/score_quantiles.parquet"
STATISTICS_PATH = "results/statistics.parquet"
INTERVALS_PATH = "results/intervals.parquet"

# Raise when the same tables would give other numbers or more of them.
STATISTICS_VERSION = 6

# By table, the finished table that decides its numbers.
_SOURCES = {
    DIAGNOSTICS_PATH: SUBSETS_PATH,
    SCORE_QUANTILES_PATH: SUBSETS_PATH,
    STATISTICS_PATH: CELLS_PATH,
    INTERVALS_PATH: CELLS_PATH,
}


def make_statistics(run: Run) -> None:
    """Diagnose the choice of categories, and test the ranks of the subsets."""
    run.require(SUBSETS_PATH, "subsets")
    run.require(CELLS_PATH, "results")
    tables: list[tuple[str, pa.Schema, Callable[[Run], pd.DataFrame]]] = [
        (DIAGNOSTICS_PATH, schemas.DIAGNOSTICS, _diagnose),
        (SCORE_QUANTILES_PATH, schemas.SCORE_QUANTILES, _find_quantiles),
        (STATISTICS_PATH, schemas.STATISTICS, _test_ranks),
        (INTERVALS_PATH, schemas.INTERVALS, _draw_intervals),
    ]
    with show_stage("statistics", len(tables), "tables") as line:
        for path, schema, make in tables:
            key = make_statistics_key(run.storage, path)
            if run.storage.read_key(path) == key:
                line.skip(1)
                continue
            write_with_csv(run.storage, path, make(run), schema, key)
            line(1)
        run.record_seconds(line)


def check_statistics_current(storage: Storage) -> None:
    """Check that all tables are of the finished cells and subsets.

    Raises:
        StudyError: one is not.
    """
    for path in _SOURCES:
        if storage.read_key(path) != make_statistics_key(storage, path):
            raise StudyError(
                f"'{storage.describe(path)}' is of other cells or subsets than those below the "
                "root; run the study with --only statistics first, or all its stages"
            )


def make_statistics_key(storage: Storage, path: str) -> str:
    """Key that a table of this stage has with what is below the root."""
    return hash_content([STATISTICS_VERSION, storage.read_key(_SOURCES[path])])


def _diagnose(run: Run) -> pd.DataFrame:
    # Imported here, as scipy takes a second and a finished study does not need it.
    from iqray.statistics.diagnostics import build_diagnostics

    return build_diagnostics(_list_diagnostics(run))


def _list_diagnostics(run: Run) -> Iterator[dict[str, object]]:
    from iqray.statistics.diagnostics import (
        diagnose_category_stats,
        diagnose_scores,
        diagnose_subsets,
    )

    study = run.study
    yield from diagnose_subsets(read_frame(run, SUBSETS_PATH))
    yield from diagnose_category_stats(read_frame(run, CATEGORY_STATS_PATH), study.subsets)
    for dataset in study.datasets:
        scores = (read_scores(run.storage, dataset.name, metric) for metric in study.metrics)
        yield from diagnose_scores(dataset.name, scores, study.subsets)


def _find_quantiles(run: Run) -> pd.DataFrame:
    from iqray.categories.score_quantiles import find_quantiles

    study = run.study
    return pd.concat(
        find_quantiles(read_scores(run.storage, dataset.name, metric), find_metric(metric))
        for dataset in study.datasets
        for metric in study.metrics
    )


def _test_ranks(run: Run) -> pd.DataFrame:
    from iqray.statistics.statistics import compute_statistics

    return compute_statistics(read_frame(run, CELLS_PATH))


def _draw_intervals(run: Run) -> pd.DataFrame:
    from iqray.stages.intervals import compute_intervals

    return compute_intervals(run.storage, read_frame(run, CELLS_PATH))
