import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from iqray.recipes import RECIPES
from iqray.training.convergence import compute_chance_loss, find_stall

WATCHED = RECIPES["paper"].model_copy(update={"watch_from": 0.5})
CHANCE = math.log(10)


def make_rows(*losses: float, steps_per_epoch: int = 10) -> list[dict[str, float]]:
    return [
        {"step": (epoch + 1) * steps_per_epoch, "loss": loss} for epoch, loss in enumerate(losses)
    ]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_chance_loss_is_ln_k_for_equal_counts(smoothing: float) -> None:
    targets = np.repeat(np.arange(10), 7)
    assert compute_chance_loss(targets, 10, smoothing) == pytest.approx(CHANCE)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_no_constant_output_has_a_smaller_loss_than_chance(smoothing: float) -> None:
    targets = np.repeat([0, 1, 2], [70, 20, 10])
    chance = compute_chance_loss(targets, 3, smoothing)
    assert chance < math.log(3)
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200)

    def measure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(
            logits.expand(100, 3), torch.from_numpy(targets), label_smoothing=smoothing
        )
        loss.backward()
        return loss

    optimizer.step(measure)
    assert measure().item() == pytest.approx(chance, rel=1e-4)


def test_a_loss_at_chance_level_is_stuck_from_the_watched_step_on() -> None:
    stuck = make_rows(*[CHANCE] * 10)
    assert find_stall(stuck[:4], WATCHED, 100, CHANCE) is None
    reason = find_stall(stuck[:5], WATCHED, 100, CHANCE)
    assert reason is not None
    assert "stuck at chance level: loss 2.3026 after 50 of 100 steps" in reason


def test_the_margin_decides() -> None:
    assert find_stall(make_rows(*[0.981 * CHANCE] * 5), WATCHED, 100, CHANCE)
    assert find_stall(make_rows(*[0.979 * CHANCE] * 5), WATCHED, 100, CHANCE) is None


def test_units_that_die_late_are_noticed() -> None:
    rows = make_rows(2.2, 2.0, 1.8, 1.5, 1.2, 1.0, CHANCE)
    assert find_stall(rows[:6], WATCHED, 100, CHANCE) is None
    assert find_stall(rows, WATCHED, 100, CHANCE)


def test_one_bad_epoch_among_many_small_ones_decides_nothing() -> None:
    """Epochs of one step: the last ten of a hundred steps count together."""
    losses = [*[2.0] * 59, 4.0]
    assert find_stall(make_rows(*losses, steps_per_epoch=1), WATCHED, 100, CHANCE) is None
    assert find_stall(make_rows(*losses, 4.0, 4.0, steps_per_epoch=1), WATCHED, 100, CHANCE)


def test_a_recipe_can_watch_for_nan_only() -> None:
    assert RECIPES["demo"].watch_from is None
    assert find_stall(make_rows(*[CHANCE] * 10), RECIPES["demo"], 100, CHANCE) is None
