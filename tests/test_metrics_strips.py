import copy

import pytest
import torch
from torch import nn

from iqray.metrics.clipiqa import Bottleneck
from iqray.metrics.strips import Convolution, Normalize, Pool, cut_strips, run_layers
from tests.metric_weights import build_small_clip


def build_modules():
    """Convolutions of several kinds; torch's seed must be set."""
    norm = nn.BatchNorm2d(40)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.uniform_(0.5, 2)
    modules = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 40, 3, padding=1, bias=False),
        norm,
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(40, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 5, 5),
    )
    return modules.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def modules():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_modules()


@pytest.fixture
def layers(modules):
    return [
        Convolution(modules[0]),
        Convolution(modules[2], modules[3]),
        Pool(modules[5]),
        Convolution(modules[6]),
        Convolution(modules[8], has_relu=False),
    ]


@pytest.mark.parametrize("height", [20, 21, 22, 23, 61])
@pytest.mark.parametrize("strip_px", [None, 1, 100, 700])
def test_strips_give_what_torchs_own_layers_give(modules, layers, height, strip_px):
    maps = torch.rand(2, 3, height, 37, generator=torch.Generator().manual_seed(1))
    ours = run_layers(layers, maps, strip_px)
    torch.testing.assert_close(ours, modules(maps), rtol=1e-5, atol=1e-5)


def test_with_more_threads_torch_convolves_by_itself():
    """A direct sum rounds otherwise than Winograd's, which is the same with one and two threads."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False)
    maps = torch.rand(1, 64, 24, 24, generator=torch.Generator().manual_seed(1))
    layer, before, results = Convolution(convolution), torch.get_num_threads(), []
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        results.append(run_layers([layer], maps))
    torch.set_num_threads(before)
    for result in results:
        torch.testing.assert_close(result, convolution(maps).relu(), rtol=1e-5, atol=1e-5)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_strip_has_as_many_rows_as_its_pixels_allow(layers):
    maps = torch.rand(1, 3, 64, 50)
    assert [part.shape[-2] for part in cut_strips(layers[:1], maps, 64 * 50)] == [64]
    assert [part.shape[-2] for part in cut_strips(layers[:1], maps, 30 * 50)] == [30, 30, 4]
    assert len(list(cut_strips(layers[:1], torch.cat([maps, maps]), 30 * 50))) == 5


@pytest.mark.parametrize("height", [16, 17, 18, 19])
def test_bottlenecks_in_strips_are_those_of_clip(height):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        visual = build_small_clip().visual.requires_grad_(False)
        for module in visual.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.bias.normal_()
                module.weight.uniform_(0.5, 2)
    blocks = nn.Sequential(visual.layer1[0], visual.layer2[0])
    maps = torch.rand(1, 8, height, 11, generator=torch.Generator().manual_seed(1))
    expected = copy.deepcopy(blocks)(maps)
    for strip_px in (None, 1, 4 * 11):
        ours = run_layers(map(Bottleneck, blocks), maps, strip_px)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_normalising_is_channel_by_channel():
    mean, std = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])
    layer = Normalize(mean.view(1, 2, 1, 1), std.view(1, 2, 1, 1))
    maps = torch.full((1, 2, 3, 3), 3.0)
    assert run_layers([layer], maps)[0, :, 0, 0].tolist() == [1.0, 0.25]
    assert maps.eq(3).all()
