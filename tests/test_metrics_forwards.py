"""Forwards that are iqray's own, in strips, mixed batches and lower precision, beside pyiqa's."""

import copy
import math

import pytest
import torch

from iqray.metrics.forwards import build_forward
from iqray.metrics.networks import load_network
from iqray.metrics.precision import use_precision
from iqray.metrics.registry import METRICS_WITH_PRECISIONS
from iqray.metrics.scorer import Scorer
from iqray.metrics.weights import find_weights
from tests.metric_weights import draw_texture, write_random_weights

TOLERANCES = {"clipiqa": 1e-5, "cnniqa": 1e-6, "dbcnn": 1e-5, "musiq": 1e-5}

# Relative, ten times what was seen: 3e-5, 1e-4, 5e-5 and 8e-5.
BF16_BOUNDS = {"clipiqa": 3e-4, "cnniqa": 1e-3, "dbcnn": 5e-4, "musiq": 8e-4}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")
    write_random_weights(path)
    return path


@pytest.fixture(scope="module")
def textures():
    return [draw_texture(*shape, seed) for seed, shape in enumerate([(97, 131), (160, 96)])]


def load(directory, metric):
    return load_network(find_weights(directory, metric))


def scale(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255)


def run(module, images):
    with torch.inference_mode():
        return module(images).flatten().tolist()


@pytest.mark.parametrize("metric", ["clipiqa", "dbcnn"])
def test_folded_norms_give_pyiqas_score(directory, textures, metric):
    network = load(directory, metric)
    # CLIP's module is in a list, which pyiqa's network does not show.
    draw_norms(network.clip_model[0] if metric == "clipiqa" else network)
    forward = build_forward(metric, copy.deepcopy(network))
    for texture in textures:
        expected = pytest.approx(run(network, scale(texture)), rel=TOLERANCES[metric])
        assert run(forward, scale(texture)) == expected


def draw_norms(network):
    """Untrained norms change nothing, and those at the end of CLIP's blocks are 0."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.3, 2, generator=generator)
            module.weight.data.uniform_(0.3, 1, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)


@pytest.mark.parametrize("metric", ["clipiqa", "cnniqa", "dbcnn"])
@pytest.mark.parametrize("strip_px", [1, 2000])
def test_strips_give_pyiqas_score(directory, textures, metric, strip_px):
    network = load(directory, metric)
    forward = build_forward(metric, copy.deepcopy(network))
    forward.strip_px = strip_px
    for texture in textures:
        expected = pytest.approx(run(network, scale(texture)), rel=TOLERANCES[metric])
        assert run(forward, scale(texture)) == expected


def test_musiq_embeds_any_number_of_tokens_at_a_time(directory, textures):
    network = load(directory, "musiq")
    expected = run(network, scale(textures[0]))
    forward = build_forward("musiq", network)
    for num_tokens in (1, 7, 10_000):
        forward.embedding.num_tokens = num_tokens
        assert run(forward, scale(textures[0])) == pytest.approx(expected, rel=1e-5)


def test_musiq_scores_images_of_several_shapes_at_once(directory, textures):
    network = load(directory, "musiq")
    tall = draw_texture(300, 33, seed=5)
    images = [scale(image) for image in (*textures, tall)]
    expected = [run(network, image)[0] for image in images]
    forward = build_forward("musiq", network)
    assert run(forward, [image[0] for image in images]) == pytest.approx(expected, rel=1e-5)


def test_a_mixed_batch_of_the_scorer_equals_scores_alone(directory, textures):
    scorer = Scorer(find_weights(directory, "musiq"))
    alone = [scorer.score([texture])[0].score for texture in textures]
    assert scorer._run(textures) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("metric", sorted(METRICS_WITH_PRECISIONS))
def test_bfloat16_is_close_to_float32_and_not_the_same(directory, textures, metric):
    weights = find_weights(directory, metric)
    exact = [result.score for result in Scorer(weights).score(textures)]
    rounded = [result.score for result in Scorer(weights, precision="bf16").score(textures)]
    assert rounded != pytest.approx(exact, rel=1e-6)
    assert rounded == pytest.approx(exact, rel=BF16_BOUNDS[metric])


@pytest.mark.parametrize("metric", ["brisque", "niqe"])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_brisque_and_niqe_are_always_exact(directory, textures, metric, precision):
    weights = find_weights(directory, metric)
    assert Scorer(weights, precision=precision).score(textures) == Scorer(weights).score(textures)


def test_tf32_changes_nothing_on_a_cpu(directory, textures):
    weights = find_weights(directory, "cnniqa")
    assert Scorer(weights, precision="tf32").score(textures) == Scorer(weights).score(textures)


def test_an_unknown_precision_is_refused(directory):
    with pytest.raises(ValueError, match="unknown precision 'fp16'; choose from fp32, tf32, bf16"):
        Scorer(find_weights(directory, "cnniqa"), precision="fp16")


def test_tf32_is_on_only_where_asked_for():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    for precision, expected in (("fp32", False), ("bf16", False), ("tf32", True)):
        with use_precision(precision):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (expected, expected)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == before


class SmallMemory(torch.nn.Module):
    """A forward for which an accelerator has memory for a few images only."""

    def __init__(self, forward, max_images):
        super().__init__()
        self.forward_exactly, self.max_images, self.sizes = forward, max_images, []

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.max_images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.forward_exactly(images)


def test_a_batch_too_large_for_memory_goes_in_smaller_ones(directory):
    scorer = Scorer(find_weights(directory, "cnniqa"))
    images = [draw_texture(40, 40, seed) for seed in range(5)]
    expected = scorer.score(images)
    scorer._forward = SmallMemory(scorer._forward, max_images=1)
    scores = [result.score for result in scorer.score(images)]
    assert scores == pytest.approx([result.score for result in expected], rel=1e-6)
    assert scorer._forward.sizes == [5, 2, 1, 1, 3, 1, 2, 1, 1]


def test_an_image_too_large_for_memory_is_no_outcome_of_the_image(directory):
    scorer = Scorer(find_weights(directory, "cnniqa"))
    scorer._forward = SmallMemory(scorer._forward, max_images=0)
    with pytest.raises(torch.OutOfMemoryError):
        scorer.score([draw_texture(40, 40, seed) for seed in range(3)])


def test_scores_are_finite_where_images_are_flat(directory):
    gray = torch.full((1, 3, 96, 96), 0.5)
    for metric in sorted(METRICS_WITH_PRECISIONS):
        network = load(directory, metric)
        expected = run(network, gray)
        ours = run(build_forward(metric, network), gray)
        assert all(map(math.isfinite, ours))
        assert ours == pytest.approx(expected, rel=TOLERANCES[metric])
