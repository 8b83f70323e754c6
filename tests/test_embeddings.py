import numpy as np
import pytest
import torch
from torch import nn

from iqray.embeddings.layers import _check_size, embed, embed_layers
from iqray.errors import StudyError
from iqray.packs.packing import PackedImages, concatenate
from iqray.training.architectures import create_model
from iqray.training.augment import compute_centre_boxes
from iqray.training.batches import make_batch
from tests.toy_images import make_colour_data


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return create_model("resnet50", 3, 32, seed=0)


@pytest.fixture(scope="module")
def data() -> PackedImages:
    return make_colour_data(3, seed=0)


def _count_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_embeddings_times_the_classifier_are_the_logits(
    model: nn.Module, data: PackedImages
) -> None:
    embeddings, logits = embed(model, data, 32, batch_size=4)
    assert embeddings.shape == (9, 2048)
    assert embeddings.dtype == logits.dtype == np.float32
    weight, bias = (p.detach().numpy() for p in (model.fc.weight, model.fc.bias))
    np.testing.assert_allclose(embeddings @ weight.T + bias, logits, rtol=1e-4, atol=1e-4)


def test_embeddings_are_those_of_the_model_in_evaluation_mode(
    model: nn.Module, data: PackedImages
) -> None:
    model.train()
    statistics = model.bn1.running_mean.clone()
    _, logits = embed(model, data, 32, batch_size=9)
    assert model.training
    assert torch.equal(model.bn1.running_mean, statistics)
    images = make_batch(
        [data.image(i) for i in range(9)],
        compute_centre_boxes(data.shapes),
        np.zeros(9, dtype=bool),
        32,
    )
    with torch.no_grad():
        expected = model.eval()(images).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_batch_size_changes_rounding_only(model: nn.Module, data: PackedImages) -> None:
    for one, other in zip(embed(model, data, 32, 2), embed(model, data, 32, 9), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_named_layer_gives_its_output_before_later_layers_change_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 2, 3, stride=8), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(32, 3)
    )
    data = make_colour_data(2, seed=0)
    found = embed_layers(model, data, 32, 6, ["0"])
    assert found["0"].shape == (6, 32)
    assert (found["0"] < 0).any()  # the ReLU that works in place comes after


def test_layers_of_one_pass_are_those_of_a_pass_each(model: nn.Module, data: PackedImages) -> None:
    layers = ["penultimate", "logits", "layer4", "avgpool"]
    together = embed_layers(model, data, 32, 4, layers)
    assert list(together) == layers
    for layer in layers:
        alone = embed_layers(model, data, 32, 4, [layer])[layer]
        np.testing.assert_array_equal(together[layer], alone)
    embeddings, logits = embed(model, data, 32, 4)
    np.testing.assert_array_equal(together["penultimate"], embeddings)
    np.testing.assert_array_equal(together["logits"], logits)
    np.testing.assert_array_equal(together["avgpool"], embeddings)  # flattened, it is fc's input


def test_a_layer_too_large_for_so_many_images_is_an_error() -> None:
    values = torch.zeros(2, 1024, 14, 14)  # of ResNet-50's layer3 at 224 px
    _check_size("layer3", values, 5_000)
    with pytest.raises(StudyError, match=r"'layer3' has 200,704 values .* 7 GiB for 10,000 images"):
        _check_size("layer3", values, 10_000)


def test_no_hook_is_left_behind(model: nn.Module, data: PackedImages) -> None:
    embed(model, data, 32, 9)
    embed_layers(model, data, 32, 9, ["layer4"])
    broken = nn.Sequential(nn.Flatten(), nn.Linear(5, 2))
    with pytest.raises(RuntimeError):  # 3 * 32 * 32 values do not fit 5 inputs
        embed(broken, data, 32, 9)
    assert _count_hooks(model) == _count_hooks(broken) == 0


def test_an_unknown_layer_is_an_error(model: nn.Module, data: PackedImages) -> None:
    with pytest.raises(StudyError, match="unknown layer 'head'"):
        embed_layers(model, data, 32, 9, ["head"])


def test_no_images_is_an_error(model: nn.Module) -> None:
    with pytest.raises(StudyError, match="no images to embed"):
        embed(model, concatenate([]), 32, 9)
