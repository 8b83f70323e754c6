"""Finished tables of an invented study, from which the tests make reports."""

import dataclasses
import itertools

import numpy as np
import pandas as pd

from iqray.benchmarks.invented_results import (
    count_by_definition,
    make_cross_distances,
    place_controls,
)
from iqray.report.figures.pictures import CentroidMap
from iqray.report.inputs import ReportInputs
from iqray.results.cells import build_cells
from iqray.results.ranks import COMBINATION, MEASURES, count_ranks
from iqray.settings.subset import SUBSET_NAMES
from iqray.statistics.diagnostics import build_diagnostics, diagnose_subsets
from iqray.statistics.intervals import build_intervals
from iqray.statistics.statistics import compute_statistics

DATASETS = ("demo_a", "demo_b")
ARCHITECTURES = ("alexnet", "resnet50")
METRICS = ("brisque", "musiq")
CATEGORIES = ("<script>alert(1)</script>", *(f"category_{letter}" for letter in "bcdefghijklm"))


def make_study_cells(seeds=(0, 1)):
    return [
        {
            "dataset": dataset,
            "architecture": architecture,
            "metric": metric,
            "subset": subset,
            "seed": seed,
            "trial_id": f"{dataset}-{architecture}-{metric}-{subset}-{seed}",
        }
        for dataset, architecture, metric, subset, seed in itertools.product(
            DATASETS, ARCHITECTURES, METRICS, SUBSET_NAMES, seeds
        )
    ]


def make_results(study_cells, num_test_images=2500, effect=0):
    """Results that are drawn, and by `effect` larger from one subset to the next."""
    generator = np.random.default_rng(4)
    num_pairs = num_test_images * (num_test_images - 1) // 2
    results = {}
    for cell in study_cells:
        extra = effect * SUBSET_NAMES.index(cell["subset"])
        mean_distance = generator.uniform(10, 20) + 10 * extra
        results[cell["trial_id"]] = {
            "status": "ok",
            "reason": "",
            "num_categories": 50,
            "num_test_images": num_test_images,
            "top1": generator.uniform(0.3, 0.6) + extra,
            "top5": generator.uniform(0.6, 0.9) + extra,
            "distance": mean_distance * num_pairs,
            "mean_distance": mean_distance,
            "final_loss": 1.0,
            "train_s": 60.0,
        }
    return results


def make_category_tables(weights):
    generator = np.random.default_rng(6)
    stats, subsets = [], []
    for dataset, metric in itertools.product(DATASETS, METRICS):
        shared = {"dataset": dataset, "metric": metric, "weights": weights[metric]}
        for category in CATEGORIES:
            mean, max_min = generator.uniform(20, 60), generator.uniform(5, 30)
            stats.append({**shared, "category": category, "mean": mean, "max_min": max_min})
        for offset, subset in enumerate(SUBSET_NAMES):
            statistic = "mean" if subset.startswith("avg") else "max_min"
            subsets += [
                {
                    **shared,
                    "subset": subset,
                    "position": position,
                    "category": category,
                    "statistic": statistic,
                    "value": 1.0,
                    "num_train_images": 100,
                    "num_test_images": 50,
                }
                for position, category in enumerate(CATEGORIES[offset : offset + 3], start=1)
            ]
    return pd.DataFrame(stats), pd.DataFrame(subsets)


def make_quantiles(weights):
    """Scores from 0 to 100 whose images are numbered by their quantile."""
    shares = np.linspace(0, 1, 101)
    parts = [
        pd.DataFrame(
            {
                "dataset": dataset,
                "metric": metric,
                "lower_better": metric == "brisque",
                "quantile": shares,
                "score": 100 * shares,
                "image_id": range(101),
                "category": CATEGORIES[0],
                "path": [f"{number}.jpg" for number in range(101)],
                "weights": weights[metric],
            }
        )
        for dataset, metric in itertools.product(DATASETS, METRICS)
    ]
    return pd.concat(parts)


def make_epochs(study_cells):
    return pd.DataFrame(
        [
            {"trial_id": cell["trial_id"], "epoch": epoch, "loss": 3 / epoch, "top1": 0.1 * epoch}
            for cell in study_cells
            for epoch in (1, 2, 3)
        ]
    )


def draw_measures(cells, num_draws=50):
    """Draws around the value of every cell that has one at all seeds, as a bootstrap gives them."""
    generator = np.random.default_rng(8)
    return {
        key: {name: own[name].mean() * generator.normal(1, 0.05, num_draws) for name in MEASURES}
        for key, own in cells.groupby([*COMBINATION, "subset"])
        if (own["status"] == "ok").all()
    }


def add_other_networks(table):
    """Rows of an untrained network and of a checkpoint, after those of trials.

    Args:
        table: of `schemas.CROSS_DISTANCES`, with rows of trials alone.
    """
    own = table[table["trained_on"] == SUBSET_NAMES[0]]
    others = [
        own.assign(trained_on=name, trial_id=None, distance=own["distance"] * scale)
        for name, scale in (("untrained", 1e6), ("checkpoint:mine", 0.1))
    ]
    return pd.concat([table, *others], ignore_index=True)


def make_inputs(weights=None, seeds=(0, 1), results=None, **changes):
    """Inputs of a study with nothing to distrust, unless told otherwise."""
    weights = weights or dict.fromkeys(METRICS, "published weights")
    study_cells = make_study_cells(seeds)
    cells = build_cells(study_cells, results or make_results(study_cells), weights)
    stats, subsets = make_category_tables(weights)
    image_counts = pd.DataFrame(
        [[name, split, 13, 1300, 0] for name in DATASETS for split in ("test", "train")],
        columns=["dataset", "split", "num_categories", "num_images", "num_unreadable"],
    )
    score_counts = pd.DataFrame(
        [[name, metric, "ok", 1300] for name in DATASETS for metric in METRICS],
        columns=["dataset", "metric", "status", "num_images"],
    )
    example = CentroidMap(
        title="demo_a, alexnet, musiq, avg_high",
        categories=CATEGORIES[:10],
        coordinates=np.random.default_rng(2).normal(size=(10, 2)),
        stress=0.123,
        weights=weights["musiq"],
    )
    inputs = ReportInputs(
        study="example",
        cells=cells,
        rank_counts=count_ranks(cells),
        definition_counts=count_by_definition(cells),
        category_stats=stats,
        subsets=subsets,
        statistics=compute_statistics(cells),
        diagnostics=build_diagnostics(diagnose_subsets(subsets)),
        intervals=build_intervals(cells, draw_measures(cells)),
        controls=place_controls(cells),
        cross_distances=make_cross_distances(cells),
        score_quantiles=make_quantiles(weights),
        image_counts=image_counts,
        score_counts=score_counts,
        weights=weights,
        recipe="paper",
        is_preview=False,
        notes=[],
        stage_s={"scores": 125.0, "trials": 4000.0},
        versions={"torch": "2.15.0"},
        num_leaked=0,
        epochs=make_epochs(study_cells),
        machines=["NVIDIA H200"],
        centroid_maps=[example],
    )
    return dataclasses.replace(inputs, **changes)
