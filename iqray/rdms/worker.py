"""What a process does to turn an embedding table into RDMs."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqray.embeddings.tables import split_embedding_table
from iqray.inputs.manifest import get_manifest_path
from iqray.pools import Written
from iqray.settings.rdm import CATEGORY
from iqray.storage import Storage


class RdmWorker:
    """Writes the RDMs of one embedding table after another.

    Args:
        storage: the output root.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # The last dataset's, as tables come dataset by dataset: 2.7 million paths take 0.2 GB.
        self._read_paths = lru_cache(1)(self._read_paths_of)

    def work(
        self, rows: pa.Table, descriptors: Mapping[str, str], files: list[dict[str, str]]
    ) -> list[Written]:
        """Write RDMs.

        Args:
            rows: a whole table of `schemas.build_embedding_schema`.
            descriptors: dataset, images, layer, network and architecture of the table.
            files: level, measure, path and key of each RDM to write.
        """
        # Imported here, as the driver has no use for h5py and scipy.
        from iqray.rdms.blocks import iterate_rdm
        from iqray.rdms.files import write_rdm
        from iqray.rdms.rdm import compute_centroids

        embeddings, categories = split_embedding_table(rows)
        for file in files:
            if file["level"] == CATEGORY:
                _, vectors = compute_centroids(embeddings, categories)
                conditions = _describe_categories(categories)
            else:
                vectors, conditions = embeddings, self._describe_images(rows, descriptors)
            write_rdm(
                self._storage,
                file["path"],
                conditions,
                iterate_rdm(vectors, file["measure"]),
                file["measure"],
                {**descriptors, "level": file["level"]},
                file["key"],
            )
        return [Written(descriptors["network"], len(files), 0)]

    def _describe_images(self, rows: pa.Table, descriptors: Mapping[str, str]) -> pa.Table:
        known = self._read_paths(descriptors["dataset"])
        where = pc.index_in(rows["image_id"], value_set=known["image_id"].combine_chunks())
        return pa.table(
            {
                "category": rows["category"],
                "path": known["path"].take(where),
                "image_id": rows["image_id"],
                "num_images": pa.repeat(pa.scalar(1, pa.int64()), rows.num_rows),
            }
        )

    def _read_paths_of(self, dataset: str) -> pa.Table:
        return self._storage.read_table(get_manifest_path(dataset), columns=["image_id", "path"])


def _describe_categories(categories: list[str]) -> pa.Table:
    names, counts = np.unique(np.asarray(categories, dtype=str), return_counts=True)
    columns: dict[str, Any] = {
        "category": pa.array(names.tolist(), pa.string()),
        "path": pa.nulls(len(names), pa.string()),
        "image_id": pa.nulls(len(names), pa.int64()),
        "num_images": pa.array(counts, pa.int64()),
    }
    return pa.table(columns)
