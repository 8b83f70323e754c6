import numpy as np
import pytest
import torch
from torch import nn

from iqray.demo.backbones import (
    compute_layer_inputs,
    draw_filters,
    pass_channels,
    round_to_half,
    seed_torch,
)


def test_filters_ignore_flat_areas_and_have_length_one():
    convolution = nn.Conv2d(3, 8, 7)
    draw_filters(convolution, (0.6, 2.0))
    flat = torch.rand(1, 3, 1, 1).expand(1, 3, 20, 20)
    assert convolution(flat).abs().max() < 1e-5
    lengths = convolution.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(8))
    # The coarse filters have more of their weight off the centre.
    centre_share = convolution.weight[:, :, 2:5, 2:5].square().sum((1, 2, 3))
    assert centre_share[0::2].min() > centre_share[1::2].max()


def test_passing_convolution_of_equal_width_is_the_identity():
    convolution = nn.Conv2d(5, 5, 3, padding=1)
    pass_channels(convolution)
    image = torch.randn(2, 5, 9, 11)
    torch.testing.assert_close(convolution(image), image)


def test_passing_convolution_mixes_orthogonally_pixel_by_pixel():
    convolution = nn.Conv2d(4, 16, 3, padding=1)
    pass_channels(convolution)
    nn.init.zeros_(convolution.bias)
    image = torch.randn(1, 4, 6, 6)
    power = convolution(image).square().sum(1)
    torch.testing.assert_close(power, 2 * image.square().sum(1))


def test_rounding_changes_nothing_twice_and_leaves_counters():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network[1].num_batches_tracked.fill_(2**20 + 1)
    round_to_half(network)
    state = network.state_dict()
    assert torch.equal(state["0.weight"], state["0.weight"].half().float())
    assert state["0.weight"].dtype == torch.float32
    assert network[1].num_batches_tracked == 2**20 + 1


def test_layer_inputs_are_those_of_each_image_alone():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1)).eval()
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, size, np.uint8) for size in ((4, 5, 3), (7, 2, 3))]
    inputs = compute_layer_inputs(network, network[2], images)
    expected = [image.mean(axis=(0, 1)) / 255 for image in images]
    np.testing.assert_allclose(inputs, expected, rtol=1e-5)
    assert not network[2]._forward_pre_hooks


def test_seeding_leaves_the_callers_generator_as_it_was():
    before = torch.get_rng_state()
    with seed_torch(5):
        first = torch.rand(3)
    with seed_torch(5):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError), seed_torch(6):
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), before)
