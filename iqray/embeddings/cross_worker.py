"""What a process does to measure every subset's images in the embeddings of one network."""

from collections.abc import Mapping, Sequence

import pandas as pd
import pyarrow as pa

from iqray.embeddings.tables import split_embedding_table
from iqray.pools import Written
from iqray.schemas import NETWORK_DISTANCES
from iqray.storage import Storage


class CrossWorker:
    """Measures one embedding table after another; memory holds one.

    Args:
        storage: the output root.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def work(
        self,
        rows: pa.Table,
        subsets: Mapping[str, Mapping[str, Sequence[str]]],
        seed: int,
        num_matched: int,
        path: str,
        key: str,
    ) -> list[Written]:
        """Write a table of `schemas.NETWORK_DISTANCES`.

        Args:
            rows: a whole table of `schemas.build_embedding_schema`.
            subsets: categories by metric and subset.
            seed: of the network.
            num_matched: test images of a category among which distances are taken.
            path: of the table to write.
            key: of it.
        """
        # Imported here, as the driver has no use for scipy.
        from iqray.results.cross_distances import measure_subset

        embeddings, categories = split_embedding_table(rows)
        measured = [
            (metric, subset, *measure_subset(embeddings, categories, chosen, seed, num_matched))
            for metric, own in subsets.items()
            for subset, chosen in own.items()
        ]
        frame = pd.DataFrame(measured, columns=NETWORK_DISTANCES.names)
        table = pa.Table.from_pandas(frame, schema=NETWORK_DISTANCES, preserve_index=False)
        self._storage.write_table(path, table.replace_schema_metadata(), key=key)
        return [Written(path, 1, 0)]
