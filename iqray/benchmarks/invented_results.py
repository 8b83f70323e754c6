"""Tables that a study makes of its cells, for cells that were drawn instead of trained."""

import itertools

import numpy as np
import pandas as pd

from iqray.results.controls import place_cells
from iqray.results.rank_tables import build_distances, build_ranks, count_definitions
from iqray.results.ranks import COMBINATION
from iqray.schemas import CROSS_DISTANCES


def place_controls(cells: pd.DataFrame, num_draws: int = 6) -> pd.DataFrame:
    """Places of the cells among random subsets that are drawn like results without an effect."""
    draws = [
        {"dataset": dataset, "architecture": architecture, "draw": draw, "seed": seed}
        for dataset, architecture, draw, seed in itertools.product(
            cells["dataset"].unique(),
            cells["architecture"].unique(),
            range(1, num_draws + 1),
            cells["seed"].unique(),
        )
    ]
    generator = np.random.default_rng(9)
    num_pairs = (cells["distance"] / cells["mean_distance"]).astype("float64").median()
    control_cells = pd.DataFrame(draws).assign(
        control="random",
        metric=None,
        subset=None,
        status="ok",
        top1=generator.uniform(0.3, 0.6, len(draws)),
        top5=generator.uniform(0.6, 0.9, len(draws)),
        distance=generator.uniform(10, 20, len(draws)) * num_pairs,
    )
    return place_cells(cells, control_cells)


def make_cross_distances(cells: pd.DataFrame) -> pd.DataFrame:
    """Rows of every cell and tested subset; the diagonal is the cell's own mean distance."""
    generator = np.random.default_rng(10)
    keys = [*COMBINATION, "seed"]
    trained = cells.rename(columns={"subset": "trained_on"})
    tested = cells[[*keys, "subset", "trial_id"]]
    tested = tested.rename(columns={"subset": "tested_on", "trial_id": "tested_trial_id"})
    rows = trained.merge(tested, on=keys).assign(layer="penultimate")
    is_own = rows["trained_on"] == rows["tested_on"]
    drawn = rows["mean_distance"] * generator.uniform(0.5, 1, len(rows))
    rows["distance"] = rows["mean_distance"].where(is_own, drawn).astype("float64")
    return rows.assign(num_images=rows["num_test_images"])[CROSS_DISTANCES.names]


def count_by_definition(cells: pd.DataFrame) -> pd.DataFrame:
    """Counts by the paper's definition, and by another that orders the subsets the other way."""
    totals = cells.drop_duplicates("trial_id").set_index("trial_id")["distance"].astype("float64")
    distances = build_distances(
        {
            str(trial_id): {
                "euclidean_pairs": {"value": total, "mean": total},
                "participation_ratio": {"value": 1 / total, "mean": 1 / total},
            }
            for trial_id, total in totals.items()
        }
    )
    lower_better = {metric: metric == "brisque" for metric in cells["metric"].unique()}
    return count_definitions(build_ranks(cells, distances, lower_better, "quality"))
