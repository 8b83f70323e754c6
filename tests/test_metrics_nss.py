import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from pyiqa.matlab_utils import fspecial, imresize
from pyiqa.utils.color_util import to_y_channel
from scipy.ndimage import correlate
from scipy.special import gammaln

from iqray.compiling import compile_kernel
from iqray.metrics.image_scorers import load_image_scorer
from iqray.metrics.networks import load_network
from iqray.metrics.nss import build_window, compute_luma, find_ties_rounded_down, halve
from iqray.metrics.weights import find_weights
from tests.metric_weights import draw_texture, write_random_weights

TOLERANCES = {"brisque": 1e-4, "niqe": 1e-5}
SHIFTS = {"brisque": [(0, 1), (1, 0), (1, 1), (-1, 1)], "niqe": [(0, 1), (1, 0), (1, 1), (1, -1)]}
ALPHAS = np.arange(0.2, 10.0005, 0.001)


def draw_noise(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def draw_half_flat(level):
    image = draw_texture(192, 200, seed=4)
    image[:, 90:] = level
    return image


def draw_ramp():
    return np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 110, 3))


IMAGES = {
    "texture": draw_texture(193, 215, seed=0),
    "one block": draw_texture(96, 96, seed=1),
    "wide": draw_texture(97, 1001, seed=2),
    "tall": draw_texture(580, 100, seed=3),
    "noise": draw_noise(110, 200, seed=0),
    "white half": draw_half_flat(255),
    "black half": draw_half_flat(0),
    "gray half": draw_half_flat(77),
    "low contrast": draw_texture(192, 192, seed=5) // 64 + 100,
}
REGULAR_IMAGES = {
    "black": np.zeros((100, 120, 3), np.uint8),
    "white": np.full((100, 120, 3), 255, np.uint8),
    "gray": np.full((100, 120, 3), 77, np.uint8),
    "ramp": draw_ramp(),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module", params=["brisque", "niqe"])
def metric(request):
    return request.param


@pytest.fixture(scope="module")
def weights(tmp_path_factory, metric):
    path = tmp_path_factory.mktemp("weights")
    write_random_weights(path)
    return find_weights(path, metric)


@pytest.fixture(scope="module")
def network(weights):
    return load_network(weights)


@pytest.fixture(scope="module")
def scorer(weights):
    return load_image_scorer(weights)


@pytest.mark.parametrize("name", IMAGES)
def test_scores_are_those_of_pyiqas_network(metric, network, scorer, name):
    expected = run_pyiqa(network, IMAGES[name])
    assert np.isfinite(expected)
    assert scorer(IMAGES[name]) == pytest.approx(expected, rel=TOLERANCES[metric])


@pytest.mark.filterwarnings("ignore:cov")  # pyiqa's, of no blocks
@pytest.mark.parametrize("name", REGULAR_IMAGES)
def test_regular_images_end_as_in_pyiqas_network(metric, network, scorer, name):
    image = REGULAR_IMAGES[name]
    try:
        expected = run_pyiqa(network, image)
    except (AssertionError, torch.linalg.LinAlgError):
        with pytest.raises(ValueError, match=r"non zero variance|too flat"):
            scorer(image)
    else:
        assert scorer(image) == pytest.approx(expected, rel=TOLERANCES[metric], nan_ok=True)


def test_the_window_is_pyiqas():
    expected = fspecial(7, 7 / 6, 1)[0, 0].numpy()
    np.testing.assert_array_equal(build_window(), expected)


@pytest.mark.parametrize("metric", ["brisque"], indirect=True)
@pytest.mark.parametrize("side", [16, 17, 22])
def test_brisque_of_tiny_images_is_that_of_pyiqas_network(network, scorer, side):
    image = draw_texture(side, side + 3, seed=1)
    assert scorer(image) == pytest.approx(run_pyiqa(network, image), rel=1e-4)


def test_statistics_equal_a_plain_evaluation_in_float64(metric, scorer):
    image = draw_texture(192, 288, seed=6)
    luma = np.rint(image @ [0.299, 0.587, 0.114])
    scales = [(luma, 96), (halve_plainly(luma), 48)]
    evaluate = evaluate_brisque if metric == "brisque" else evaluate_niqe
    expected = np.concatenate([evaluate(*scale) for scale in scales], axis=-1)
    # Shapes lie on a grid of 0.001.
    np.testing.assert_allclose(scorer.compute_statistics(image), expected, rtol=2e-4, atol=1.5e-3)


def test_a_view_or_read_only_image_has_the_score_of_its_copy(scorer):
    image = draw_texture(100, 130, seed=7)
    image.flags.writeable = False
    view = np.moveaxis(np.moveaxis(image, 2, 0).copy(), 0, 2)[:, ::-1]
    assert scorer(image) == scorer(image.copy())
    assert scorer(view) == scorer(np.ascontiguousarray(view))


def test_threads_do_not_disturb_each_other(scorer):
    images = [draw_texture(100 + side, 130, seed=side) for side in range(8)]
    alone = [scorer(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(scorer, images * 3)) == alone * 3


def test_transposing_swaps_horizontal_and_vertical_statistics(metric, scorer):
    image = draw_texture(192, 288, seed=8)
    statistics = scorer.compute_statistics(image).reshape(-1, 2, 18)
    transposed = scorer.compute_statistics(image.swapaxes(0, 1)).reshape(-1, 2, 18)
    if metric == "niqe":  # its blocks go row by row
        transposed = transposed.reshape(3, 2, 2, 18).swapaxes(0, 1).reshape(-1, 2, 18)
    swapped = np.concatenate([np.arange(2), np.arange(6, 10), np.arange(2, 6)])
    expected = statistics[..., swapped]
    np.testing.assert_allclose(transposed[..., :10], expected, rtol=1e-3, atol=1.5e-3)
    assert not np.allclose(statistics[..., 2:6], statistics[..., 6:10], rtol=1e-3, atol=1.5e-3)


@pytest.mark.parametrize("metric", ["niqe"], indirect=True)
def test_niqe_leaves_out_what_lies_beyond_whole_blocks(scorer):
    image = draw_texture(191, 200, seed=9)
    assert scorer(image) == scorer(image[:96, :192])


@pytest.mark.parametrize("metric", ["niqe"], indirect=True)
def test_niqe_leaves_out_flat_blocks_from_the_covariance(network, scorer):
    image = draw_texture(96, 288, seed=10)
    image[:, 150:] = 128
    assert np.isnan(scorer.compute_statistics(image)).any(axis=1).tolist() == [False, False, True]
    assert scorer(image) == pytest.approx(run_pyiqa(network, image), rel=1e-5)


def test_luma_is_that_of_pyiqa_where_it_lies_between_two_levels_too():
    colours = np.stack(np.meshgrid(*[np.arange(0, 256, 3)] * 3), axis=-1).reshape(-1, 86, 3)
    ties = (colours @ [299, 587, 114]) % 1000 == 500
    image = colours.astype(np.uint8)
    expected = to_y_channel(to_tensor(image), 255.0)[0, 0].numpy()
    luma = compute_luma(image, find_ties_rounded_down())
    assert ties.sum() > 100
    assert set(luma[ties] - np.floor(image @ [0.299, 0.587, 0.114])[ties]) == {0.0, 1.0}
    np.testing.assert_array_equal(luma, expected)


@pytest.mark.parametrize("shape", [(16, 16), (17, 30), (64, 97), (8, 9)])
def test_halving_is_pyiqas_imresize(shape):
    plane = np.random.default_rng(0).random(shape).astype(np.float32)
    expected = imresize(torch.from_numpy(plane)[None, None], scale=0.5)[0, 0].numpy()
    np.testing.assert_allclose(halve(plane), expected, rtol=1e-6, atol=1e-7)


def test_halving_keeps_a_flat_plane_flat():
    np.testing.assert_array_equal(halve(np.full((20, 31), 255, np.float32)), 255)


def test_neither_metric_imports_pyiqa(weights):
    # pyiqa takes seconds, which every scoring process would wait for.
    program = (
        "import pickle, sys, numpy as np; from iqray.metrics.scorer import Scorer\n"
        "scorer = Scorer(pickle.loads(bytes.fromhex(sys.argv[1])))\n"
        "image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)\n"
        "[result] = scorer.score([image])\n"
        "print(result.status, *({'pyiqa', 'torchvision'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, pickle.dumps(weights).hex()]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["ok"]


def test_a_kernel_whose_cache_cannot_be_written_is_compiled_all_the_same():
    names = {}
    exec("def double(x):\n    return 2 * x", names)  # noqa: S102  numba caches files only
    assert compile_kernel()(names["double"])(3) == 6


def run_pyiqa(network, image):
    with torch.inference_mode():
        return network(to_tensor(image)).item()


def to_tensor(image):
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return pixels[None].float().div(255)


def halve_plainly(plane):
    """Half the size: mirror, convolve with the stretched cubic kernel, keep every second."""
    taps = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    padded = np.pad(plane, 4, mode="symmetric")[1:-1, 1:-1]
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(padded, 8, axis=axis)
        padded = (windows @ taps).take(range(0, windows.shape[axis], 2), axis=axis)
    return padded


def normalize_plainly(plane, mode):
    """MSCN coefficients with a Gaussian window of 7 x 7 px."""
    taps = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    window = np.outer(taps, taps) / taps.sum() ** 2
    mean = correlate(plane, window, mode=mode)
    variance = correlate(plane**2, window, mode=mode) - mean**2
    return (plane - mean) / (np.sqrt(np.abs(variance)) + 1)


def fit_asymmetric(values):
    """Shape, left and right deviation from 0 of an asymmetric generalised Gaussian."""
    left = np.sqrt(np.mean(values[values < 0] ** 2))
    right = np.sqrt(np.mean(values[values > 0] ** 2))
    skew = left / right
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    table = np.exp(2 * gammaln(2 / ALPHAS) - gammaln(1 / ALPHAS) - gammaln(3 / ALPHAS))
    return ALPHAS[np.abs(table - ratio).argmin()], left, right


def evaluate_brisque(plane, _):
    coefficients = normalize_plainly(plane, "constant")
    variance = np.mean(coefficients**2)
    table = np.exp(gammaln(1 / ALPHAS) + gammaln(3 / ALPHAS) - 2 * gammaln(2 / ALPHAS))
    shape = ALPHAS[np.abs(table - variance / np.mean(np.abs(coefficients)) ** 2).argmin()]
    statistics = [shape, variance]
    for shift in SHIFTS["brisque"]:
        alpha, left, right = fit_asymmetric(coefficients * np.roll(coefficients, shift, (0, 1)))
        spread = (gammaln(1 / alpha) + gammaln(3 / alpha)) / 2
        mean = (right - left) * np.exp(gammaln(2 / alpha) - spread)
        statistics += [alpha, mean, left**2, right**2]
    return np.array(statistics)


def evaluate_niqe(plane, side):
    coefficients = normalize_plainly(plane, "nearest")
    height, width = plane.shape
    corners = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
    blocks = [coefficients[top : top + side, left : left + side] for top, left in corners]
    return np.array([evaluate_niqe_block(block) for block in blocks])


def evaluate_niqe_block(block):
    statistics = []
    for factors in [1, *(np.roll(block, shift, (0, 1)) for shift in SHIFTS["niqe"])]:
        alpha, left, right = fit_asymmetric(block * factors)
        scale = np.exp((gammaln(1 / alpha) - gammaln(3 / alpha)) / 2)
        mean = (right - left) * scale * np.exp(gammaln(2 / alpha) - gammaln(1 / alpha))
        statistics += [alpha, mean, left * scale, right * scale]
    return [statistics[0], (statistics[2] + statistics[3]) / 2, *statistics[4:]]
