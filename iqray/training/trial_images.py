"""The images that a trial trains and tests on: rows of the manifest, and their packs.

Packs are of all images of a category, so that trials that train on some of them share these.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqray.packs.packing import Pack, PackedImages, concatenate
from iqray.trials import Trial
from iqray.usable_images import select_usable

# Opens the packs of images' categories, in the order of the trial's.
OpenPacks = Callable[[pa.Table], list[Pack]]


def select_images(manifest: pa.Table, trial: Trial, split: str) -> pa.Table:
    """Usable images that a trial takes, by category as the targets go, then by path.

    Args:
        manifest: of the dataset.
        trial: that trains or tests on them.
        split: train or test.
    """
    images = _select_categories(manifest, trial, split)
    if split == "test" or trial.chosen is None:
        return images
    return images.filter(_find_chosen(images, trial.chosen))


def open_training_images(manifest: pa.Table, trial: Trial, open_packs: OpenPacks) -> PackedImages:
    """Decoded images of `select_images`; none, and no pack, for a trial that takes no step.

    Args:
        manifest: of the dataset.
        trial: that trains on them.
        open_packs: makes the packs that are missing.
    """
    if not trial.num_steps:
        return concatenate([])
    images = _select_categories(manifest, trial, "train")
    data = concatenate(open_packs(images))
    if trial.chosen is None:
        return data
    return data.select(np.asarray(_find_chosen(images, trial.chosen)))


def _select_categories(manifest: pa.Table, trial: Trial, split: str) -> pa.Table:
    usable = select_usable(manifest)
    wanted = pc.and_(
        pc.equal(usable["split"], split),
        pc.is_in(usable["category"], value_set=pa.array(trial.categories)),
    )
    return usable.filter(wanted).sort_by([("category", "ascending"), ("path", "ascending")])


def _find_chosen(images: pa.Table, chosen: np.ndarray) -> pa.ChunkedArray:
    return pc.is_in(images["image_id"], value_set=pa.array(chosen, pa.int64()))
