"""The packs of a node: each made once for all its processes, in bounded space, and whole.

Reads encoded images where a pack is missing or broken; writes packs into a folder of the node, each
under a hash of its images' contents. Beside a pack lies a file `.build`, locked by the process that
makes it.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from iqray.identity import hash_strings
from iqray.inputs.sources import ImageSource
from iqray.packs.building import compute_stored_shapes, select_category, write_packs
from iqray.packs.packing import Pack, PackWriter, compute_starts, is_whole, open_pack
from iqray.packs.room import Lease, PackRoom, delete_pack
from iqray.recipes import StoredSide

logger = logging.getLogger(__name__)

# Raise when packs of equal images would differ.
PACK_VERSION = 3

# Of a pack's files besides pixels and shapes, at most: headers and sums.
_OTHER_BYTES = 1024


@dataclass(frozen=True)
class PackRequest:
    """A category's images, to be packed.

    Attributes:
        category: of the images.
        images: its rows of the manifest, all ok.
        stored_px: short side of the stored images, pixels.
    """

    category: str
    images: pa.Table
    stored_px: StoredSide

    @cached_property
    def shapes(self) -> np.ndarray:
        """Heights and widths as stored: (num_images, 2) int64, pixels."""
        return compute_stored_shapes(self.images, self.stored_px)

    @property
    def num_bytes(self) -> int:
        """Of the pack's files, at most."""
        return int(compute_starts(self.shapes)[-1]) + self.shapes.nbytes + _OTHER_BYTES

    @cached_property
    def name(self) -> str:
        """Equal for equal packs: a hash of whatever decides about a pixel."""
        sums = self.images["sha256"].to_pylist()
        made_by = [str(PACK_VERSION), version("pillow"), str(self.stored_px)]
        return hash_strings([*made_by, *sums])[:32]


@dataclass(frozen=True)
class PackCache:
    """Packs on this node's disk.

    Attributes:
        folder: that holds them; must be on a disk of the node's own.
        limit_gib: space that packs may take; if none, half of what the disk has free without them.
    """

    folder: Path
    limit_gib: float | None = None

    def open(
        self,
        source: ImageSource,
        images: pa.Table,
        categories: Sequence[str],
        stored_px: StoredSide,
        num_threads: int = 1,
    ) -> list[Pack]:
        """Open a pack for each category, made where this node has none that is whole.

        Of processes that want the same pack one makes it and the others wait, after they have made
        what else they lack. Packs stay on the disk as long as a process holds them open; of the
        others the longest unused go first when space is needed.

        Args:
            source: of the dataset.
            images: rows of the manifest that are ok; a category's order is kept.
            categories: of the packs.
            stored_px: short side of the stored images, pixels.
            num_threads: that decode and verify.

        Raises:
            StudyError: an image cannot be read, or the packs do not fit into their space.
        """
        requests = [
            PackRequest(category, select_category(images, category), stored_px)
            for category in categories
        ]
        # Categories of equal images, such as those without any, share a pack.
        wanted = {self._locate(request): request for request in requests}
        room = PackRoom(self.folder, self.limit_gib)
        room.check_fits(sum(request.num_bytes for request in wanted.values()))
        leases = {path: Lease(path) for path in wanted}
        with ThreadPoolExecutor(num_threads) as executor:
            found = list(executor.map(is_whole, wanted))
        missing = [path for path, whole in zip(wanted, found, strict=True) if not whole]
        _Builder(room, source, images, wanted, num_threads).build(missing)
        paths = [self._locate(request) for request in requests]
        return [open_pack(path, leases[path]) for path in paths]

    def _locate(self, request: PackRequest) -> Path:
        return self.folder / request.name[:2] / request.name


@dataclass(frozen=True)
class _Builder:
    """Makes the missing packs of one request for packs."""

    room: PackRoom
    source: ImageSource
    images: pa.Table
    wanted: Mapping[Path, PackRequest]
    num_threads: int

    def build(self, missing: Sequence[Path]) -> None:
        """Make packs, first those that no other process is making."""
        # One after another where that reads nothing twice: an interruption loses less.
        apart = self.source.has_random_access
        groups = [[path] for path in missing] if apart else [sorted(missing)] if missing else []
        busy = [group for group in groups if not self._try(group, waits=False)]
        for group in busy:
            self._try(group, waits=True)

    def _try(self, group: Sequence[Path], waits: bool) -> bool:
        """Make a group's packs that are still missing, unless another process is making one."""
        with ExitStack() as stack:
            for path in group:  # in one order everywhere, so that processes never wait in a circle
                lock = FileLock(f"{path}.build", timeout=-1 if waits else 0)
                try:
                    stack.enter_context(lock)
                except Timeout:
                    return False
            paths = [path for path in group if not is_whole(path)]
            if not paths:
                return True
            for path in paths:
                self._clear(path)
            writers = {}
            with self.room.make(sum(self.wanted[path].num_bytes for path in paths)):
                # They take their space at once, so that it counts for the next process.
                for path in paths:
                    writer = PackWriter(self.wanted[path].shapes, path)
                    writers[self.wanted[path].category] = stack.enter_context(writer)
            write_packs(self.source, self.images, writers, self.num_threads)
        return True

    def _clear(self, path: Path) -> None:
        """Take away a broken pack, and what interrupted processes have left of it."""
        if path.exists():
            category = self.wanted[path].category
            logger.warning("pack %s of category '%s' is broken; making it again", path, category)
            delete_pack(path)
        for folder in path.parent.glob(f".{path.name}.*"):
            shutil.rmtree(folder, ignore_errors=True)
