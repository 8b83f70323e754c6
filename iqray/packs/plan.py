"""Disk space that the packs of a study's trials take, known before any image is decoded. Pure."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqray.errors import StudyError
from iqray.packs.building import compute_stored_shapes
from iqray.recipes import StoredSide
from iqray.trials import Trial
from iqray.usable_images import select_usable

_GIB = 2**30


def check_packs_fit(
    trials: Iterable[Trial], manifests: Mapping[str, pa.Table], limit_gib: float
) -> None:
    """Refuse a bound that the images of one trial alone exceed.

    Args:
        trials: to be trained.
        manifests: by dataset.
        limit_gib: space that packs may take on a node.

    Raises:
        StudyError: a trial's images take more.
    """
    sizes: dict[tuple[str, StoredSide], dict[str, int]] = {}
    for trial in trials:
        key = trial.dataset, trial.recipe.compute_stored_px(trial.architecture)
        if key not in sizes:
            sizes[key] = compute_category_bytes(manifests[trial.dataset], key[1])
        needed_gib = sum(sizes[key].get(name, 0) for name in trial.categories) / _GIB
        if needed_gib > limit_gib:
            raise StudyError(
                f"training.pack_cache_gib is {limit_gib:g}, but the images of trial "
                f"{trial.trial_id} take {needed_gib:.3g} GiB when packed; raise it, or lower "
                "recipe.stored_short_side_px"
            )


def compute_category_bytes(manifest: pa.Table, stored_px: StoredSide) -> dict[str, int]:
    """Bytes of each category's decoded images, of all splits, as they are stored.

    Args:
        manifest: of a dataset.
        stored_px: short side of the stored images, pixels.
    """
    usable = select_usable(manifest, ["category", "height", "width", "status"])
    num_bytes = 3 * compute_stored_shapes(usable, stored_px).prod(axis=1)
    encoded = pc.dictionary_encode(usable["category"].combine_chunks())
    names = encoded.dictionary.to_pylist()
    sums = np.zeros(len(names), dtype=np.int64)
    np.add.at(sums, encoded.indices.to_numpy(), num_bytes)
    return dict(zip(names, sums.tolist(), strict=True))
