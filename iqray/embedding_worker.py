"""What a process does to embed a set of images with a network.

Reads images and a network's weights, writes `embeddings/<dataset>/<set>/<layer>/<network>.parquet`.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from iqray.embedding_tables import build_embedding_table
from iqray.identity import hash_strings
from iqray.inputs.sources import ImageSource
from iqray.network_kinds import Network
from iqray.node_cache import get_cache_folder
from iqray.pools import Written
from iqray.storage import Storage

if TYPE_CHECKING:
    from iqray.packing import PackedImages

_BATCH_SIZE = 64


class EmbeddingWorker:
    """Embeds images with one network after another.

    Args:
        storage: the output root.
        sources: of the images, by dataset.
        device: torch's name of it.
        num_threads: of torch on the CPU.
    """

    def __init__(
        self, storage: Storage, sources: Mapping[str, ImageSource], device: str, num_threads: int
    ) -> None:
        import torch

        torch.set_num_threads(num_threads)
        self._storage = storage
        self._sources = sources
        self._device = torch.device(device)

    def work(
        self,
        rows: pa.Table,
        network: dict[str, Any],
        input_px: int,
        stored_px: int,
        files: dict[str, str],
        key: str,
    ) -> list[Written]:
        """Embed images and write one table per layer.

        Args:
            rows: of the manifest, all of one dataset, by category and path.
            network: fields of a `Network`.
            input_px: side of the network input, pixels.
            stored_px: short side at which images are kept, pixels.
            files: by layer the path to write.
            key: of what is written.
        """
        from iqray.embeddings import embed_layers
        from iqray.networks import build_network, decode_state

        described = Network(**network)
        state = decode_state(self._storage.read_bytes(described.path))
        model = build_network(state, described.architecture, described.rescales_input)
        model.to(self._device)
        data = self._pack(rows, stored_px)
        found = embed_layers(model, data, input_px, _BATCH_SIZE, list(files))
        for layer, path in files.items():
            self._storage.write_table(path, build_embedding_table(rows, found[layer]), key=key)
        return [Written(described.name, rows.num_rows, 0)]

    def _pack(self, images: pa.Table, stored_px: int) -> "PackedImages":
        """Decoded images, from the packs that trials on this node share."""
        from iqray.packing import concatenate, open_pack, pack_images
        from iqray.trial_runner import PACK_VERSION

        [dataset] = images["dataset"].unique().to_pylist()
        source = self._sources[dataset]
        targets = {}
        for category in images["category"].unique().to_pylist():
            own = images.filter(pc.equal(images["category"], category))
            sums = own["sha256"].to_pylist()
            content = hash_strings([str(PACK_VERSION), version("pillow"), str(stored_px), *sums])
            targets[category] = get_cache_folder() / "packs" / content[:2] / content[:32]
        pack_images(source, images, stored_px, targets)
        return concatenate([open_pack(target) for target in targets.values()])
