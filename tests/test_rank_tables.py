"""Ranks by definition, seed and orientation: worked examples, and the subsets of real choices."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from iqray import schemas
from iqray.results.cells import build_cells
from iqray.results.distances import DEFINITIONS, PAPER_DEFINITION
from iqray.results.rank_tables import build_distances, build_ranks, count_definitions
from iqray.results.ranks import count_ranks, rank_cells
from iqray.settings.subset import SUBSET_NAMES
from tests.report_inputs import make_results, make_study_cells

LOWER_BETTER = {"brisque": True, "musiq": False}
COMBINATION = ["dataset", "architecture", "metric"]


def make_tables(seeds=(0, 1)):
    """Cells, and distances whose Euclidean pairs are those of the cells."""
    study_cells = make_study_cells(seeds)
    results = make_results(study_cells)
    generator = np.random.default_rng(9)
    for result in results.values():
        result |= {"top1_images": result["top1"] / 2, "top5_images": 1 - result["top5"]}
    cells = build_cells(study_cells, results, dict.fromkeys(LOWER_BETTER, "real"))
    distances = {
        trial_id: {
            name: {"value": generator.uniform(), "mean": generator.uniform()}
            for name in DEFINITIONS
        }
        | {PAPER_DEFINITION: {"value": result["distance"], "mean": result["mean_distance"]}}
        for trial_id, result in results.items()
    }
    return cells, build_distances(distances)


@pytest.fixture(scope="module")
def tables():
    cells, distances = make_tables()
    return cells, distances, build_ranks(cells, distances, LOWER_BETTER, "quality")


def select(ranks, **values):
    for name, value in values.items():
        ranks = ranks[ranks[name].isna() if value is None else ranks[name] == value]
    return ranks


def test_tables_follow_their_schemas(tables):
    _, distances, ranks = tables
    for frame, schema in (
        (distances, schemas.DISTANCES),
        (ranks, schemas.RANKS),
        (count_definitions(ranks), schemas.DEFINITION_COUNTS),
    ):
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        assert table.num_rows == len(frame) > 0
    keys = [*schemas.RANKS.names[:8]]
    assert not ranks.duplicated(keys).any()
    # 8 combinations x 4 subsets x (2 seeds and their average) x (17 distances and 4 accuracies).
    assert len(ranks) == 2 * 8 * 4 * 3 * 21


@pytest.mark.parametrize("measure", ["distance", "top1", "top5"])
def test_the_papers_definitions_rank_as_the_cells_do(tables, measure):
    cells, _, ranks = tables
    definition = PAPER_DEFINITION if measure == "distance" else "category_mean"
    own = select(ranks, orientation="quality", measure=measure, definition=definition)
    per_seed = own.dropna(subset=["seed"]).merge(cells, on=[*COMBINATION, "seed", "subset"])
    assert len(per_seed) == len(cells)
    assert (per_seed["rank"] == per_seed[f"rank_{measure}"]).all()


def test_counts_of_the_papers_definitions_are_the_rank_counts(tables):
    cells, _, ranks = tables
    counts = select(count_definitions(ranks), orientation="quality")
    first = counts[counts["definition"].isin([PAPER_DEFINITION, "category_mean"])]
    first = first.drop(columns=["orientation", "definition"])
    keys = ["scope", "measure", "subset", "rank"]
    expected = count_ranks(cells).set_index(keys).sort_index()
    pd.testing.assert_frame_equal(first.set_index(keys).sort_index(), expected, check_like=True)


def test_the_other_orientation_swaps_averages_where_lower_is_better(tables):
    _, _, ranks = tables
    keys = ["measure", "definition", *COMBINATION, "seed", "subset"]
    quality, raw = (
        select(ranks, orientation=name).set_index(keys)["rank"].sort_index()
        for name in ("quality", "raw")
    )
    same = quality.index.get_level_values("metric") == "musiq"
    pd.testing.assert_series_equal(quality[same], raw[same])
    back = {"avg_high": "avg_low", "avg_low": "avg_high"}
    renamed = raw[~same].rename(index=lambda name: back.get(name, name), level="subset")
    pd.testing.assert_series_equal(
        quality[~same], renamed.sort_index().reindex(quality[~same].index)
    )


def test_orientations_of_a_raw_study_are_the_same_table(tables):
    """Derived from either side."""
    cells, distances, ranks = tables
    swap = {"avg_high": "avg_low", "avg_low": "avg_high"}
    is_swapped = cells["metric"] == "brisque"
    renamed = cells["subset"].where(~is_swapped, cells["subset"].replace(swap))
    mirrored = build_ranks(cells.assign(subset=renamed), distances, LOWER_BETTER, "raw")
    order = [*schemas.RANKS.names[:8]]
    pd.testing.assert_frame_equal(
        mirrored.sort_values(order, ignore_index=True), ranks.sort_values(order, ignore_index=True)
    )


def test_an_orientation_without_all_its_subsets_is_left_out():
    cells, distances = make_tables()
    kept = cells[cells["subset"] != "avg_low"]
    ranks = build_ranks(kept, distances, LOWER_BETTER, "quality")
    assert select(ranks, orientation="raw")["metric"].unique().tolist() == ["musiq"]
    assert set(select(ranks, orientation="quality")["metric"]) == {"brisque", "musiq"}


def test_averages_need_every_seed_and_ties_are_marked():
    cells, distances = make_tables()
    cells.loc[0, ["status", "reason"]] = "not_converged", "stuck"
    cells.loc[cells["trial_id"].isin(cells["trial_id"][8:16]), "top1"] = 0.5
    ranks = build_ranks(cells, distances, LOWER_BETTER, "quality")
    lost = cells.loc[0]
    own = ranks
    for name in COMBINATION:
        own = own[own[name] == lost[name]]
    assert own[own["seed"] == lost["seed"]]["rank"].isna().all()
    assert own[own["seed"].isna()]["rank"].isna().all()
    assert own[own["seed"] == 1]["rank"].notna().all()
    assert not own[own["rank"].isna()]["is_tied"].any()
    tied = select(ranks, measure="top1", definition="category_mean", is_tied=True)
    assert (tied["rank"] == 2.5).all()
    assert len(tied) == 4 * 3 * 2  # one combination at two seeds and over them, both orientations


def test_ranks_over_seeds_are_of_averages():
    """By hand: averages 0.5, 0.3, 0.4, 0.1."""
    cells, distances = make_tables()
    first = (cells["dataset"] == "demo_a") & (cells["architecture"] == "alexnet")
    first &= cells["metric"] == "musiq"
    values = {"avg_high": (0.9, 0.1), "avg_low": (0.2, 0.4), "range_high": (0.4, 0.4)}
    for subset, seed in itertools.product(SUBSET_NAMES, (0, 1)):
        place = first & (cells["subset"] == subset) & (cells["seed"] == seed)
        cells.loc[place, "top1"] = values.get(subset, (0.1, 0.1))[seed]
    ranks = build_ranks(rank_cells(cells), distances, LOWER_BETTER, "quality")
    own = select(
        ranks,
        orientation="quality",
        dataset="demo_a",
        architecture="alexnet",
        metric="musiq",
        measure="top1",
        definition="category_mean",
        seed=None,
    ).set_index("subset")["rank"]
    assert own[list(SUBSET_NAMES)].tolist() == [1, 3, 2, 4]
