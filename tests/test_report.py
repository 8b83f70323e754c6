"""The page is self-contained, says what weakens it, and shows every name as text."""

import base64
import dataclasses
import itertools
from html.parser import HTMLParser

import pandas as pd
import pyarrow as pa
import pytest

from iqray.report.figure_list import build_figures
from iqray.report.page import compose_report, render_page
from iqray.schemas import CELLS, RANK_COUNTS
from tests.report_inputs import make_inputs, make_results, make_study_cells

VOID_TAGS = {"meta", "img", "link", "br", "hr"}


class Page(HTMLParser):
    """Collects tags and visible text, and checks that tags close in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def find(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self):
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def clean_inputs():
    return make_inputs()


def render_report(inputs, figures=()):
    return render_page(compose_report(inputs, figures))


@pytest.fixture(scope="module")
def clean_html(clean_inputs):
    return render_report(clean_inputs, list(build_figures(clean_inputs)))


def build_page(inputs):
    """Build the page without figures, which these tests do not look at."""
    return Page(render_report(inputs))


def test_page_loads_nothing_from_outside(clean_html):
    page = Page(clean_html)
    sources = [
        attributes[name]
        for _, attributes in page.tags
        for name in ("src", "href", "srcset", "data")
        if name in attributes
    ]
    assert sources
    assert all(source.startswith(("data:image/svg+xml;base64,", "#")) for source in sources)
    assert "url(" not in clean_html
    assert "@import" not in clean_html
    [policy] = [tag["content"] for tag in page.find("meta") if "http-equiv" in tag]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_links_inside_the_page_lead_somewhere(clean_html):
    page = Page(clean_html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.find("a")} <= set(ids)
    labels = [attributes.get("aria-labelledby") for attributes in page.find("section")]
    assert set(labels) <= set(ids)


def test_every_image_has_words_and_is_svg(clean_html):
    images = Page(clean_html).find("img")
    assert len(images) == 13
    for image in images:
        assert len(image["alt"]) > 40
        svg = base64.b64decode(image["src"].partition(",")[2])
        assert b"<svg" in svg
        assert b"<script" not in svg


def test_headings_descend_from_one_title(clean_html):
    page = Page(clean_html)
    assert len(page.find("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_tables_have_as_many_cells_as_headings(clean_html):
    for table in clean_html.split("<table>")[1:]:
        body = table.partition("</table>")[0]
        num_headings = body.count('<th scope="col"')
        rows = body.partition("<tbody>")[2].split("<tr>")[1:]
        assert rows
        assert {row.count("<td") for row in rows} == {num_headings}


def test_category_names_are_text(clean_html):
    assert clean_html.count("<script>") == 1  # the page's own, which sorts tables
    assert "<script>alert(1)</script>, category_b" in Page(clean_html).text


def test_a_clean_study_gets_no_warning():
    """But that of every study with two datasets, which can show little."""
    clean = make_inputs(results=make_results(make_study_cells(), effect=1))
    words = build_page(clean).words
    assert "demo weights" not in words
    assert "no test over 2 datasets can give less than 0.042" in words
    over_datasets = clean.statistics["unit"] == "datasets"
    many = clean.statistics.assign(p_holm=clean.statistics["p_holm"].mask(over_datasets, 0.01))
    words = build_page(dataclasses.replace(clean, statistics=many)).words
    assert "None of the checks of this page found a reason" in words


def test_ranks_that_chance_explains_are_said_to_show_nothing(clean_html):
    assert "No difference shown" in Page(clean_html).words


def test_stored_tables_give_the_same_page():
    study_cells = make_study_cells()
    results = make_results(study_cells)
    del results[study_cells[0]["trial_id"]]
    inputs = make_inputs(results=results)
    cells = pa.Table.from_pandas(inputs.cells, schema=CELLS, preserve_index=False)
    counts = pa.Table.from_pandas(inputs.rank_counts, schema=RANK_COUNTS, preserve_index=False)
    stored = dataclasses.replace(inputs, cells=cells.to_pandas(), rank_counts=counts.to_pandas())
    assert render_report(stored) == render_report(inputs)


def test_first_screen_says_what_was_run(clean_html):
    words = Page(clean_html).words
    for fact in (
        "32 cells, 64 distinct trials",
        "demo_a: 13 categories, 1,300 test, 1,300 train images",
        "Seeds0, 1",
        "3 of 13 categories of demo_a; 3 of 13 categories of demo_b; by mean and max_min",
        "scoring 2 min 5 s; training 1 h 4 min in all trials; all stages 1 h 8 min by the clock",
        "trained on NVIDIA H200",
        "alexnet, resnet50",
        "published weights",
    ):
        assert fact in words, fact


def test_finding_gives_counts_with_n(clean_inputs):
    counts = clean_inputs.rank_counts
    is_first = (counts["scope"] == "all") & (counts["measure"] == "distance")
    firsts = counts[is_first & (counts["rank"] == 1)].set_index("subset")["count"]
    words = build_page(clean_inputs).words
    assert f"in {firsts.max()} of 8 combinations" in words
    assert firsts.idxmax() in words


def test_demo_weights_are_named_wherever_they_matter():
    weights = {"brisque": "demo weights", "musiq": "published weights"}
    inputs = make_inputs(weights)
    page = Page(render_report(inputs, list(build_figures(inputs))))
    assert "brisque scored with demo weights" in page.words
    badges = [tag for tag in page.find("span") if tag.get("class") == "badge"]
    captions = len(page.find("caption"))
    # All tables but images, time, weights (which name them in a row) and versions; all figures
    # but the MDS map, whose metric has published weights.
    assert len(badges) == (captions - 4) + (len(page.find("img")) - 1)


def test_missing_and_failed_cells_are_named():
    study_cells = make_study_cells()
    results = make_results(study_cells)
    absent, failed = study_cells[0]["trial_id"], study_cells[9]["trial_id"]
    del results[absent]
    results[failed] = {"status": "failed", "reason": "loss is <nan>"}
    words = build_page(make_inputs(results=results)).words
    assert "2 of 64 (1 failed, 1 missing)" in words
    assert f"trial {absent} has no result" in words
    assert "loss is <nan>" in words
    assert failed in words


def test_an_unfinished_grid_still_makes_a_page():
    inputs = make_inputs(results={"no such trial": {}})
    words = Page(render_report(inputs, list(build_figures(inputs)))).words
    assert "No combination has a complete distance result yet." in words
    assert "64 of 64 (64 missing)" in words


def test_shared_trials_are_counted():
    study_cells = make_study_cells()
    results = make_results(study_cells)
    cells = make_inputs(results=results).cells
    cells.loc[1:8, "trial_id"] = cells.loc[0, "trial_id"]
    words = build_page(make_inputs(cells=cells)).words
    assert "32 cells, 56 distinct trials" in words
    assert "64 cells and seeds needed only 56 distinct trials" in words


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"seeds": (0,)}, "Single seed:"),
        ({"is_preview": True, "recipe": "demo"}, "the recipe 'demo' trains briefly"),
        ({"num_leaked": 3}, "3 test images are byte for byte also in the training split"),
        (
            {
                "score_counts": pd.DataFrame(
                    [["demo_a", "musiq", "ok", 990], ["demo_a", "musiq", "too_small", 10]],
                    columns=["dataset", "metric", "status", "num_images"],
                )
            },
            "10 of 1,000 scores are absent (10 too_small)",
        ),
    ],
)
def test_caveats_of_settings(changes, warning):
    assert warning in build_page(make_inputs(**changes)).words


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        (
            {"num_test_images": 100},
            "as few as 100 images, where the standard error of an accuracy "
            "can reach 5.0 percentage points",
        ),
        ({"top1": 0.02}, "1 of 64 cells have a top-1 within two standard errors of guessing"),
        ({"num_categories": 4}, "1 cells have five categories or fewer"),
        ({"distance": 1.0, "mean_distance": 1.0}, "in 1 combinations (counted per seed)"),
    ],
)
def test_caveats_of_one_trial(values, warning):
    study_cells = make_study_cells()
    results = make_results(study_cells)
    results[study_cells[5]["trial_id"]] |= values
    assert warning in build_page(make_inputs(results=results)).words


def test_ties_are_said():
    study_cells = make_study_cells()
    results = make_results(study_cells)
    for cell in study_cells[:4]:
        results[cell["trial_id"]]["top1"] = 0.9
    words = build_page(make_inputs(results=results)).words
    assert "Ties: top-1 in 1 of 8 combinations" in words
