"""How much space each subset's images cover in a network that was trained on another one. Pure.

Reads embeddings of the test images of all four subsets, and `schemas.CROSS_DISTANCES`; returns
numbers.

An entry of the 4 x 4 matrix is the mean Euclidean distance over all pairs of the tested subset's
test images, embedded by a network trained on one subset: the paper's distance divided by the number
of its pairs. Images per category are matched as in the network's own trial, and every network of a
seed embeds the same images, so that on the diagonal the entry is the cell's own mean distance. Each
network has a scale of its own: compare entries within a row.

Networks that no subset has trained (untrained, pretrained, the user's checkpoints) have rows of
their own, of the same images: an untrained one of its seed's, the others of every seed's.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

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


def join_cells(
    cells: pd.DataFrame, trained: Sequence[pd.DataFrame], others: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Say of every network on which subset it was trained, and of which trial the images are.

    Args:
        cells: columns dataset, architecture, metric, subset, seed, trial_id.
        trained: tables of `schemas.NETWORK_DISTANCES` with columns layer and trial_id.
        others: of networks that no trial has trained, with columns layer, dataset, architecture,
            trained_on and seed.

    Returns:
        Columns of `schemas.CROSS_DISTANCES` but weights, those of cells first.
    """
    tested = cells.rename(columns={"subset": "tested_on", "trial_id": "tested_trial_id"})
    parts = []
    if trained:
        own = cells.rename(columns={"subset": "trained_on"})
        parts.append(own.merge(pd.concat(trained), on=["trial_id", "metric"]).merge(tested))
    if others:
        table = pd.concat(others, ignore_index=True).assign(trial_id=None)
        # Trials of every architecture have the subset's images, where the grid has not this one.
        in_grid = table["architecture"].isin(cells["architecture"])
        stand_in = table["architecture"].where(in_grid, cells["architecture"].iloc[0])
        tested = tested.rename(columns={"architecture": "tested_architecture"})
        table = table.assign(tested_architecture=stand_in).merge(tested)
        parts.append(table.drop(columns="tested_architecture"))
    return pd.concat(parts, ignore_index=True)


def keep_current(cross_distances: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Rows whose subsets are those of a study's cells, without networks that did not end well.

    Args:
        cross_distances: a table of `schemas.CROSS_DISTANCES`, maybe of before the subsets changed.
        cells: a table of `schemas.CELLS`.
    """
    keys = [*COMBINATION, "seed", "subset", "trial_id"]
    trained = cross_distances.rename(columns={"trained_on": "subset"})
    ended = _is_among(trained, cells[cells["status"] == "ok"], keys)
    names = {"tested_on": "subset", "tested_trial_id": "trial_id"}
    tested = cross_distances[["dataset", "metric", "seed", *names]].rename(columns=names)
    # A trial's id stands for its architecture, which of other networks need not be in the grid.
    known = _is_among(tested, cells, list(tested.columns))
    is_other = cross_distances["trial_id"].isna()
    return cross_distances[(is_other | ended) & known].reset_index(drop=True)


def _is_among(rows: pd.DataFrame, known: pd.DataFrame, keys: list[str]) -> NDArray[np.bool_]:
    return pd.MultiIndex.from_frame(rows[keys]).isin(pd.MultiIndex.from_frame(known[keys]))


def list_others(cross_distances: pd.DataFrame) -> list[str]:
    """What `trained_on` says of networks that no subset has trained, each once."""
    return list(cross_distances.loc[cross_distances["trial_id"].isna(), "trained_on"].unique())


def average_cross_distances(cross_distances: pd.DataFrame, subsets: Sequence[str]) -> pd.DataFrame:
    """Means over metrics and seeds, as the page shows accuracies and distances.

    Args:
        cross_distances: rows from `keep_current`. One without a number is in no mean.
        subsets: of the study, in the order of rows and columns. Other networks come after them.

    Returns:
        Columns dataset, architecture, layer, trained_on, and one for each tested subset.
    """
    keys = ["dataset", "architecture", "layer", "trained_on", "tested_on"]
    orders = {key: list(cross_distances[key].unique()) for key in keys[:3]}
    orders |= {"trained_on": [*subsets, *list_others(cross_distances)], "tested_on": list(subsets)}
    # Categories sort by their order, where text would sort by its letters.
    ordered = [cross_distances[key].astype(pd.CategoricalDtype(orders[key])) for key in keys]
    means = cross_distances["distance"].astype("float64").groupby(ordered, observed=True).mean()
    frame = means.unstack("tested_on").reindex(columns=list(subsets)).reset_index()
    frame.columns = pd.Index(list(frame.columns), dtype=object)
    return frame.astype(dict.fromkeys(keys[:4], object))
