"""What a process does to write a shard of changed images."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from iqray.errors import StudyError
from iqray.inputs.decoding import read_images
from iqray.inputs.images import ImageFailure, decode_image
from iqray.inputs.sources import ImageSource
from iqray.interventions.image_changes import change_pixels, encode_png
from iqray.pools import Written
from iqray.schemas import DERIVED_IMAGES
from iqray.settings.intervention import Variant
from iqray.storage import Storage


class InterventionWorker:
    """Changes images and writes them into a Parquet file, without loss.

    Args:
        storage: the output root.
        sources: of the images, by dataset.
    """

    def __init__(self, storage: Storage, sources: Mapping[str, ImageSource]) -> None:
        self._storage = storage
        self._sources = sources

    def work(self, rows: pa.Table, variant: dict[str, Any], path: str) -> list[Written]:
        """Write a file of `schemas.DERIVED_IMAGES`.

        Args:
            rows: of the manifest, all of one dataset and readable.
            variant: fields of a `Variant`.
            path: of the file.
        """
        change = Variant(**variant)
        [dataset] = rows["dataset"].unique().to_pylist()
        images = [
            self._change(data, row, change)
            for data, row in zip(
                read_images(rows, self._sources[dataset]), rows.to_pylist(), strict=True
            )
        ]
        columns = [pa.array(images, pa.binary()), rows["category"], rows["path"]]
        self._storage.write_table(path, pa.table(columns, schema=DERIVED_IMAGES))
        return [Written(change.name, rows.num_rows, 0)]

    def _change(self, data: bytes | ImageFailure, row: dict[str, Any], variant: Variant) -> bytes:
        assert isinstance(data, bytes), row
        if variant.keeps_pixels:
            return data
        image = decode_image(data)
        if isinstance(image, ImageFailure):
            raise StudyError(f"image '{row['path']}' cannot be decoded any more: {image.reason}")
        return encode_png(change_pixels(image.pixels, variant, row["image_id"], row["path"]))
