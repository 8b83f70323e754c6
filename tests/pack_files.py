"""Packs written without the cache of a node."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from iqray.inputs.sources import ImageSource
from iqray.packs.building import compute_stored_shapes, select_category, write_packs
from iqray.packs.packing import PackWriter
from iqray.recipes import StoredSide


def pack_images(
    source: ImageSource,
    images: pa.Table,
    stored_px: StoredSide,
    targets: Mapping[str, Path],
    num_threads: int = 1,
) -> None:
    """Write a pack for each category that has none, in this process.

    Args:
        source: of the dataset.
        images: rows of the manifest that are ok; a category's order is kept.
        stored_px: short side of the stored images, pixels.
        targets: folder of each category's pack.
        num_threads: that decode.

    Raises:
        StudyError: an image cannot be read or decoded, or has changed; the message names it.
    """
    with contextlib.ExitStack() as stack:
        writers = {}
        for category, target in targets.items():
            if not target.exists():
                shapes = compute_stored_shapes(select_category(images, category), stored_px)
                writers[category] = stack.enter_context(PackWriter(shapes, target))
        write_packs(source, images, writers, num_threads)
