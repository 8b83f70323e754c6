import math

import pytest

from iqray.recipes import ARCHITECTURES, RECIPES, ArchitectureRecipe, Recipe


def _make_recipe(**settings: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "epochs": 3,
            "batch_size": 8,
            "architectures": {"resnet50": {"input_px": 32, "learning_rate": 0.8}},
            **settings,
        }
    )


def _list_rates(recipe: Recipe, num_steps: int) -> list[float]:
    return [recipe.compute_learning_rate("resnet50", step, num_steps) for step in range(num_steps)]


def test_step_schedule_divides_by_ten_after_each_third() -> None:
    assert _list_rates(_make_recipe(), 9) == pytest.approx([0.8] * 3 + [0.08] * 3 + [0.008] * 3)


def test_constant_schedule_stays_at_the_peak() -> None:
    assert _list_rates(_make_recipe(schedule="constant"), 4) == [0.8] * 4


def test_cosine_schedule_falls_from_the_peak_towards_zero() -> None:
    rates = _list_rates(_make_recipe(schedule="cosine"), 4)
    expected = [0.8 * (1 + math.cos(math.pi * share)) / 2 for share in (0, 0.25, 0.5, 0.75)]
    assert rates == pytest.approx(expected)


def test_warm_up_rises_linearly_to_the_peak() -> None:
    rates = _list_rates(_make_recipe(schedule="cosine", warmup_fraction=0.4), 10)
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_steps_come_from_the_budget_unless_fixed() -> None:
    recipe = _make_recipe()
    assert recipe.compute_steps("resnet50", 80) == 30
    assert recipe.compute_steps("resnet50", 81) == 31
    fixed = ArchitectureRecipe(input_px=32, learning_rate=0.1, steps=7)
    assert _make_recipe(architectures={"resnet50": fixed}).compute_steps("resnet50", 80) == 7


def test_images_are_stored_at_8_7_of_the_input() -> None:
    assert RECIPES["paper"].compute_stored_px("resnet50") == 256
    assert RECIPES["paper"].compute_stored_px("inception_v3") == 342
    assert _make_recipe(stored_short_side_px=64).compute_stored_px("resnet50") == 64
    assert _make_recipe(stored_short_side_px="native").compute_stored_px("resnet50") == "native"


@pytest.mark.parametrize("side", [31, "original", 0])
def test_a_stored_side_is_a_number_of_pixels_or_native(side: object) -> None:
    with pytest.raises(ValueError, match="stored_short_side_px"):
        _make_recipe(stored_short_side_px=side)


def test_only_the_paper_recipe_may_be_read_as_a_finding() -> None:
    assert {name for name, recipe in RECIPES.items() if not recipe.is_preview} == {"paper"}


def test_every_recipe_covers_every_architecture() -> None:
    for recipe in RECIPES.values():
        assert set(recipe.architectures) == set(ARCHITECTURES)


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1)])
def test_a_crop_scale_outside_its_range_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="crop_scale"):
        _make_recipe(crop_scale=scale)
