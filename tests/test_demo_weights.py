"""The fitted stand-ins, through the same loading path and scorer as real weights."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from iqray.demo.fit_images import FIT_PATTERNS, FitImages, draw_fit_images
from iqray.demo.images import plan_categories
from iqray.demo.weights import DEMO_WEIGHTS, FITS
from iqray.identity import compute_sha256
from iqray.metrics.networks import load_network
from iqray.metrics.registry import find_metric
from iqray.metrics.scorer import Scorer
from iqray.metrics.weights import find_weights, write_weights_manifest
from iqray.study import PAPER_METRICS

pytestmark = pytest.mark.slow

# Shapes of the demo's own datasets.
SIZES_PX = ((128, 192), (192, 128), (136, 200), (144, 192), (192, 144), (128, 208))
NUM_HELD_OUT = 40


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the study's tasks; more threads only wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("weights") / "fitted"
    for fit in FITS.values():
        fit(directory, 0)
    write_weights_manifest(directory, DEMO_WEIGHTS)
    return directory


@pytest.fixture(scope="module")
def held_out() -> FitImages:
    """Images with the demo's patterns, which no fit saw, of another seed."""
    patterns = {plan.texture.pattern for variant in "ab" for plan in plan_categories(variant)}
    assert not patterns & set(FIT_PATTERNS)
    return draw_fit_images(NUM_HELD_OUT, 101, SIZES_PX, tuple(sorted(patterns)))


def test_there_is_a_fit_for_each_of_the_papers_metrics():
    assert set(FITS) == set(PAPER_METRICS)


@pytest.mark.parametrize("metric", PAPER_METRICS)
def test_scores_order_held_out_severity(directory, held_out, metric):
    weights = find_weights(directory, metric)
    assert weights.provenance == DEMO_WEIGHTS
    results = Scorer(weights).score(held_out.images)
    assert [result.status for result in results] == ["ok"] * NUM_HELD_OUT
    correlation = spearmanr([result.score for result in results], held_out.severities)[0]
    sign = 1 if find_metric(metric).lower_better else -1
    assert sign * correlation >= 0.6, f"{metric}: Spearman {correlation:.3f} with severity"


def test_prompts_of_every_pair_differ_along_one_direction(directory):
    network = load_network(find_weights(directory, "clipiqa"))
    with torch.no_grad():
        text = network.clip_model[0].encode_text(network.prompt_pairs)
    good, bad = torch.nn.functional.normalize(text).reshape(5, 2, -1).unbind(1)
    differences = good - bad
    # Good and bad are at right angles, whatever float16 costs.
    torch.testing.assert_close(differences.norm(dim=1), torch.full((5,), 2**0.5), rtol=1e-2, atol=0)
    directions = torch.nn.functional.normalize(differences)
    assert (directions @ directions.T).min() > 0.99


@pytest.mark.parametrize("metric", ["brisque", "cnniqa"])
def test_same_seed_same_file(directory, tmp_path, metric):
    FITS[metric](tmp_path, 0)
    (path,) = tmp_path.iterdir()
    assert compute_sha256(path) == compute_sha256(directory / path.name)


def test_another_seed_gives_another_fit_of_about_the_same_scores(directory, held_out, tmp_path):
    FITS["brisque"](tmp_path, 1)
    scores = [
        [result.score for result in Scorer(find_weights(folder, "brisque")).score(held_out.images)]
        for folder in (directory, tmp_path)
    ]
    assert not np.allclose(*scores, rtol=1e-3)
    assert spearmanr(*scores)[0] > 0.9
