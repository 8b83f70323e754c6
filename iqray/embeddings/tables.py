"""Embeddings as tables: one row per image."""

import numpy as np
import pyarrow as pa

from iqray import schemas


def build_embedding_table(images: pa.Table, embeddings: np.ndarray) -> pa.Table:
    """Table of `schemas.build_embedding_schema`.

    Args:
        images: rows of the manifest.
        embeddings: (num_images, dim) float32, of these images.
    """
    schema = schemas.build_embedding_schema(embeddings.shape[1])
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(embeddings).reshape(-1)), type=schema.field("embedding").type
    )
    return pa.table([images["image_id"], images["category"], column], schema=schema)


def split_embedding_table(table: pa.Table) -> tuple[np.ndarray, list[str]]:
    """Embeddings (num_images, dim) float32 and categories of a table's images."""
    column = table["embedding"].combine_chunks()
    embeddings = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
    return embeddings, table["category"].to_pylist()
