from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from iqray.errors import StudyError
from iqray.recipes import ARCHITECTURES, RECIPES
from iqray.training.architectures import (
    MIN_INPUT_PX,
    InitialWeights,
    create_model,
    find_last_linear,
)


def _equal(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_weights_depend_on_the_seed_alone() -> None:
    alone = create_model("resnet50", 6, 32, seed=3)
    torch.rand(17)  # anything that ran before
    create_model("inception_v3", 4, 75, seed=3)
    assert _equal(alone, create_model("resnet50", 6, 32, seed=3))
    assert not _equal(alone, create_model("resnet50", 6, 32, seed=4))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    create_model("resnet50", 2, 32, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_torchvisions_own() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = torchvision.models.resnet50(weights=None, num_classes=7)
    assert _equal(create_model("resnet50", 7, 32, seed=5), expected)


def test_kept_weights_equal_drawn_ones_and_stay_independent(tmp_path: Path) -> None:
    kept = InitialWeights(tmp_path / "initial")
    drawn = create_model("resnet50", 3, 32, 1)
    first = create_model("resnet50", 3, 32, 1, kept)
    second = create_model("resnet50", 3, 32, 1, kept)
    assert len(list((tmp_path / "initial").iterdir())) == 1
    assert _equal(drawn, first)
    assert _equal(drawn, second)
    assert all(parameter.requires_grad for parameter in second.parameters())
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    assert _equal(drawn, create_model("resnet50", 3, 32, 1, kept))


def test_kept_weights_are_told_apart_and_bounded(tmp_path: Path) -> None:
    kept = InitialWeights(tmp_path, max_files=2)
    for num_categories, seed in [(3, 0), (4, 0), (3, 1)]:
        model = create_model("resnet50", num_categories, 32, seed, kept)
        assert _equal(model, create_model("resnet50", num_categories, 32, seed))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_smallest_input_passes_and_one_pixel_less_is_refused(architecture: str) -> None:
    smallest = MIN_INPUT_PX[architecture]
    with pytest.raises(StudyError, match=f"needs {smallest} px"):
        create_model(architecture, 2, smallest - 1, seed=0)
    if architecture == "vgg16":
        return  # the forward pass of its 134 million weights is in test_training
    model = create_model(architecture, 2, smallest, seed=0)
    assert model(torch.zeros(2, 3, smallest, smallest)).shape == (2, 2)


def test_no_recipe_asks_for_too_small_an_input() -> None:
    for recipe in RECIPES.values():
        for architecture, own in recipe.architectures.items():
            assert own.input_px >= MIN_INPUT_PX[architecture]


def test_only_large_inputs_have_inceptions_auxiliary_head() -> None:
    small = create_model("inception_v3", 2, 298, seed=0)
    large = create_model("inception_v3", 2, 299, seed=0)
    assert small.AuxLogits is None
    assert isinstance(large.AuxLogits, nn.Module)
    assert find_last_linear(large) == "fc"


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("alexnet", "classifier.6"), ("inception_v3", "fc"), ("resnet50", "fc")],
)
def test_the_last_linear_layer_is_the_classifier(architecture: str, name: str) -> None:
    model = create_model(architecture, 5, 75, seed=0)
    assert find_last_linear(model) == name
    assert model.get_submodule(name).out_features == 5


def test_a_model_without_linear_layers_is_an_error() -> None:
    with pytest.raises(StudyError, match="no Linear layer"):
        find_last_linear(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()))


def test_an_unknown_architecture_is_an_error() -> None:
    with pytest.raises(StudyError, match="unknown architecture 'resnet51'; choose from alexnet"):
        create_model("resnet51", 2, 64, seed=0)
