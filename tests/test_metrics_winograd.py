import pytest
import torch
from torch.nn import functional

from iqray.metrics.winograd import convolve, transform_weight


def draw_layer(num_inputs, num_outputs):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(num_outputs, num_inputs, 3, 3, generator=generator)
    return weight, torch.randn(num_outputs, generator=generator)


@pytest.mark.parametrize("shape", [(1, 32, 1, 1), (1, 40, 2, 3), (2, 33, 7, 300), (1, 64, 31, 46)])
def test_it_is_the_convolution(shape):
    weight, bias = draw_layer(shape[1], 48)
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    exact = functional.conv2d(maps.double(), weight.double(), bias.double(), padding=1).relu()
    ours = convolve(maps, transform_weight(weight), bias, above=1, below=1)
    assert ours.shape == exact.shape
    assert (ours - exact).abs().max() < 1e-6 * exact.max()


@pytest.mark.parametrize(("above", "below"), [(0, 0), (0, 1), (1, 0)])
@pytest.mark.parametrize("height", [3, 6])
def test_rows_of_zeros_stand_only_where_asked_for(above, below, height):
    weight, bias = draw_layer(32, 32)
    maps = torch.randn((1, 32, height, 5), generator=torch.Generator().manual_seed(1))
    padded = functional.pad(maps, (1, 1, above, below))
    expected = functional.conv2d(padded, weight, bias).relu()
    ours = convolve(maps, transform_weight(weight), bias, above, below)
    assert (ours - expected).abs().max() < 2e-6 * expected.max()


def test_a_nan_is_not_cut_off_like_a_negative_number():
    weight, bias = draw_layer(32, 32)
    maps = torch.zeros(1, 32, 4, 4)
    maps[0, 0, 0, 0] = torch.nan
    ours = convolve(maps, transform_weight(weight), bias, above=1, below=1)
    assert ours[0, :, 0, 0].isnan().all()
