"""Leaders are compared with those of every definition and orientation."""

import pytest

from iqray.report.definition_tables import tabulate_survival
from tests.report_inputs import make_inputs, make_results, make_study_cells


@pytest.fixture(scope="module")
def planted():
    """range_low leads everywhere, and by its opposite on the inverse of the distance."""
    return make_inputs(results=make_results(make_study_cells(), effect=1))


def find_rows(inputs):
    table = tabulate_survival(inputs.rank_counts, inputs.definition_counts)
    return {(row[0], row[2]): row[1:2] + row[3:] for row in table.rows}


def test_definitions_that_agree_are_counted(planted):
    rows = find_rows(planted)
    leader, agree, num, others = rows["distance", "quality"]
    assert (leader, agree, num) == ("range_low", "1", "2")
    assert others == "participation_ratio (avg_high)"
    assert rows["distance", "raw"][:3] == ("range_low", "1", "2")
    # The image means are null here, so that only the category means count.
    assert rows["top-1", "quality"] == ("range_low", "1", "1", "–")


def test_the_other_orientation_renames_the_averages(planted):
    # In half of the combinations, those of brisque, avg_high is called avg_low.
    assert find_rows(planted)["distance", "raw"][3] == "participation_ratio (avg_low and avg_high)"


def test_a_study_without_results_has_no_leader():
    assert find_rows(make_inputs(results={"no such trial": {}})) == {}
