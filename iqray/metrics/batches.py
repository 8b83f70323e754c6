"""Which images share a forward pass: as many as a budget of pixels allows, of one shape or several.

Reads shapes and gives positions; what a batch holds never changes a score.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

# Pixels of a batch. CPU: measured on one core, larger batches gain nothing and fall out of cache.
# Elsewhere an estimate: DBCNN's largest maps are 64 channels of float32, 1 GiB at 4 Mpx.
CPU_BATCH_PX = 2**18
ACCELERATOR_BATCH_PX = 2**22


def plan_batches(
    shapes: Sequence[tuple[int, ...]], on_cpu: bool, added_px: int = 0, mixes_shapes: bool = False
) -> list[list[int]]:
    """Put images into batches.

    Args:
        shapes: of the images, height and width first.
        on_cpu: which of the two budgets holds.
        added_px: pixels that a metric looks at beyond an image's own.
        mixes_shapes: whether a batch may hold several shapes. Each image then costs as much as the
            batch's largest, so images of like size go together.

    Returns:
        Positions in `shapes`, each once; every batch has at least one.
    """
    budget_px = CPU_BATCH_PX if on_cpu else ACCELERATOR_BATCH_PX
    costs_px = [shape[0] * shape[1] + added_px for shape in shapes]
    if mixes_shapes:
        return list(
            _fill(sorted(range(len(shapes)), key=costs_px.__getitem__), costs_px, budget_px)
        )
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, shape in enumerate(shapes):
        by_shape[shape].append(position)
    return [
        batch for positions in by_shape.values() for batch in _fill(positions, costs_px, budget_px)
    ]


def _fill(positions: Sequence[int], costs_px: Sequence[int], budget_px: int) -> Iterator[list[int]]:
    """Cut positions, in order of cost, into batches whose images all cost as much as the last."""
    batch: list[int] = []
    for position in positions:
        if batch and (len(batch) + 1) * costs_px[position] > budget_px:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
