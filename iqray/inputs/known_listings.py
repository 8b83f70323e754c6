"""A dataset's listing without opening its files, where a finished manifest already tells it.

Reads `manifest/<dataset>.parquet`; writes nothing. Only layouts whose files hold many images gain
by it: opening the tar files of millions of images takes minutes, finding them takes seconds.
"""

import logging

import pyarrow as pa

from iqray.dataset import Dataset
from iqray.inputs.listing import (
    LISTING_KEY_FIELD,
    RESTORED_COLUMNS,
    find_containers,
    list_images,
    make_listing_key,
    restore_listing,
)
from iqray.inputs.manifest import get_manifest_path, make_manifest_key
from iqray.inputs.sources import ImageSource
from iqray.storage import Storage

logger = logging.getLogger(__name__)


def list_or_restore(dataset: Dataset, source: ImageSource, storage: Storage) -> pa.Table:
    """All images of a dataset, as `listing.list_images` gives them.

    They are taken from the dataset's manifest where that was made under the same settings from
    files of the same names, sizes and modification times; any other file means listing anew.

    Args:
        dataset: of the study.
        source: of its images.
        storage: the output root, with or without a manifest.

    Raises:
        StudyError: as `list_images` raises it.
    """
    containers = find_containers(dataset, source.root)
    key = make_listing_key(dataset, source.root, containers)
    path = get_manifest_path(dataset.name)
    if key and storage.read_metadata(path, LISTING_KEY_FIELD) == key:
        rows = storage.read_table(path, list(RESTORED_COLUMNS))
        listing = restore_listing(dataset, rows, containers, key)
        # The manifest's own key covers every row, so that a wrong listing cannot pass.
        if storage.read_key(path) == make_manifest_key(source, listing):
            logger.info("images of '%s' are as its manifest lists them", dataset.name)
            return listing
    return list_images(dataset, source.root)
