"""How much space each subset's images cover in a network that was trained on another one. Pure.

Reads embeddings of the test images of all four subsets, and `schemas.CROSS_DISTANCES`; returns
numbers.

An entry of the 4 x 4 matrix is the mean Euclidean distance over all pairs of the tested subset's
test images, embedded by a network trained on one subset: the paper's distance divided by the number
of its pairs. Images per category are matched as in the network's own trial, and every network of a
seed embeds the same images, so that on the diagonal the entry is the cell's own mean distance. Each
network has a scale of its own: compare entries within a row.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from iqray.errors import StudyError
from iqray.rdms.rdm import compute_total_distance, match_counts
from iqray.results.ranks import COMBINATION


def measure_subset(
    embeddings: ArrayLike,
    categories: Sequence[str],
    subset: Sequence[str],
    seed: int,
    num_matched: int,
) -> tuple[float, int]:
    """Mean Euclidean distance between a subset's images at matched counts.

    Args:
        embeddings: `(num_images, dim)`, by category and path.
        categories: of each image; those of other subsets are left out.
        subset: its categories.
        seed: of the network, which picks the images.
        num_matched: images of a category.

    Returns:
        The mean over pairs, NaN where an embedding is not finite or there is no pair, and the
        number of images.

    Raises:
        StudyError: a category has fewer images.
    """
    vectors, names = np.asarray(embeddings), np.asarray(categories, dtype=str)
    for category in subset:
        num_images = int((names == category).sum())
        if num_images < num_matched:
            raise StudyError(
                f"{num_images} test images of category '{category}' are embedded, and "
                f"{num_matched} are compared: the embeddings are of other subsets; run the study "
                "with --only embeddings first, or all its stages"
            )
    own = np.flatnonzero(np.isin(names, list(subset)))
    matched = own[match_counts(names[own].tolist(), seed, num_matched)]
    total, num_pairs = compute_total_distance(vectors[matched])
    return total / num_pairs if num_pairs else np.nan, len(matched)


def keep_current(cross_distances: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Rows whose two subsets are those of a study's cells, of networks that ended well.

    Args:
        cross_distances: a table of `schemas.CROSS_DISTANCES`, maybe of before the subsets changed.
        cells: a table of `schemas.CELLS`.
    """
    keys = [*COMBINATION, "seed"]
    ended = cells[cells["status"] == "ok"]
    kept = cross_distances
    for role, column, known in (
        ("trained_on", "trial_id", ended),
        ("tested_on", "tested_trial_id", cells),
    ):
        names = {"subset": role, "trial_id": column}
        kept = kept.merge(known[[*keys, *names]].rename(columns=names))
    return kept


def average_cross_distances(cross_distances: pd.DataFrame, subsets: Sequence[str]) -> pd.DataFrame:
    """Means over metrics and seeds, as the page shows accuracies and distances.

    Args:
        cross_distances: rows from `keep_current`. One without a number is in no mean.
        subsets: of the study, in the order of rows and columns.

    Returns:
        Columns dataset, architecture, layer, trained_on, and one for each tested subset.
    """
    keys = ["dataset", "architecture", "layer", "trained_on", "tested_on"]
    orders = {key: list(cross_distances[key].unique()) for key in keys[:3]}
    orders |= {key: list(subsets) for key in keys[3:]}
    # Categories sort by their order, where text would sort by its letters.
    ordered = [cross_distances[key].astype(pd.CategoricalDtype(orders[key])) for key in keys]
    means = cross_distances["distance"].astype("float64").groupby(ordered, observed=True).mean()
    frame = means.unstack("tested_on").reindex(columns=list(subsets)).reset_index()
    frame.columns = pd.Index(list(frame.columns), dtype=object)
    return frame.astype(dict.fromkeys(keys[:4], object))
