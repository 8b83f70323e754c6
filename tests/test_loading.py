import threading

import numpy as np
import pytest
import torch

from iqray.packs.packing import PackedImages
from iqray.recipes import RECIPES
from iqray.training.augment import BatchStream, compute_centre_boxes
from iqray.training.batches import make_batch
from iqray.training.loading import BatchLoader, BatchPlanner, Placement, choose_placement
from tests.toy_images import make_colour_data

CPU = torch.device("cpu")
RECIPE = RECIPES["paper"].model_copy(update={"batch_size": 8})


@pytest.fixture(scope="module")
def data() -> PackedImages:
    return make_colour_data(7, seed=1)


def plan(data: PackedImages, **changes: object) -> BatchPlanner:
    recipe = RECIPE.model_copy(update=changes)
    return BatchPlanner(BatchStream(len(data), 8, seed=3), data.shapes, recipe, 32)


def take(data: PackedImages, placement: Placement, steps: list[int]) -> list[torch.Tensor]:
    with BatchLoader(data, plan(data), CPU, placement) as loader:
        return [loader.take(step)[0] for step in steps]


def test_batches_made_ahead_equal_those_made_when_asked_for(data: PackedImages) -> None:
    # Also where a training starts in the middle or goes back.
    steps = [5, 6, 7, 2, 3]
    direct, ahead = take(data, "direct", steps), take(data, "ahead", steps)
    for batch, other in zip(direct, ahead, strict=True):
        assert torch.equal(batch, other)
    assert not torch.equal(direct[0], direct[1])


def test_the_number_of_threads_changes_nothing(data: PackedImages) -> None:
    before = torch.get_num_threads()
    try:
        batches = []
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            batches.append(take(data, "direct", [0, 1]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_resident_batches_agree_within_a_level(data: PackedImages) -> None:
    [host], [resident] = take(data, "direct", [4]), take(data, "resident", [4])
    assert (host - resident).abs().max() < 1.001 / 255 / 0.224


def test_no_thread_is_left_behind(data: PackedImages) -> None:
    before = threading.active_count()
    take(data, "ahead", [0, 1])
    assert threading.active_count() == before


def test_an_error_in_the_thread_reaches_the_training(data: PackedImages) -> None:
    broken = PackedImages(data.packs[:1], data.targets, data.shapes)
    with (
        BatchLoader(broken, plan(data), CPU, "ahead") as loader,
        pytest.raises(IndexError),
    ):
        loader.take(0)


def test_targets_belong_to_the_images(data: PackedImages) -> None:
    planner = plan(data, crop="centre", flip=False)
    with BatchLoader(data, planner, CPU) as loader:
        images, targets = loader.take(1)
    _, indices = planner.stream.take(1)
    boxes = compute_centre_boxes(data.shapes[indices])
    expected = make_batch([data.image(i) for i in indices], boxes, np.zeros(8, bool), 32)
    assert torch.equal(images, expected)
    assert targets.tolist() == data.targets[indices].tolist()


@pytest.mark.parametrize("placement", ["direct", "ahead"])
def test_a_loader_can_follow_another_plan(data: PackedImages, placement: Placement) -> None:
    other = BatchPlanner(BatchStream(len(data), 5, seed=4), data.shapes, RECIPE, 32)
    with BatchLoader(data, other, CPU) as loader:
        expected = loader.take(3)[0]
    with BatchLoader(data, plan(data), CPU, placement) as loader:
        loader.take(2)  # a batch of step 3 is under way
        loader.follow(other)
        assert torch.equal(loader.take(3)[0], expected)


def test_only_an_accelerator_gets_batches_made_elsewhere() -> None:
    assert choose_placement(10, 1000, CPU) == "direct"
    cuda = torch.device("cuda")  # a name; none is used
    assert choose_placement(10, 1000, cuda) == "resident"
    assert choose_placement(900, 1000, cuda) == "ahead"


def test_each_way_to_crop_gives_its_own_boxes(data: PackedImages) -> None:
    shapes = data.shapes[plan(data).plan(2).indices]
    resized, square, centre = (
        plan(data, crop=crop).plan(2).boxes for crop in ("random_resized", "random", "centre")
    )
    np.testing.assert_array_equal(centre, compute_centre_boxes(shapes))
    assert (square[:, 2:] == 32).all()
    assert len({tuple(box) for box in square.tolist()}) > 1
    assert len({tuple(size) for size in resized[:, 2:].tolist()}) > 1
