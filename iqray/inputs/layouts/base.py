"""What every layout gives: a table of the images it finds, and a reader of their bytes."""

from typing import Any, Protocol

import pyarrow as pa

from iqray.dataset import Dataset
from iqray.inputs.image_root import FoundFile
from iqray.inputs.images import ImageFailure

# One row per image of a split, in the order in which reading them is cheap.
FOUND = pa.schema(
    [
        ("category", pa.string()),
        ("name", pa.string()),  # what the user calls it; null where the layout has no name
        ("num_bytes", pa.int64()),  # encoded; null where only reading tells
        ("modified_ns", pa.int64()),  # of the file that holds it; 0 where the store does not say
        ("file_bytes", pa.int64()),  # of the file that holds it
        ("container", pa.string()),  # file that holds it, relative to the root; empty: its own
        ("position", pa.int64()),  # row (parquet), byte offset of its data (webdataset), else 0
    ]
)

# Parts of a path made by iqray, where the user's own name does not tell images apart.
SEPARATOR = "#"


class ImageReader(Protocol):
    """Reads images of one dataset; made anew for every table of rows."""

    can_read_ahead: bool  # whether `read` may be called from several threads

    def read(self, row: dict[str, Any]) -> bytes | ImageFailure:
        """Encoded bytes of an image.

        Args:
            row: path, container, position and num_bytes of a manifest row.

        Raises:
            FileNotFoundError: the file is missing.
            OSError: the file cannot be read now.
            StudyError: the file can never be read, or has changed.
        """
        ...


def describe_file(file: FoundFile, count: int) -> dict[str, pa.Array]:
    """Columns of `FOUND` that are equal for all images of one container."""
    return {
        "modified_ns": pa.repeat(pa.scalar(file.modified_ns, pa.int64()), count),
        "file_bytes": pa.repeat(pa.scalar(file.num_bytes, pa.int64()), count),
        "container": pa.repeat(pa.scalar(file.path, pa.string()), count),
    }


def describe_layout(dataset: Dataset) -> str:
    """Where a dataset's images should be, for messages."""
    splits = [split for split in (dataset.train, dataset.test) if split is not None]
    forms = {
        "folders": "<root>/{}/<category>/",
        "parquet": "Parquet files below, or matching, <root>/{}",
        "webdataset": "tar files below, or matching, <root>/{}",
    }
    places = " and ".join(forms[dataset.layout].format(split) for split in splits)
    return f"layout {dataset.layout} needs {places}"
