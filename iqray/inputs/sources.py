"""Encoded bytes of a dataset's images, whatever its layout and wherever it lies.

Reads files, rows of Parquet files or members of tar files; writes nothing.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.images import ImageFailure
from iqray.inputs.layouts.base import ImageReader
from iqray.inputs.layouts.folders import FolderReader
from iqray.inputs.layouts.parquet import ParquetReader
from iqray.inputs.layouts.webdataset import TarReader

_ROW_COLUMNS = ["path", "container", "position", "num_bytes"]

# Pauses before a read is tried again: a busy disk or network recovers, a broken one does not.
_PAUSES_S = (0.2, 1.0, 4.0)

# Reads of an object store that are under way at once: each waits some 10 ms to 100 ms.
_NUM_AHEAD = 8


@dataclass(frozen=True)
class ImageSource:
    """Reads the images of one dataset. Cheap to pickle.

    Attributes:
        root: of the dataset.
        layout: as in the study.
        image_column: of layout parquet, else none.
    """

    root: ImageRoot
    layout: str = "folders"
    image_column: str | None = None

    @classmethod
    def of(cls, dataset: Dataset, root: ImageRoot) -> "ImageSource":
        """The source of a study's dataset."""
        return cls(root, dataset.layout, dataset.image_column)

    @property
    def key(self) -> str:
        """Key of where the images are: changes with root, layout and column."""
        return hash_content([self.root.uri, self.layout, self.image_column])

    @property
    def has_random_access(self) -> bool:
        """Whether reading one image costs no more than reading it among its neighbours."""
        return self.layout != "parquet"

    def describe(self, row: dict[str, Any]) -> str:
        """An image and the file that holds it, for messages."""
        if not row["container"]:
            return self.root.describe(row["path"])
        return f"{row['path']}' in '{self.root.describe(row['container'])}"

    def read(self, rows: pa.Table) -> Iterator[bytes | ImageFailure]:
        """Read images in the order of their rows.

        Rows sorted by container and position, as manifests are, hold the least memory: with
        parquet, the asked-for images of a row group are kept until their turn.

        Args:
            rows: with path, container, position and num_bytes of a manifest.

        Yields:
            Encoded bytes, or a failure `missing`.

        Raises:
            StudyError: a file cannot be read, after several attempts. That may be mended, so it
                must not be recorded as an image's failure.
        """
        reader = self._make_reader(rows)
        asked = rows.select(_ROW_COLUMNS).to_pylist()
        read = lambda row: self._read_patiently(reader, row)  # noqa: E731
        if self.root.is_local or not reader.can_read_ahead:
            yield from map(read, asked)
        else:
            yield from _read_ahead(read, asked)

    def _make_reader(self, rows: pa.Table) -> ImageReader:
        if self.layout == "parquet":
            assert self.image_column is not None
            return ParquetReader(self.root, self.image_column, rows)
        return TarReader(self.root) if self.layout == "webdataset" else FolderReader(self.root)

    def _read_patiently(self, reader: ImageReader, row: dict[str, Any]) -> bytes | ImageFailure:
        for pause_s in (*_PAUSES_S, None):
            try:
                return reader.read(row)
            except FileNotFoundError:
                lacking = f" '{row['container']}'" if row["container"] else ""
                return ImageFailure("missing", f"no such file{lacking}")
            except OSError as error:
                is_lasting = isinstance(error, IsADirectoryError | NotADirectoryError)
                if pause_s is None or is_lasting:
                    raise StudyError(
                        f"image '{self.describe(row)}' cannot be read: {error}"
                    ) from error
                time.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")


def _read_ahead(
    read: Callable[[dict[str, Any]], bytes | ImageFailure], rows: Iterable[dict[str, Any]]
) -> Iterator[bytes | ImageFailure]:
    """Keep some reads under way; results keep their order."""
    rows = iter(rows)
    with ThreadPoolExecutor(_NUM_AHEAD) as executor:
        waiting: deque[Future[bytes | ImageFailure]] = deque(
            executor.submit(read, row) for row in islice(rows, _NUM_AHEAD)
        )
        while waiting:
            data = waiting.popleft().result()
            waiting.extend(executor.submit(read, row) for row in islice(rows, 1))
            yield data
