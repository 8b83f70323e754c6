"""Networks' RDMs beside RDMs that a user supplies: one row per network, layer and comparison.

Reads the tables of stage `rdms`; returns `schemas.CORRESPONDENCE`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from iqray import schemas
from iqray.errors import StudyError
from iqray.rdms.comparison import (
    Draws,
    bootstrap_interval,
    compare_rdms,
    compute_noise_ceiling,
    draw,
)
from iqray.rdms.files import Rdm, read_names, read_rdm
from iqray.rdms.references import ReferenceRdms, select_pairs, show_names
from iqray.storage import Storage

# Below it there are too few pairs (6) for any of the comparisons to say something.
MIN_CONDITIONS = 4

# Raise when the same RDMs would give other numbers.
CORRESPONDENCE_VERSION = 2

_SEED = 0


@dataclass(frozen=True)
class Correspondence:
    """What came out.

    Attributes:
        table: of `schemas.CORRESPONDENCE`.
        num_apart: RDMs with fewer than `MIN_CONDITIONS` of the supplied conditions.
        unknown: supplied conditions that no RDM has.
    """

    table: pd.DataFrame
    num_apart: int
    unknown: tuple[str, ...]


def compare_networks(
    storage: Storage,
    rdms: pd.DataFrame,
    references: ReferenceRdms,
    comparisons: Sequence[str],
    num_draws: int,
) -> Correspondence:
    """Compare every RDM with the supplied ones, over the conditions that both have.

    Args:
        storage: holds the RDMs.
        rdms: rows of `schemas.RDMS`.
        references: supplied, over categories or images, named as iqray names them.
        comparisons: of `rdm_comparison.COMPARISONS`.
        num_draws: of the bootstrap; RDMs with equally many conditions share their draws.

    Raises:
        StudyError: no RDM has enough of the supplied conditions.
    """
    rows: list[dict[str, Any]] = []
    known: set[str] = set()
    num_apart = 0
    for source in rdms.to_dict("records"):
        names = read_names(storage, source["path"])
        shared = sorted(set(names) & set(references.names))
        known.update(shared)
        if len(shared) < MIN_CONDITIONS:
            num_apart += 1
            continue
        described = {str(name): source[name] for name in source if name != "num_images"}
        rdm = read_rdm(storage, source["path"])
        rows += (
            {**described, **compared}
            for compared in _compare(rdm, shared, references, comparisons, num_draws)
        )
    unknown = tuple(name for name in references.names if name not in known)
    if not rows:
        raise _explain_no_match(storage, rdms, references, unknown)
    table = pd.DataFrame(rows, columns=schemas.CORRESPONDENCE.names)
    return Correspondence(table, num_apart, unknown)


def _compare(
    rdm: Rdm,
    shared: Sequence[str],
    references: ReferenceRdms,
    comparisons: Sequence[str],
    num_draws: int,
) -> Iterator[dict[str, Any]]:
    model = select_pairs(rdm.dissimilarities, rdm.names, shared)
    subjects = references.select(shared)
    draws = draw(len(shared), len(subjects), num_draws, _SEED)
    for comparison in comparisons:
        yield {
            "comparison": comparison,
            "num_conditions": len(shared),
            "num_subjects": len(subjects),
            **_measure(comparison, subjects, model, draws),
        }


def _measure(
    comparison: str, subjects: np.ndarray, model: np.ndarray, draws: Draws
) -> dict[str, Any]:
    found: dict[str, Any] = {"reason": ""}
    if len(subjects) > 1:
        found["ceiling_low"], found["ceiling_high"] = compute_noise_ceiling(comparison, subjects)
    if not np.isfinite(model).all():
        return found | {"reason": "the network's dissimilarities are not all finite"}
    value = float(compare_rdms(comparison, subjects, model).mean())
    if math.isnan(value):
        return found | {"reason": "all dissimilarities of the network or of a subject are equal"}
    found["value"] = value
    found["low"], found["high"] = bootstrap_interval(comparison, subjects, model, draws)
    return found


def _explain_no_match(
    storage: Storage, rdms: pd.DataFrame, references: ReferenceRdms, unknown: Sequence[str]
) -> StudyError:
    examples = [
        f"{level} such as {show_names(read_names(storage, own['path'].iloc[0]))}"
        for level, own in rdms.groupby("level")
    ]
    asked = show_names(unknown or references.names)
    return StudyError(
        f"no RDM has {MIN_CONDITIONS} of the {len(references.names)} supplied conditions "
        f"({asked}); there are RDMs by {' and by '.join(examples)}: name categories or image paths "
        "as these, have more images embedded (embeddings.images, embeddings.extra_images), or add "
        "image to rdms.levels"
    )


def summarise_correspondence(found: Correspondence, references: ReferenceRdms) -> str:
    """A line for each comparison and kind of RDM, and what could not be compared.

    Returns:
        Plain text: means over networks, with the mean noise ceiling where there is one.
    """
    keys = ["dataset", "images", "level", "layer", "architecture", "kind", "comparison"]
    numbers = ["value", "low", "high", "ceiling_low", "ceiling_high"]
    groups = found.table.groupby(keys, sort=False)
    table = groups[numbers].mean().round(3)
    table.insert(0, "networks", groups["network"].nunique())
    text = table.reset_index().dropna(axis=1, how="all").to_string(index=False)
    lines = [text, "value, low, high, ceiling: means over the networks of a line"]
    if found.num_apart:
        lines.append(
            f"{found.num_apart} RDMs have fewer than {MIN_CONDITIONS} of the supplied conditions "
            "and are left out"
        )
    if found.unknown:
        lines.append(
            f"{len(found.unknown)} of {len(references.names)} supplied conditions are in no RDM: "
            f"{show_names(found.unknown)}"
        )
    return "\n".join(lines)
