import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from iqray.embeddings.layers import embed
from iqray.errors import StudyError
from iqray.packs.packing import concatenate
from iqray.recipes import MIN_INPUT_PX, Recipe
from iqray.training.architectures import create_model
from iqray.training.augment import BatchStream, compute_centre_boxes
from iqray.training.batches import make_batch
from iqray.training.evaluation import compute_topk_accuracy, rank_targets
from iqray.training.loop import LogRow, TrainOutcome, TrainState, train
from tests.toy_images import make_colour_data

CPU = torch.device("cpu")
TIMED = {"seconds", "images_per_s"}


class SmallNet(nn.Module):
    """Convolution, batch normalisation, dropout and a classifier: the parts that carry state."""

    def __init__(self, seed: int = 0, dropout: float = 0.5) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
            )
            self.dropout = nn.Dropout(dropout)
            self.fc = nn.Linear(8 * 7 * 7, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.dropout(self.features(images)))


def _make_recipe(input_px: int = 32, **settings: object) -> Recipe:
    own = {"input_px": input_px, "learning_rate": settings.pop("learning_rate", 0.02)}
    own["clip_norm"] = settings.pop("clip_norm", None)
    architectures = {"resnet50": own, "vgg16": own}
    if input_px >= MIN_INPUT_PX["inception_v3"]:
        architectures["inception_v3"] = own
    return Recipe.model_validate(
        {
            "name": "test",
            "epochs": 1,
            "batch_size": 8,
            "schedule": "constant",
            "architectures": architectures,
            **settings,
        }
    )


def _train(
    model: nn.Module,
    recipe: Recipe,
    num_steps: int,
    architecture: str = "resnet50",
    log: Callable[[LogRow], str | None] = lambda _: None,
    num_per_category: int = 7,
    **options: object,
) -> TrainOutcome:
    data = make_colour_data(num_per_category, seed=1, side_px=recipe.compute_stored_px("resnet50"))
    return train(model, data, recipe, architecture, num_steps, 3, CPU, log, **options)


def _assert_equal(first: nn.Module, second: nn.Module) -> None:
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize("kept_step", [3, 5])
def test_a_resumed_training_equals_an_unbroken_one_bit_for_bit(kept_step: int) -> None:
    # 21 images in batches of 8: epochs begin at steps 0, 3, 6, 8; the state of 5 is inside one.
    recipe = _make_recipe(schedule="cosine", warmup_fraction=0.2)
    unbroken, unbroken_rows = SmallNet(), []
    states: dict[int, TrainState] = {}

    def keep(step: int, capture: Callable[[], TrainState]) -> None:
        states[step] = copy.deepcopy(capture())

    outcome = _train(unbroken, recipe, 10, log=unbroken_rows.append, after_step=keep)
    assert list(states) == list(range(1, 10))
    assert states[kept_step].step == kept_step

    torch.rand(5)
    resumed, resumed_rows = SmallNet(seed=9), []
    resumed_outcome = _train(resumed, recipe, 10, log=resumed_rows.append, start=states[kept_step])
    _assert_equal(unbroken, resumed)
    assert resumed_outcome.final_loss == outcome.final_loss
    expected = [row for row in unbroken_rows if row["step"] > kept_step]
    for row, other in zip(resumed_rows, expected, strict=True):
        assert {key: row[key] for key in row.keys() - TIMED} == {
            key: other[key] for key in other.keys() - TIMED
        }


def test_dropout_takes_part_in_training() -> None:
    recipe = _make_recipe()
    with_dropout, without = SmallNet(), SmallNet(dropout=0.0)
    _train(with_dropout, recipe, 2)
    _train(without, recipe, 2)
    assert not torch.equal(with_dropout.fc.weight, without.fc.weight)


def test_a_trial_gives_the_same_weights_alone_and_after_another() -> None:
    recipe = _make_recipe(batch_size=4)
    alone = create_model("resnet50", 3, 32, seed=0)
    _train(alone, recipe, 2)
    _train(SmallNet(), _make_recipe(), 3)
    after = create_model("resnet50", 3, 32, seed=0)
    state = torch.get_rng_state()
    _train(after, recipe, 2)
    _assert_equal(alone, after)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_equals_a_plain_loop() -> None:
    recipe = _make_recipe(
        crop="centre", flip=False, label_smoothing=0.1, clip_norm=0.5, weight_decay=0.01
    )
    model, rows = SmallNet(dropout=0.0), []
    _train(model, recipe, 3, log=rows.append)

    plain = SmallNet(dropout=0.0)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, weight_decay=0.01)
    data = make_colour_data(7, seed=1)
    losses, num_correct = [], 0
    for step in range(3):
        _, indices = BatchStream(len(data), 8, seed=3).take(step)
        boxes = compute_centre_boxes(data.shapes[indices])
        images = make_batch([data.image(i) for i in indices], boxes, np.zeros(8, bool), 32)
        targets = torch.from_numpy(data.targets[indices])
        logits = plain(images)
        loss = functional.cross_entropy(logits, targets, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
        num_correct += int((logits.argmax(1) == targets).sum())
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6)
    assert rows[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert rows[0]["top1"] == num_correct / 24


def test_a_small_model_learns_a_separable_problem() -> None:
    model = SmallNet()
    outcome = _train(model, _make_recipe(), 40, num_per_category=8)
    test = make_colour_data(10, seed=2)
    _, logits = embed(model, test, 32, 16)
    top1 = compute_topk_accuracy(rank_targets(logits, test.targets), test.targets, 1, 3)
    assert outcome.status == "ok"
    assert outcome.final_loss < 0.5 * math.log(3)
    assert top1 >= 0.9  # chance is 1/3


def test_bf16_computes_a_little_otherwise_with_weights_in_fp32() -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        model, rows = SmallNet(dropout=0.0), []
        recipe = _make_recipe(precision=precision)
        train(model, make_colour_data(8, seed=0), recipe, "resnet50", 6, 0, CPU, rows.append)
        losses[precision] = [row["loss"] for row in rows]
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert losses["bf16"] != losses["fp32"]
    np.testing.assert_allclose(losses["bf16"], losses["fp32"], rtol=0.05)


def test_rows_tell_each_epoch() -> None:
    rows: list[LogRow] = []
    outcome = _train(SmallNet(), _make_recipe(schedule="step"), 9, log=rows.append)
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 3), (1, 6), (2, 8), (3, 9)]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.02, 0.002, 2e-4, 2e-4])
    assert outcome.final_loss == rows[-1]["loss"]
    for row, num_steps in zip(rows, (3, 3, 2, 1), strict=True):
        assert row["images_per_s"] * row["seconds"] == pytest.approx(8 * num_steps)
        assert 0 <= row["top1"] <= 1


def test_fewer_images_than_a_batch_still_give_full_batches() -> None:
    rows: list[LogRow] = []
    outcome = _train(SmallNet(), _make_recipe(), 2, log=rows.append, num_per_category=1)
    assert outcome.status == "ok"
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 1), (2, 2)]


def test_a_divergence_is_reported_with_its_step() -> None:
    rows: list[LogRow] = []
    outcome = _train(SmallNet(), _make_recipe(learning_rate=1e30), 9, log=rows.append)
    assert outcome.status == "not_converged"
    assert outcome.reason == "diverged at step 2"
    assert outcome.num_steps == 3  # the end of the epoch
    assert math.isnan(outcome.final_loss)
    assert len(rows) == 1


def test_a_divergence_in_the_last_update_is_noticed() -> None:
    outcome = _train(SmallNet(), _make_recipe(learning_rate=1e39), 1)
    assert (outcome.status, outcome.reason) == ("not_converged", "diverged at step 1")


def test_a_reason_from_the_log_stops_the_training() -> None:
    outcome = _train(
        SmallNet(), _make_recipe(), 9, log=lambda row: "enough" if row["step"] > 3 else None
    )
    assert (outcome.status, outcome.reason, outcome.num_steps) == ("not_converged", "enough", 6)
    assert math.isfinite(outcome.final_loss)


def test_the_rate_factor_multiplies_every_learning_rate() -> None:
    rows: list[LogRow] = []
    _train(SmallNet(), _make_recipe(schedule="step"), 9, log=rows.append, rate_factor=0.5)
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.01, 1e-3, 1e-4, 1e-4])


def test_the_gradient_is_clipped_to_its_norm() -> None:
    recipe = _make_recipe(learning_rate=1.0, clip_norm=0.01, momentum=0, weight_decay=0)
    model, start = SmallNet(), SmallNet()
    _train(model, recipe, 1)
    moved = [a - b for a, b in zip(model.parameters(), start.parameters(), strict=True)]
    norm = math.sqrt(sum(float(change.detach().square().sum()) for change in moved))
    assert norm == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("decays", "expected"), [(True, 1 - 0.02 * 0.5), (False, 1.0)])
def test_biases_decay_only_when_asked_to(decays: bool, expected: float) -> None:
    model = SmallNet()
    bias = model.features[0].bias
    with torch.no_grad():
        bias.fill_(1.0)  # before batch normalisation, so that its gradient is zero
    _train(model, _make_recipe(weight_decay=0.5, decay_norm_and_bias=decays), 1)
    torch.testing.assert_close(bias, torch.full((8,), expected), rtol=0, atol=1e-5)


def test_recalibrated_statistics_are_those_of_the_final_weights() -> None:
    recipe = _make_recipe(recalibrate_batch_norm=True, crop="centre", flip=False)
    model = SmallNet()
    _train(model, recipe, 3)
    norm = model.features[1]
    assert norm.momentum == 0.1

    data = make_colour_data(7, seed=1)
    stream, means = BatchStream(len(data), 8, seed=3), []
    for step in (3, 4, 5):
        _, indices = stream.take(step)
        boxes = compute_centre_boxes(data.shapes[indices])
        images = make_batch([data.image(i) for i in indices], boxes, np.zeros(8, bool), 32)
        means.append(model.features[0](images).mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))


def test_the_auxiliary_head_of_inception_is_trained() -> None:
    recipe = _make_recipe(input_px=299, batch_size=2)
    model = create_model("inception_v3", 3, 299, seed=0)
    before = model.AuxLogits.fc.weight.detach().clone()
    assert _train(model, recipe, 1, architecture="inception_v3", num_per_category=1).status == "ok"
    assert not torch.equal(model.AuxLogits.fc.weight, before)


def test_vgg16_takes_a_step() -> None:
    model = create_model("vgg16", 3, 32, seed=0)
    before = model.classifier[6].weight.detach().clone()
    outcome = _train(model, _make_recipe(batch_size=2), 1, architecture="vgg16")
    assert outcome.final_loss == pytest.approx(math.log(3), abs=0.3)
    assert not torch.equal(model.classifier[6].weight, before)
    embeddings, logits = embed(model, make_colour_data(1, seed=2), 32, 3)
    assert embeddings.shape == (3, 4096)
    assert logits.shape == (3, 3)


def test_no_training_images_is_an_error() -> None:
    empty = concatenate([])
    with pytest.raises(StudyError, match="no training images"):
        train(SmallNet(), empty, _make_recipe(), "resnet50", 1, 0, CPU, lambda _: None)
