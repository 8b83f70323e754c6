"""Cells carry what trials returned, and the end-of-run text says what must be said."""

import itertools

import pandas as pd
import pyarrow as pa
import pytest

from iqray.results.cells import build_cells, count_images, summarise, tabulate_firsts
from iqray.results.ranks import average_over_seeds, count_ranks
from iqray.schemas import CELLS, RANK_COUNTS
from iqray.settings.subset import SUBSET_NAMES

ARCHITECTURES = ("alexnet", "vgg16")


@pytest.fixture
def study_cells():
    return [
        {
            "dataset": "d",
            "architecture": architecture,
            "metric": "niqe",
            "subset": subset,
            "seed": 0,
            "trial_id": f"{architecture}-{subset}",
        }
        for architecture, subset in itertools.product(ARCHITECTURES, SUBSET_NAMES)
    ]


@pytest.fixture
def trial_results(study_cells):
    """Later subsets do better; avg_high and avg_low tie on top-5."""
    return {
        cell["trial_id"]: {
            "status": "ok",
            "reason": "",
            "num_categories": 8,
            "num_test_images": 80,
            "top1": 0.2 + 0.1 * position,
            "top5": max(0.7, 0.6 + 0.1 * position),
            "distance": 1000.0 * (position + 1),
            "mean_distance": 2.0,
            "final_loss": 1.5,
            "train_s": 3.0,
        }
        for cell, position in zip(study_cells, itertools.cycle(range(4)))
    }


WEIGHTS = {"niqe": "pyiqa niqe"}


def test_cells_match_their_schema(study_cells, trial_results):
    del trial_results["vgg16-avg_low"]
    cells = build_cells(study_cells, trial_results, WEIGHTS)
    table = pa.Table.from_pandas(cells, schema=CELLS, preserve_index=False)
    assert table["top1"].null_count == 1
    assert table["num_categories"].null_count == 1
    assert table["rank_top1"].null_count == 4
    assert list(cells.columns) == CELLS.names


def test_rank_counts_match_their_schema(study_cells, trial_results):
    counts = count_ranks(build_cells(study_cells, trial_results, WEIGHTS))
    table = pa.Table.from_pandas(counts, schema=RANK_COUNTS, preserve_index=False)
    assert table.num_rows == len(counts)
    assert sum(column.null_count for column in table.columns) == 0


def test_values_ranks_and_chance(study_cells, trial_results):
    cells = build_cells(study_cells, trial_results, WEIGHTS)
    assert cells["top1"].tolist() == pytest.approx([0.2, 0.3, 0.4, 0.5] * 2)
    assert cells["rank_top1"].tolist() == [4, 3, 2, 1] * 2
    assert cells["rank_top5"].tolist() == [3.5, 3.5, 2, 1] * 2
    assert cells["chance_top1"].unique().tolist() == [1 / 8]
    assert cells["chance_top5"].unique().tolist() == [5 / 8]
    assert cells["weights"].unique().tolist() == ["pyiqa niqe"]


def test_top5_is_certain_with_few_categories(study_cells, trial_results):
    trial_results["alexnet-avg_high"]["num_categories"] = 3
    cells = build_cells(study_cells, trial_results, WEIGHTS)
    assert cells.loc[0, "chance_top5"] == 1
    assert cells.loc[0, "chance_top1"] == pytest.approx(1 / 3)


def test_missing_and_failed_trials_are_named(study_cells, trial_results):
    del trial_results["alexnet-avg_high"]
    trial_results["vgg16-range_low"] = {"status": "failed", "reason": "out of memory"}
    cells = build_cells(study_cells, trial_results, WEIGHTS)
    assert cells["status"].tolist() == ["missing", *["ok"] * 6, "failed"]
    assert "alexnet-avg_high" in cells.loc[0, "reason"]
    assert cells.loc[7, "reason"] == "out of memory"
    assert cells[["rank_top1", "rank_top5", "rank_distance"]].isna().all(axis=None)


def test_what_did_not_converge_is_kept_and_marked_but_not_ranked(study_cells, trial_results):
    trial_results["alexnet-avg_high"] |= {
        "status": "not_converged",
        "reason": "stuck at chance level",
        "top1": 0.125,
        "num_restarts": 1,
        "learning_rate_factor": 0.5,
    }
    cells = build_cells(study_cells, trial_results, WEIGHTS)
    row = cells.loc[0]
    assert (row["status"], row["reason"]) == ("not_converged", "stuck at chance level")
    assert (row["top1"], row["num_restarts"], row["learning_rate_factor"]) == (0.125, 1, 0.5)
    ranks = cells[["rank_top1", "rank_top5", "rank_distance"]].isna().all(axis=1)
    assert ranks.tolist() == [True] * 4 + [False] * 4
    averages = average_over_seeds(cells)
    assert averages["top1"].isna().tolist() == [True] + [False] * 7


def test_a_number_that_is_not_finite_is_null_and_unranks_only_its_measure(
    study_cells, trial_results
):
    trial_results["alexnet-avg_high"]["distance"] = float("inf")
    cells = build_cells(study_cells, trial_results, WEIGHTS)
    assert cells["distance"].isna().tolist() == [True] + [False] * 7
    assert cells["rank_distance"].isna().tolist() == [True] * 4 + [False] * 4
    assert cells["rank_top1"].notna().all()
    assert cells["status"].eq("ok").all()


def test_an_unfinished_grid_still_makes_tables(study_cells):
    cells = build_cells(study_cells, {}, WEIGHTS)
    assert cells["status"].eq("missing").all()
    assert tabulate_firsts(count_ranks(cells))["combinations"].tolist() == [0, 0, 0]
    assert "8 of 8 cells have no result" in summarise(cells)


def test_first_places_and_shared_ones_add_up(study_cells, trial_results):
    for architecture in ARCHITECTURES:
        trial_results[f"{architecture}-range_high"]["top1"] = 0.5
    firsts = tabulate_firsts(count_ranks(build_cells(study_cells, trial_results, WEIGHTS)))
    assert firsts.loc["distance"].tolist() == [0, 0, 0, 2, 0, 2]
    assert firsts.loc["top1"].tolist() == [0, 0, 0, 0, 2, 2]


def test_summary_is_short_plain_and_complete(study_cells, trial_results):
    text = summarise(build_cells(study_cells, trial_results, WEIGHTS))
    lines = text.splitlines()
    assert text.isascii()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:]] == ["distance", "top-1", "top-5"]
    assert lines[2].split() == ["distance", "0", "0", "0", "2", "0", "2"]
    assert "demo weights" not in text
    assert "no result" not in text


def test_summary_says_what_weakens_it(study_cells, trial_results):
    trial_results["alexnet-range_high"]["top1"] = 0.5
    del trial_results["vgg16-avg_low"]
    text = summarise(build_cells(study_cells, trial_results, {"niqe": "demo weights"}))
    assert "shared: the first place is a tie" in text
    assert "1 of 8 cells have no result" in text
    assert "demo weights" in text


def test_images_are_counted():
    manifest = pd.DataFrame(
        {
            "dataset": ["d"] * 4,
            "split": ["train", "train", "train", "test"],
            "category": ["ant", "ant", "yak", "ant"],
            "image_id": [1, 2, 3, 4],
            "status": ["ok", "decode_error", "ok", "ok"],
        }
    )
    images = count_images([pa.Table.from_pandas(manifest)]).set_index("split")
    assert images.loc["train", ["num_categories", "num_images", "num_unreadable"]].tolist() == [
        2,
        3,
        1,
    ]
