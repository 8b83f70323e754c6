"""Tell a network that learns from one that only guesses. Pure.

A network whose output does not depend on the image reaches, at best, the entropy of the training
images' categories: ln(k) nats where all k have equally many. (With label smoothing the targets'
entropy: also ln(k) then, as smoothing moves targets towards the uniform distribution.) The gap
between that chance loss and the loss is at most what the output tells about the category, so a gap
of `Recipe.chance_margin` = 2 % of the chance loss says that under 2 % of what there is to know has
been learned. Networks that train leave that band in their first epochs; those that never started,
or whose units have died, stay in it for good.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from iqray.recipes import Recipe

# The loss is averaged over whole epochs that cover this share of all steps, so that neither a
# small epoch nor one bad epoch decides.
_WINDOW_SHARE = 0.1


def compute_chance_loss(targets: np.ndarray, num_categories: int, label_smoothing: float) -> float:
    """Smallest mean cross entropy without looking at the images, nats; ln(k) for equal counts.

    Args:
        targets: (num_images,) integers in [0, num_categories), of the training images.
        num_categories: of the trial.
        label_smoothing: of the loss, in [0, 1).
    """
    shares = np.bincount(targets, minlength=num_categories) / len(targets)
    expected = (1 - label_smoothing) * shares + label_smoothing / num_categories
    present = expected[expected > 0]
    return float(-(present * np.log(present)).sum())


def find_stall(
    rows: Sequence[Mapping[str, Any]], recipe: Recipe, num_steps: int, chance_loss: float
) -> str | None:
    """Say that a training is stuck at chance level, or nothing.

    It is when the mean loss over the last epochs (`_WINDOW_SHARE` of all steps, at least one
    epoch) is within `recipe.chance_margin` of the chance loss or above it. Asked from the share
    `recipe.watch_from` of all steps on.

    Args:
        rows: of the attempt's log so far, one per epoch, the latest last.
        recipe: what is followed.
        num_steps: optimizer steps of the whole training.
        chance_loss: from `compute_chance_loss`.
    """
    done = rows[-1]["step"]
    if recipe.watch_from is None or done < recipe.watch_from * num_steps:
        return None
    ends = np.array([row["step"] for row in rows])
    lengths = np.diff(ends, prepend=0)
    recent = ends > done - _WINDOW_SHARE * num_steps
    losses = np.array([row["loss"] for row in rows])
    loss = float(np.average(losses[recent], weights=lengths[recent]))
    if loss < (1 - recipe.chance_margin) * chance_loss:
        return None
    return (
        f"stuck at chance level: loss {loss:.4f} after {done:.0f} of {num_steps} steps, where "
        f"guessing has {chance_loss:.4f}"
    )
