"""Draws of finished trials, read from an output root."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from iqray.results.trial_distances import write_distances
from iqray.stages.intervals import compute_intervals
from iqray.storage import Storage
from tests.small_trials import make_trial

MEASURED = ("distance", "mean_distance", "top1", "top5", "chance_top1", "chance_top5")
CATEGORIES = ["ant", "ant", "cat", "cat", "dog", "dog"]


def write_trial(storage: Storage, seed: int) -> str:
    generator = np.random.default_rng(seed)
    images = pa.table({"image_id": range(6), "category": CATEGORIES})
    trial = dataclasses.replace(make_trial(seed), num_matched=2)
    write_distances(storage, trial, images, generator.normal(size=(6, 4)).astype(np.float32))
    ranks = pa.array(generator.integers(1, 4, 6), pa.int32())
    predictions = images.append_column("category_rank", ranks)
    storage.write_table(f"trials/{trial.trial_id}/predictions.parquet", predictions)
    return trial.trial_id


def test_subsets_that_share_a_trial_share_its_draws(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    shared_id, other_id = write_trial(storage, 0), write_trial(storage, 1)
    places = [("niqe", "avg_high", shared_id), ("niqe", "avg_low", shared_id)]
    places += [("niqe", "range_high", other_id), ("brisque", "avg_high", shared_id)]
    rows = [
        {
            "dataset": "d",
            "architecture": "alexnet",
            "metric": metric,
            "subset": subset,
            "trial_id": trial_id,
            "seed": 0,
            "status": "ok",
            "weights": "invented",
            **dict.fromkeys(MEASURED, 1.0 if trial_id == shared_id else 0.5),
        }
        for metric, subset, trial_id in places
    ]
    found = compute_intervals(storage, pd.DataFrame(rows)).query("scope == 'cell'")
    for _, own in found.groupby("measure"):
        shared = own[own["subset"].isin(["avg_high", "avg_low"])]
        assert shared[["low", "high"]].nunique().tolist() == [1, 1]
        tied = shared[shared["metric"] == "niqe"]
        assert (tied["first_share"] == 0).all()  # never before each other
