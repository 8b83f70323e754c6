"""What a trial's embeddings cover, measured once and kept beside them.

Reads `trials/<trial_id>/embeddings.parquet`; writes `category_distances.parquet` there and, last,
`distances.json` with the numbers of every definition (`iqray.results.distances`).
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from iqray import schemas
from iqray.embeddings.tables import split_embedding_table
from iqray.finite import drop_non_finite
from iqray.rdms.rdm import match_counts
from iqray.results.distances import CoveredSpace, measure_space
from iqray.storage import Storage
from iqray.trials import Trial

# Raise when the same embeddings would give other numbers or more of them.
DISTANCES_VERSION = 1

_NUM_READERS = 16


def write_distances(
    storage: Storage, trial: Trial, images: pa.Table, embeddings: np.ndarray
) -> CoveredSpace:
    """Measure a trial's embeddings at matched image counts, and write what comes out.

    Args:
        storage: the output root.
        trial: that made the embeddings.
        images: columns image_id and category of its test images.
        embeddings: `(num_images, dim)`, of these images.
    """
    categories = images["category"].to_pylist()
    matched = match_counts(categories, trial.seed, trial.num_matched)
    space = measure_space(embeddings[matched], [categories[index] for index in matched])
    folder = f"trials/{trial.trial_id}"
    table = _build_category_distances(images.take(pa.array(matched)), space)
    storage.write_table(f"{folder}/category_distances.parquet", table)
    definitions = {
        name: {"value": drop_non_finite(value), "mean": drop_non_finite(space.means[name])}
        for name, value in space.totals.items()
    }
    described = {"version": DISTANCES_VERSION, "definitions": definitions}
    storage.write_json(f"{folder}/distances.json", described)
    return space


def provide_distances(
    storage: Storage, trials: Mapping[str, Trial]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Numbers by trial and definition, each `value` and `mean`; what is missing is measured.

    Args:
        storage: the output root.
        trials: finished ones, by id.
    """
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        numbers = readers.map(lambda trial_id: _read(storage, trial_id), trials)
        found = dict(zip(trials, numbers, strict=True))
    for trial_id, trial in trials.items():
        if found[trial_id] is None:
            table = storage.read_table(f"trials/{trial_id}/embeddings.parquet")
            write_distances(storage, trial, table, split_embedding_table(table)[0])
            found[trial_id] = _read(storage, trial_id)
    return {trial_id: known for trial_id, known in found.items() if known is not None}


def read_category_distances(storage: Storage, trial_id: str) -> tuple[np.ndarray, np.ndarray]:
    """A finished trial's mean distances from images to categories.

    Returns:
        `(num_images, num_categories) float32`, NaN where there is no other image, and the position
        of each image's own category: `(num_images,)` integers.
    """
    table = storage.read_table(f"trials/{trial_id}/category_distances.parquet")
    column = table["distances"].combine_chunks()
    distances = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
    _, targets = np.unique(table["category"].to_pylist(), return_inverse=True)
    return distances, targets


def _read(storage: Storage, trial_id: str) -> dict[str, Any] | None:
    path = f"trials/{trial_id}/distances.json"
    if not storage.exists(path):
        return None
    described = storage.read_json(path)
    is_current = described["version"] == DISTANCES_VERSION
    return dict(described["definitions"]) if is_current else None


def _build_category_distances(images: pa.Table, space: CoveredSpace) -> pa.Table:
    _, targets, counts = np.unique(
        images["category"].to_pylist(), return_inverse=True, return_counts=True
    )
    num_others = counts[None, :] - np.eye(len(counts))[targets]  # an image is not its own other
    means = np.divide(
        space.category_sums,
        num_others,
        out=np.full(space.category_sums.shape, np.nan),
        where=num_others > 0,
    )
    schema = schemas.build_category_distance_schema(len(counts))
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(means.astype(np.float32).reshape(-1)), type=schema.field("distances").type
    )
    return pa.table([images["image_id"], images["category"], column], schema=schema)
