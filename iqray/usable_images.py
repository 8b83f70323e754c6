"""Images that can be trained and tested on: which, how many, and hashes of what they hold. Pure."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqray.identity import hash_strings


def select_usable(manifest: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of the images that can be trained and tested on, with some or all columns."""
    rows = manifest if columns is None else manifest.select(columns)
    return rows.filter(pc.equal(manifest["status"], "ok"))


def count_images(images: pa.Table) -> Counter[tuple[str, str]]:
    """Images by (split, category)."""
    keys = ["split", "category"]
    groups = images.select(keys).group_by(keys).aggregate([([], "count_all")])
    columns = [groups[name].to_pylist() for name in (*keys, "count_all")]
    return Counter({(split, category): n for split, category, n in zip(*columns, strict=True)})


class ImageIndex:
    """Counts and content hashes of a dataset's usable images by split and category.

    Images stay Arrow columns; only those of one category at a time become Python objects.

    Args:
        manifest: of the dataset.
    """

    def __init__(self, manifest: pa.Table) -> None:
        usable = select_usable(manifest, ["split", "category", "image_id", "path", "sha256"])
        order = _order_by_category(usable)
        images = usable.select(["image_id", "path", "sha256"])
        # Manifests of layout folders are in this order, and need no copy.
        self._images = images if np.all(np.diff(order) > 0) else images.take(pa.array(order))
        counts = count_images(usable)
        self._counts = {
            (split, category): counts[split, category]
            for split, category in sorted(counts, key=lambda key: (key[0] != "train", key[1]))
        }
        starts = np.cumsum([0, *self._counts.values()]).tolist()
        self._starts = dict(zip(self._counts, starts, strict=False))
        self._hashes: dict[tuple[str, str], str] = {}

    def count(self, split: str, categories: Sequence[str]) -> int:
        """Number of categories' images in a split."""
        return sum(self._counts.get((split, category), 0) for category in categories)

    def hash_images(self, categories: Sequence[str], chosen: np.ndarray | None = None) -> str:
        """Hash of categories' images; of the training images all, or those whose ids are chosen."""
        keys = [(split, category) for split in ("train", "test") for category in categories]
        hashes = (
            self._hash_category(key)
            if chosen is None or key[0] == "test"
            else _hash_pairs(_keep_chosen(self._get_rows(key), chosen))
            for key in keys
        )
        parts = zip(keys, hashes, strict=True)
        return hash_strings(part for key, own in parts for part in (*key, own))

    def _hash_category(self, key: tuple[str, str]) -> str:
        if key not in self._hashes:
            self._hashes[key] = _hash_pairs(self._get_rows(key))
        return self._hashes[key]

    def _get_rows(self, key: tuple[str, str]) -> pa.Table:
        return self._images.slice(self._starts.get(key, 0), self._counts.get(key, 0))


def _keep_chosen(images: pa.Table, chosen: np.ndarray) -> pa.Table:
    return images.filter(pc.is_in(images["image_id"], value_set=pa.array(chosen, pa.int64())))


def _hash_pairs(images: pa.Table) -> str:
    """Hash of images' paths and bytes, in any order."""
    if not images.num_rows:
        return "none"
    pairs = zip(images["path"].to_pylist(), images["sha256"].to_pylist(), strict=True)
    return hash_strings(sorted(f"{path}\t{sha256}" for path, sha256 in pairs))


def _order_by_category(images: pa.Table) -> np.ndarray:
    """Positions of images, training images first, by category and then as they stand: int64."""
    places = images.select(["split", "category"])
    places = places.append_column("row", pa.array(np.arange(images.num_rows)))
    keys = [("split", "descending"), ("category", "ascending"), ("row", "ascending")]
    return pc.sort_indices(places, sort_keys=keys).to_numpy().astype(np.int64)
