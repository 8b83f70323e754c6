"""Control subsets keep what they promise, and real subsets find their place among them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from iqray import schemas
from iqray.errors import StudyError
from iqray.results.cells import build_cells
from iqray.results.controls import (
    choose_controls,
    compare_cells,
    compute_null_limit,
    place_cells,
)
from iqray.results.difficulty import read_difficulty
from iqray.settings.subset import SUBSET_NAMES
from iqray.storage import Storage
from tests.report_inputs import make_results, make_study_cells

COUNTS = {f"c{number:02d}": 100 + 10 * number for number in range(40)}
CHOSEN = {
    ("niqe", "avg_high"): ["c00", "c01", "c02"],
    ("niqe", "avg_low"): ["c37", "c38", "c39"],
}


def choose(counts=COUNTS, difficulty=None, **num_draws):
    subsets = pd.DataFrame(
        [
            {"dataset": "d", "metric": metric, "subset": subset, "category": category}
            for (metric, subset), categories in CHOSEN.items()
            for category in categories
        ]
    )
    return choose_controls(subsets, counts, num_draws, difficulty or {})


def test_random_subsets_belong_to_no_metric_and_differ():
    table = choose(random=5)
    assert table["metric"].isna().all()
    draws = table.groupby("draw")["category"].agg(frozenset)
    assert [len(categories) for categories in draws] == [3] * 5
    assert len(set(draws)) == 5
    pd.testing.assert_frame_equal(table, choose(random=5))
    pd.testing.assert_frame_equal(table[table["draw"] <= 2], choose(random=2))


def test_random_subsets_draw_every_category_alike():
    drawn = choose(random=400)["category"].value_counts().reindex(list(COUNTS), fill_value=0)
    # 30 expected of each; 15 and 45 are three standard deviations away.
    assert drawn.between(12, 48).all()


def test_matched_subsets_are_alike_and_none_of_the_real_ones():
    table = choose(count_matched=20)
    for names, rows in table.groupby(["metric", "subset", "draw"]):
        real = CHOSEN[names[:2]]
        assert len(set(rows["category"])) == 3
        assert not set(rows["category"]) & set(real)
        assert sorted(rows["matched_category"]) == real
    assert (table["value"] == table["category"].map(COUNTS)).all()
    assert (table["matched_value"] == table["matched_category"].map(COUNTS)).all()
    means = table.groupby("subset")["value"].mean()
    assert means["avg_high"] < 200  # of 100 to 490; random ones have 295
    assert means["avg_low"] > 390


def test_difficulty_is_matched_where_counts_say_something_else():
    difficulty = {name: -count for name, count in COUNTS.items()}
    equal = dict.fromkeys(COUNTS, 100)
    means = choose(equal, difficulty, difficulty_matched=20).groupby("subset")["value"].mean()
    assert means["avg_high"] > -200
    assert means["avg_low"] < -390


def test_equal_categories_are_drawn_by_chance():
    """Not always the first ones in the alphabet."""
    drawn = choose(dict.fromkeys(COUNTS, 100), count_matched=60)["category"]
    assert drawn.nunique() == 40


@pytest.mark.parametrize("control", ["random", "count_matched"])
def test_too_few_categories_are_explained(control):
    few = {name: COUNTS[name] for name in ("c00", "c01")}
    with pytest.raises(StudyError, match=rf"controls.{control}: \d categories of 'd' can be drawn"):
        choose(few, **{control: 1})


@pytest.fixture
def cells():
    study_cells = make_study_cells()
    return build_cells(study_cells, make_results(study_cells), {"brisque": "real", "musiq": "real"})


def make_control_cells(cells, values, control="random"):
    """The same values of every measure at both seeds, for every cell or dataset."""
    keys = ["dataset", "architecture"] + ([] if control == "random" else ["metric", "subset"])
    rows = [
        {
            "metric": None,
            "subset": None,
            **place,
            "control": control,
            "draw": draw,
            "seed": seed,
            "trial_id": "t",
            "status": "ok",
            "reason": "",
            **dict.fromkeys(("top1", "top5", "distance"), value),
        }
        for place in cells[keys].drop_duplicates().to_dict("records")
        for draw, value in enumerate(values, start=1)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)[schemas.CONTROL_CELLS.names]


@pytest.mark.parametrize("control", ["random", "count_matched"])
def test_places_follow_their_definitions(cells, control):
    cells["top1"] = 0.5
    draws = [0.1, 0.3, 0.5, 0.7]
    placed = place_cells(cells, make_control_cells(cells, draws, control))
    table = pa.Table.from_pandas(placed, schema=schemas.CONTROLS, preserve_index=False)
    assert table.num_rows == 2 * 2 * 2 * 4 * 3
    assert set(placed["subset"]) == set(SUBSET_NAMES)
    top1 = placed[placed["measure"] == "top1"].iloc[0]
    assert (top1["value"], top1["num_draws"]) == (0.5, 4)
    assert top1["mean"] == pytest.approx(0.4)
    assert top1["difference"] == pytest.approx(0.1)
    assert top1["sd"] == pytest.approx(np.std(draws, ddof=1))
    assert top1["z"] == pytest.approx(0.1 / np.std(draws, ddof=1))
    assert top1["percentile"] == 62.5  # two below, one equal


def test_null_limits_of_worked_numbers():
    """By the table of Student's t: 12.706 of 1 degree of freedom, 2.776 of 4, 2.093 of 19."""
    limits = compute_null_limit(pd.Series([0, 1, 2, 5, 20]))
    assert limits[:2].isna().all()
    expected = [12.706 * np.sqrt(1.5), 2.776 * np.sqrt(1.2), 2.093 * np.sqrt(1.05)]
    assert limits[2:].tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("num_draws", [2, 3, 6, 20])
def test_one_more_control_is_outside_in_one_of_twenty(num_draws):
    generator = np.random.default_rng(num_draws)
    values = generator.normal(size=(4000, num_draws + 1))
    draws, more = values[:, 1:], values[:, 0]
    z = (more - draws.mean(axis=1)) / draws.std(axis=1, ddof=1)
    [limit] = compute_null_limit(pd.Series([num_draws]))
    # Four standard errors of 0.05 at 4,000 simulations are 0.014.
    assert np.mean(np.abs(z) > limit) == pytest.approx(0.05, abs=0.014)


def make_own_controls(cells, **values):
    """The same value of every measure at both seeds, for every cell, by kind of control."""
    return pd.concat(
        [make_control_cells(cells, [value], control) for control, value in values.items()]
    )


def test_controls_of_the_same_categories_are_subtracted(cells):
    cells["top1"] = 0.5
    controls = make_own_controls(cells, best_half=0.75, worst_half=0.25, untrained=0.125)
    assert place_cells(cells, controls).empty
    compared = compare_cells(cells, controls)
    pa.Table.from_pandas(compared, schema=schemas.CONTROLS, preserve_index=False)
    assert len(compared) == 2 * (2 * 2 * 2 * 4 * 3)
    halves = compared[compared["control"] == "image_halves"]
    assert (halves["difference"] == 0.5).all()
    untrained = compared[(compared["control"] == "untrained") & (compared["measure"] == "top1")]
    assert (untrained["value"] == 0.5).all()
    assert (untrained["difference"] == 0.375).all()
    assert (compared["num_draws"] == 1).all()
    assert compared["z"].isna().all()
    assert compared["percentile"].isna().all()
    assert compare_cells(cells, controls[:0]).empty


def test_a_half_that_failed_has_no_difference(cells):
    controls = make_own_controls(cells, best_half=0.75, worst_half=0.25).reset_index(drop=True)
    failed = controls.index[controls["control"] == "worst_half"][0]
    controls.loc[failed, "status"] = "failed"
    compared = compare_cells(cells, controls)
    lost = compared[compared["difference"].isna()]
    assert len(lost) == 3  # measures
    assert (lost["num_draws"] == 0).all()


def test_values_that_differ_by_the_order_of_a_sum_are_equal(cells):
    cells["top1"] = (0.1 + 0.2 + 0.3) / 3
    controls = make_control_cells(cells, [0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 0.2 + 0.3 + 0.1])
    controls["top1"] /= 3
    top1 = place_cells(cells, controls).query("measure == 'top1'")
    assert (top1["percentile"] == 50).all()
    assert top1["z"].isna().all()


def test_what_has_no_value_has_no_place(cells):
    cells.loc[0, "status"] = "failed"
    controls = make_control_cells(cells, [0.1, 0.3])
    controls.loc[controls["draw"] == 2, "status"] = "not_converged"
    placed = place_cells(cells, controls)
    lost = placed.iloc[0]
    assert np.isnan(lost["value"])
    assert np.isnan(lost["percentile"])
    assert (placed["num_draws"] == 1).all()
    assert placed["z"].isna().all()
    assert placed.iloc[4:]["percentile"].notna().all()


def test_difficulty_comes_from_the_users_file(tmp_path):
    path = tmp_path / "hard.csv"
    path.write_text("dataset,category,difficulty\nd,007,0.5\nd,b,0.25\nother,c,1\n")
    assert read_difficulty(str(path), "d", {"007", "b"}) == {"007": 0.5, "b": 0.25}
    with pytest.raises(StudyError, match="no difficulty of 1 categories of 'd', such as 'c'"):
        read_difficulty(str(path), "d", {"b", "c"})
    path.write_text("category,difficulty\nb,1\n")
    with pytest.raises(StudyError, match="no CSV file with columns dataset"):
        read_difficulty(str(path), "d", {"b"})
    with pytest.raises(StudyError, match="no CSV file with columns dataset"):
        read_difficulty(str(tmp_path / "none.csv"), "d", {"b"})
    path.write_bytes("dataset,category,difficulty\nd,k\u00e4fer,1\n".encode("latin-1"))
    with pytest.raises(StudyError, match=r"no CSV file with columns .*'utf-8' codec"):
        read_difficulty(str(path), "d", {"b"})


def test_a_difficulty_on_an_object_store_is_asked_for_by_its_folder(tmp_path):
    Storage(str(tmp_path)).write_bytes("hard.csv", b"dataset,category,difficulty\nd,a,1\n")
    assert read_difficulty(f"file://{tmp_path}/hard.csv", "d", {"a"}) == {"a": 1.0}
