"""The tables that pass between rooms: every column with its type and unit.

A room reads finished tables and writes one. Nothing else is shared between rooms, so this package
is the contract. Scores are raw values as the metric defines them; `quality` is the score oriented
so that higher is better, and is made in one place (`iqray.categories.subsets`).
"""

from iqray.schemas.categories import CATEGORY_STATS, CONTROL_SUBSETS, SUBSETS
from iqray.schemas.images import (
    DERIVED_IMAGES,
    DUPLICATES,
    IMAGE_COLUMN_NAMES,
    IMAGE_COLUMNS,
    IMAGE_STATUSES,
    MANIFEST,
    SCORE_QUANTILES,
    SCORES,
)
from iqray.schemas.results import (
    CELLS,
    CONTROL_CELLS,
    CONTROLS,
    CROSS_DISTANCES,
    DEFINITION_COUNTS,
    DISTANCES,
    INTERVENTION_EFFECTS,
    INTERVENTION_SCORES,
    PAPER_CHECK,
    RANK_COUNTS,
    RANKS,
)
from iqray.schemas.statistics import DIAGNOSTICS, INTERVALS, STATISTICS
from iqray.schemas.trials import (
    CORRESPONDENCE,
    EMBEDDINGS,
    NETWORK_DISTANCES,
    PREDICTIONS,
    RDM,
    RDMS,
    TRAIN_IMAGES,
    build_category_distance_schema,
    build_embedding_schema,
)

__all__ = [
    "CATEGORY_STATS",
    "CELLS",
    "CONTROLS",
    "CONTROL_CELLS",
    "CONTROL_SUBSETS",
    "CORRESPONDENCE",
    "CROSS_DISTANCES",
    "DEFINITION_COUNTS",
    "DERIVED_IMAGES",
    "DIAGNOSTICS",
    "DISTANCES",
    "DUPLICATES",
    "EMBEDDINGS",
    "IMAGE_COLUMNS",
    "IMAGE_COLUMN_NAMES",
    "IMAGE_STATUSES",
    "INTERVALS",
    "INTERVENTION_EFFECTS",
    "INTERVENTION_SCORES",
    "MANIFEST",
    "NETWORK_DISTANCES",
    "PAPER_CHECK",
    "PREDICTIONS",
    "RANKS",
    "RANK_COUNTS",
    "RDM",
    "RDMS",
    "SCORES",
    "SCORE_QUANTILES",
    "STATISTICS",
    "SUBSETS",
    "TRAIN_IMAGES",
    "build_category_distance_schema",
    "build_embedding_schema",
]
