import math
import subprocess
import sys

import numpy as np
import pyiqa
import pytest
import torch

from iqray.metrics.networks import load_network
from iqray.metrics.registry import METRICS_WITH_FILES, find_metric
from iqray.metrics.scorer import Scorer, ScoreResult
from iqray.metrics.weights import find_weights
from iqray.schemas import IMAGE_STATUSES
from tests.metric_weights import draw_texture, write_random_weights

# CNN-IQA's only change is a reduction in place of a pooling window.
TOLERANCES = dict.fromkeys(METRICS_WITH_FILES, 1e-5) | {"cnniqa": 1e-6}
SHAPES = [(96, 128), (97, 101), (96, 128), (96, 128)]
BLACK = np.zeros((96, 128, 3), np.uint8)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")
    write_random_weights(path)
    return path


@pytest.fixture(scope="module", params=METRICS_WITH_FILES)
def metric(request):
    return request.param


@pytest.fixture(scope="module")
def scorer(directory, metric):
    return Scorer(find_weights(directory, metric))


@pytest.fixture(scope="module")
def images():
    return [draw_texture(*shape, seed) for seed, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def scores_alone(scorer, images):
    results = [scorer.score([image])[0] for image in images]
    assert [result.status for result in results] == ["ok"] * len(images)
    return [result.score for result in results]


def test_scores_in_a_mixed_batch_equal_scores_alone(scorer, metric, images, scores_alone):
    order = [2, 1, 3, 0]
    mixed = [result.score for result in scorer.score([images[index] for index in order])]
    expected = [scores_alone[index] for index in order]
    assert mixed == pytest.approx(expected, rel=TOLERANCES[metric])


@pytest.mark.parametrize("metric", ["brisque", "niqe"])
def test_statistics_need_no_gpu_where_a_pool_has_one(directory, metric, images):
    weights = find_weights(directory, metric)
    assert Scorer(weights, "cuda").score(images) == Scorer(weights).score(images)


def test_scores_equal_those_of_pyiqas_own_forward(directory, metric, images, scores_alone):
    network = load_network(find_weights(directory, metric))
    theirs = [_run_pyiqa(network, image) for image in images]
    assert scores_alone == pytest.approx(theirs, rel=TOLERANCES[metric])
    assert len(set(scores_alone)) == len(images)


def test_a_bad_image_changes_no_neighbour(scorer, metric, images, scores_alone):
    tiny = draw_texture(5, 300, seed=9)
    results = scorer.score([images[0], BLACK, tiny, images[2]])
    kept = [results[0].score, results[3].score]
    assert kept == pytest.approx([scores_alone[0], scores_alone[2]], rel=TOLERANCES[metric])
    assert results[1].status == scorer.score([BLACK])[0].status
    assert results[2].status == ("ok" if metric == "musiq" else "too_small")


def test_scores_do_not_depend_on_the_number_of_threads(directory, metric):
    images = [draw_texture(*shape, seed) for seed, shape in enumerate([(300, 400), (301, 333)])]
    scores = []
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        results = Scorer(find_weights(directory, metric)).score(images)
        assert torch.get_num_threads() == num_threads
        scores.append([result.score for result in results])
    torch.set_num_threads(1)
    assert scores[1] == pytest.approx(scores[0], rel=TOLERANCES[metric])


def test_a_batch_is_reported_before_it_is_scored(scorer, images):
    reports = []
    scorer.score(images, lambda: reports.append(1))
    assert 1 <= len(reports) <= len(images)


def test_every_kind_of_image_gives_a_row(scorer):
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    gray = np.repeat(draw_texture(96, 128, seed=3)[..., :1], 3, axis=2)
    flat = [np.full((96, 128, 3), value, np.uint8) for value in (128, 255)]
    one_pixel = np.zeros((1, 1, 3), np.uint8)
    results = scorer.score([noise, gray, *flat, one_pixel])
    assert [result.status for result in results[:2]] == ["ok", "ok"]
    for result in results:
        assert result.status in IMAGE_STATUSES
        assert (result.status == "ok") == (result.score is not None) == (result.reason == "")
        assert result.score is None or math.isfinite(result.score)


def test_a_texture_of_the_smallest_side_gets_a_score(scorer):
    side = scorer.info.min_side_px
    assert scorer.score([draw_texture(side, side, seed=0)])[0].status == "ok"


@pytest.mark.parametrize("name", ["clipiqa", "cnniqa", "dbcnn", "niqe"])
def test_a_network_fails_one_pixel_below_the_smallest_side(directory, name):
    side = find_metric(name).min_side_px
    below = draw_texture(side + 3, side - 1, seed=0)
    weights = find_weights(directory, name)
    with pytest.raises(RuntimeError):
        _run_pyiqa(load_network(weights), below)
    reason = f"{side - 1} x {side + 3} px; {name} needs {side} px"
    assert Scorer(weights).score([below]) == [ScoreResult(None, "too_small", reason)]


def test_brisque_gives_textures_a_score_from_its_smallest_side_upwards(directory):
    scorer = Scorer(find_weights(directory, "brisque"))
    side = scorer.info.min_side_px
    results = scorer.score([draw_texture(side, side, seed) for seed in range(20)])
    assert {result.status for result in results} == {"ok"}
    network = load_network(find_weights(directory, "brisque"))
    below = np.stack([draw_texture(10, 10, seed) for seed in range(20)])
    assert network(torch.from_numpy(below).permute(0, 3, 1, 2) / 255).isnan().any()


def test_an_image_that_fails_says_why(directory):
    [result] = Scorer(find_weights(directory, "brisque")).score([BLACK])
    assert result.status == "crashed"
    assert "non zero variance" in result.reason


def test_a_score_that_is_not_finite_is_no_score(directory):
    gray = np.full((96, 128, 3), 128, np.uint8)
    [result] = Scorer(find_weights(directory, "brisque")).score([gray])
    assert result == ScoreResult(None, "not_finite", "brisque gave nan")


def test_a_metric_of_pyiqa_works_by_name(tmp_path, images):
    results = Scorer(find_weights(tmp_path, "piqe")).score(images)
    theirs = pyiqa.create_metric("piqe", device=torch.device("cpu"))
    expected = [_run_pyiqa(theirs, image) for image in images]
    assert [result.score for result in results] == pytest.approx(expected, rel=1e-6)


def test_pyiqa_prints_nothing(tmp_path, capfd):
    Scorer(find_weights(tmp_path, "piqe"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "image", [np.zeros((96, 96, 3), np.float32), np.zeros((96, 96), np.uint8), BLACK[..., :1]]
)
def test_anything_but_uint8_rgb_is_refused(directory, image):
    with pytest.raises(ValueError, match="must be \\(height, width, 3\\) uint8 RGB"):
        Scorer(find_weights(directory, "cnniqa")).score([image])


LARGE_IMAGE = """
import resource, sys
import numpy as np, torch
from iqray.metrics.scorer import Scorer
from iqray.metrics.weights import find_weights

torch.set_num_threads(1)
tile = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
image = np.tile(tile, (14, 15, 1))  # 7000 x 7500 px: 52 megapixels
scorer = Scorer(find_weights(sys.argv[1], sys.argv[2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
[result] = scorer.score([image])
assert result.status == "ok", result
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit_gib"), [("brisque", 3), ("niqe", 3), ("cnniqa", 3)])
def test_52_megapixels_pass_in_bounded_memory(directory, name, limit_gib):
    """CNN-IQA's 50 maps of all pixels alone would take 10 GiB."""
    command = [sys.executable, "-c", LARGE_IMAGE, str(directory), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < limit_gib


def test_no_images_give_no_results(directory):
    assert Scorer(find_weights(directory, "cnniqa")).score([]) == []


def _run_pyiqa(network, image):
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous().float().div(255)
    with torch.inference_mode():
        return network(pixels).item()
