"""The trials whose category centroids a report shows, placed in the plane.

Reads the embeddings of one combination's trials, where they are below the root.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from iqray.embeddings.tables import split_embedding_table
from iqray.rdms.rdm import compute_centroids, compute_rdm, embed_mds
from iqray.report.figures.pictures import CentroidMap, Pixels
from iqray.results.ranks import COMBINATION
from iqray.storage import Storage

_NUM_CATEGORIES = 10  # of the paper's "sample categories"
_SEED = 0


@dataclass(frozen=True)
class PlacedCentroids:
    """A map of one trial's categories, with a test image of each.

    Attributes:
        dataset: of the trial.
        map: without pictures.
        images: image_id by category.
    """

    dataset: str
    map: CentroidMap
    images: Mapping[str, int]

    def draw(self, pictures: Mapping[tuple[str, int], Pixels]) -> CentroidMap:
        """The map with such pictures as there are, by dataset and image_id."""
        own = {
            category: pictures[self.dataset, image_id]
            for category, image_id in self.images.items()
            if (self.dataset, image_id) in pictures
        }
        return replace(self.map, pictures=own)


def place_centroids(storage: Storage, cells: pd.DataFrame) -> Iterator[PlacedCentroids]:
    """One map per subset of the first combination whose trials all have embeddings.

    Args:
        storage: the output root.
        cells: a table of `schemas.CELLS`.
    """
    for names, rows in cells.groupby([*COMBINATION, "seed"], sort=True):
        paths = [f"trials/{trial_id}/embeddings.parquet" for trial_id in rows["trial_id"]]
        # Without a distance, embeddings are not finite.
        is_whole = (rows["status"] == "ok") & rows["distance"].notna()
        if is_whole.all() and all(map(storage.exists, paths)):
            for path, subset, weights in zip(paths, rows["subset"], rows["weights"], strict=True):
                title = ", ".join(map(str, (*names[:3], subset)))
                yield _place(storage, path, str(names[0]), title, weights)
            return


def _place(storage: Storage, path: str, dataset: str, title: str, weights: str) -> PlacedCentroids:
    table = storage.read_table(path)
    embeddings, categories = split_embedding_table(table)
    names, centroids = compute_centroids(embeddings, categories)
    generator = np.random.default_rng(_SEED)
    chosen = np.sort(generator.permutation(len(names))[:_NUM_CATEGORIES])
    coordinates, stress = embed_mds(compute_rdm(centroids[chosen]), _SEED)
    shown = tuple(names[index] for index in chosen)
    image_ids = table["image_id"].to_pylist()
    return PlacedCentroids(
        dataset,
        CentroidMap(title, shown, coordinates, stress, weights),
        {category: image_ids[categories.index(category)] for category in shown},
    )
