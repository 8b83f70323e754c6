"""What a process does to embed a set of images with a network.

Reads images and a network's weights, writes `embeddings/<dataset>/<set>/<layer>/<network>.parquet`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqray.embeddings.network_kinds import Network
from iqray.embeddings.tables import build_embedding_table
from iqray.inputs.sources import ImageSource
from iqray.node_cache import get_cache_folder
from iqray.pools import Written
from iqray.recipes import StoredSide
from iqray.storage import Storage

if TYPE_CHECKING:
    from iqray.packs.packing import PackedImages

_BATCH_SIZE = 64


class EmbeddingWorker:
    """Embeds images with one network after another.

    Args:
        storage: the output root.
        sources: of the images, by dataset.
        device: torch's name of it.
        num_threads: of torch on the CPU, and for decoding.
        pack_cache_gib: disk space of this node for decoded images; none for half of what is free.
    """

    def __init__(
        self,
        storage: Storage,
        sources: Mapping[str, ImageSource],
        device: str,
        num_threads: int,
        pack_cache_gib: float | None,
    ) -> None:
        import torch

        torch.set_num_threads(num_threads)
        self._storage = storage
        self._sources = sources
        self._device = torch.device(device)
        self._num_threads = num_threads
        self._pack_cache_gib = pack_cache_gib

    def work(
        self,
        rows: pa.Table,
        network: dict[str, Any],
        input_px: int,
        stored_px: StoredSide,
        files: dict[str, str],
        key: str,
    ) -> list[Written]:
        """Embed images and write one table per layer.

        Args:
            rows: of the manifest, all of one dataset, by category and path.
            network: fields of a `Network`.
            input_px: side of the network input, pixels.
            stored_px: short side at which images are kept, pixels, or native.
            files: by layer the path to write.
            key: of what is written.
        """
        from iqray.embeddings.layers import embed_layers
        from iqray.embeddings.networks import build_network, decode_state

        described = Network(**network)
        state = decode_state(self._storage.read_bytes(described.path))
        model = build_network(state, described.architecture, described.rescales_input)
        model.to(self._device)
        data = self._pack(rows, stored_px)
        found = embed_layers(model, data, input_px, _BATCH_SIZE, list(files))
        for layer, path in files.items():
            self._storage.write_table(path, build_embedding_table(rows, found[layer]), key=key)
        return [Written(described.name, rows.num_rows, 0)]

    def _pack(self, images: pa.Table, stored_px: StoredSide) -> "PackedImages":
        """Decoded images, from the packs that trials on this node share."""
        from iqray.packs.cache import PackCache
        from iqray.packs.packing import concatenate

        [dataset] = images["dataset"].unique().to_pylist()
        categories = images["category"].unique().to_pylist()
        cache = PackCache(get_cache_folder() / "packs", self._pack_cache_gib)
        packs = cache.open(self._sources[dataset], images, categories, stored_px, self._num_threads)
        return concatenate(packs)
