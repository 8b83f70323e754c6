"""Draw categories, images and seeds of finished trials; called by the stage `statistics`."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from iqray.identity import hash_content
from iqray.results.ranks import COMBINATION
from iqray.results.trial_distances import read_category_distances
from iqray.statistics.image_bootstrap import NUM_DRAWS, TrialSample, draw_cells
from iqray.statistics.intervals import build_intervals
from iqray.storage import Storage

_SUBSET = ["dataset", "metric", "subset"]


def compute_intervals(storage: Storage, cells: pd.DataFrame) -> pd.DataFrame:
    """Table of `schemas.INTERVALS`. The same trials give the same numbers.

    Args:
        storage: with the trials of the cells.
        cells: a table of `schemas.CELLS`. A cell that lacks a seed is not drawn.
    """
    return build_intervals(cells, dict(_draw(storage, cells)))


def _draw(
    storage: Storage, cells: pd.DataFrame
) -> Iterator[tuple[tuple[str, str, str, str], dict[str, np.ndarray]]]:
    num_seeds = cells["seed"].nunique()
    finite = cells[(cells["status"] == "ok") & cells["distance"].notna()]
    is_complete = finite.groupby([*COMBINATION, "subset"])["seed"].transform("size") == num_seeds
    for names, rows in finite[is_complete].groupby(_SUBSET, sort=False):
        dataset, metric, subset = map(str, names)
        networks = {
            str(architecture): [_read_sample(storage, trial_id) for trial_id in own["trial_id"]]
            for architecture, own in rows.groupby("architecture", sort=False)
        }
        # Subsets of the same categories share their trials, and so their draws.
        categories = _list_categories(storage, rows["trial_id"].iloc[0])
        seed = int(hash_content([dataset, categories])[:16], 16)
        drawn = draw_cells(networks, np.random.default_rng(seed), NUM_DRAWS)
        for architecture, values in drawn.items():
            yield (dataset, architecture, metric, subset), values


def _list_categories(storage: Storage, trial_id: str) -> list[str]:
    predictions = storage.read_table(f"trials/{trial_id}/predictions.parquet", ["category"])
    return sorted(set(predictions["category"].to_pylist()))


def _read_sample(storage: Storage, trial_id: str) -> TrialSample:
    columns = ["category", "category_rank"]
    predictions = storage.read_table(f"trials/{trial_id}/predictions.parquet", columns)
    _, targets = np.unique(predictions["category"].to_pylist(), return_inverse=True)
    distances, matched_targets = read_category_distances(storage, trial_id)
    return TrialSample(predictions["category_rank"].to_numpy(), targets, distances, matched_targets)
