import itertools

import pytest

from iqray.metrics.batches import ACCELERATOR_BATCH_PX, CPU_BATCH_PX, plan_batches


def list_shapes():
    sides = [96, 375, 500, 4000]
    return [(height, width, 3) for height, width in itertools.product(sides, sides)] * 12


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("mixes_shapes", [True, False])
def test_every_image_is_in_one_batch_within_the_budget(on_cpu, mixes_shapes):
    shapes = list_shapes()
    batches = plan_batches(shapes, on_cpu, added_px=1000, mixes_shapes=mixes_shapes)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(shapes)))
    budget = CPU_BATCH_PX if on_cpu else ACCELERATOR_BATCH_PX
    for batch in batches:
        largest = max(shapes[index][0] * shapes[index][1] for index in batch) + 1000
        assert len(batch) == 1 or len(batch) * largest <= budget


def test_a_batch_has_one_shape_unless_shapes_may_mix():
    shapes = list_shapes()
    plain = plan_batches(shapes, on_cpu=False)
    assert all(len({shapes[index] for index in batch}) == 1 for batch in plain)
    mixed = plan_batches(shapes, on_cpu=False, mixes_shapes=True)
    assert any(len({shapes[index] for index in batch}) > 1 for batch in mixed)
    assert len(mixed) < len(plain)


def test_an_image_beyond_the_budget_goes_alone():
    assert plan_batches([(9000, 9000, 3)] * 2, on_cpu=False) == [[0], [1]]


def test_no_images_make_no_batches():
    assert plan_batches([], on_cpu=True) == []
