"""What the page says of controls follows their table."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from iqray.report.control_tables import list_control_caveats, tabulate_controls
from iqray.report.figures.controls import plot_controls
from tests.report_inputs import make_inputs, make_results, make_study_cells


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


def judge(inputs, controls, control_cells=None):
    cells = inputs.control_cells if control_cells is None else control_cells
    return list_control_caveats(controls, inputs.rank_counts, cells)


def test_the_table_sums_up_places(inputs):
    table = tabulate_controls(inputs.controls)
    assert len(table.rows) == 3 * 2 * 4  # measures, datasets, subsets
    places = inputs.controls.set_index(["measure", "dataset", "subset"]).sort_index()
    own = places.loc["top1", "demo_b", "avg_low"]
    row = table.frame[
        (table.frame["measure"] == "top-1")
        & (table.frame["dataset"] == "demo_b")
        & (table.frame["subset"] == "avg_low")
    ].iloc[0]
    assert row["num_draws"] == 6
    assert row["median z"] == pytest.approx(own["z"].median())
    assert row["median percentile"] == pytest.approx(own["percentile"].median())
    limit = t.ppf(0.975, 5) * np.sqrt(7 / 6)
    assert row["95 % of controls: |z| below"] == pytest.approx(limit)
    assert row["cells above"] == (own["z"] > limit).sum()
    assert row["cells below"] == (own["z"] < -limit).sum()
    assert row["cells with a z"] == 2 * 2


def test_differences_stand_in_the_table_and_give_no_place(inputs):
    own = inputs.controls.assign(control="untrained", z=None, percentile=None, difference=0.25)
    table = tabulate_controls(pd.concat([inputs.controls, own.astype({"difference": float})]))
    assert "untrained: the subset minus its networks before training" in table.title
    assert "image_halves" not in table.title
    rows = table.frame[table.frame["control"] == "untrained"]
    assert len(rows) == 3 * 2 * 4
    assert (rows["median difference"] == 0.25).all()
    assert (rows["cells with a z"] == 0).all()
    # Neither instead of subsets that no metric has chosen, nor a leader's rival.
    [caveat] = judge(inputs, own)
    assert caveat.title == "No controls"
    both = pd.concat([inputs.controls, own.astype({"z": float, "percentile": float})])
    assert judge(inputs, both) == judge(inputs, inputs.controls)


def test_every_cell_is_a_dot_in_the_figure(inputs):
    panels = plot_controls(inputs.controls).axes
    assert len(panels) == 2 * 3
    drawn = np.concatenate(
        [each.get_offsets()[:, 1] for axes in panels for each in axes.collections]
    )
    np.testing.assert_allclose(np.sort(drawn), np.sort(inputs.controls["z"].astype(float)))
    heights = [bar.get_height() for axes in panels for bar in axes.patches]
    np.testing.assert_allclose(heights, 2 * t.ppf(0.975, 5) * np.sqrt(7 / 6))
    assert len(heights) == len(drawn)


def test_cells_of_one_draw_have_no_band(inputs):
    few = inputs.controls.assign(num_draws=1, z=None)
    bars = [bar for axes in plot_controls(few).axes for bar in axes.patches]
    assert np.isnan([bar.get_height() for bar in bars]).all()
    row = tabulate_controls(few).frame.iloc[0]
    assert np.isnan(row["95 % of controls: |z| below"])
    assert row["cells above"] == row["cells below"] == 0


def test_two_draws_tell_little(inputs):
    """A z of ten is beyond six draws and within two, one more of which it may be."""
    beyond = inputs.controls.assign(z=10.0)
    assert judge(inputs, beyond) == []
    [caveat] = judge(inputs, beyond.assign(num_draws=2))
    assert caveat.title == "Like other categories"


def test_leaders_like_the_controls_are_named(inputs):
    [caveat] = judge(inputs, inputs.controls)
    assert caveat.title == "Like other categories"
    planted = make_inputs(results=make_results(make_study_cells(), effect=1))
    assert judge(planted, planted.controls) == []
    below = planted.controls.assign(z=-planted.controls["z"])
    [caveat] = judge(planted, below)
    assert "on top-1 8 of 8 cells of range_low (random)" in caveat.text
    single = planted.controls.assign(z=None)
    [caveat] = judge(planted, single)
    assert "8 of 8" in caveat.text


def test_a_study_without_controls_is_told_how_to_ask_for_them(inputs):
    [caveat] = judge(inputs, inputs.controls[:0])
    assert caveat.title == "No controls"
    assert "controls.random" in caveat.text


def test_lost_controls_are_counted_by_kind(inputs):
    cells = pd.DataFrame(
        [("random", "ok"), ("random", "failed"), ("random", "missing"), ("untrained", "ok")],
        columns=["control", "status"],
    )
    lost, *_ = judge(inputs, inputs.controls, cells)
    assert lost.title == "Lost controls"
    assert lost.text.startswith("2 of 4 cells of controls did not end well (2 of random)")
    kept = cells.assign(status="ok")
    assert judge(inputs, inputs.controls, kept) == judge(inputs, inputs.controls)
