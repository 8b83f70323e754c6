import pytest

from iqray.figures import colour_of, render_png, render_svg
from iqray.report_figures import build_figures
from iqray.study import SUBSET_NAMES
from tests.report_inputs import make_inputs


@pytest.fixture(scope="module")
def clean_inputs():
    return make_inputs()


def test_figures_render_to_the_same_bytes(clean_inputs):
    def render():
        figures = build_figures(
            clean_inputs.rank_counts,
            clean_inputs.cells,
            clean_inputs.category_stats,
            clean_inputs.subsets,
            clean_inputs.mds_examples,
        )
        return {item.name: (render_png(item.figure), render_svg(item.figure)) for item in figures}

    first = render()
    assert first == render()
    assert len(first) == 5
    assert all(png.startswith(b"\x89PNG") and b"<svg" in svg for png, svg in first.values())


def test_rank_figure_has_one_bar_segment_per_count(clean_inputs):
    figure = next(
        build_figures(
            clean_inputs.rank_counts,
            clean_inputs.cells,
            clean_inputs.category_stats,
            clean_inputs.subsets,
            [],
        )
    ).figure
    for axes in figure.axes:
        assert sum(bar.get_height() for bar in axes.patches) == 16  # 4 combinations x 4 subsets
    assert len({colour_of(subset) for subset in SUBSET_NAMES}) == 4
