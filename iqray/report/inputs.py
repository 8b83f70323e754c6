"""What a report is made from: finished tables and facts, collected before anything is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
import pyarrow as pa

from iqray import schemas
from iqray.report.figures.pictures import CentroidMap, Pixels


def _make_empty(schema: pa.Schema) -> pd.DataFrame:
    return schema.empty_table().to_pandas()


@dataclass(frozen=True)
class ReportInputs:
    """Finished tables and facts that a report is made from.

    Attributes:
        study: its name.
        cells: a table of `schemas.CELLS`.
        rank_counts: a table of `schemas.RANK_COUNTS`.
        definition_counts: a table of `schemas.DEFINITION_COUNTS`.
        category_stats: a table of `schemas.CATEGORY_STATS`.
        subsets: a table of `schemas.SUBSETS`.
        statistics: a table of `schemas.STATISTICS`.
        diagnostics: a table of `schemas.DIAGNOSTICS`.
        intervals: a table of `schemas.INTERVALS`.
        controls: a table of `schemas.CONTROLS`, without rows where the study has no controls.
        cross_distances: rows of `schemas.CROSS_DISTANCES` of these very cells, of networks that
            ended well or that no trial has trained; none where a study has not embedded the images
            of all subsets.
        score_quantiles: a table of `schemas.SCORE_QUANTILES`.
        image_counts: as `results.count_images` returns it.
        score_counts: rows dataset, metric, status, num_images; `ok` is among the statuses.
        weights: by metric: where its weights come from.
        recipe: its name.
        is_preview: the recipe's own word that its results are no findings.
        notes: sentences about how this study was run that a reader must know.
        stage_s: seconds by stage.
        versions: of the software that changes numbers, by name.
        num_leaked: test images that are also training images of their dataset.
        epochs: as `trial_logs.read_epochs` returns it.
        machines: hardware that trials ran on.
        centroid_maps: of the trials whose category centroids are shown.
        pictures: small images by dataset and image_id, where images can be reached.
        control_cells: a table of `schemas.CONTROL_CELLS`, of the rows of `controls`.
        effects: rows of `schemas.INTERVENTION_EFFECTS` of subsets as they are chosen now.
        changed_scores: rows of `schemas.INTERVENTION_SCORES` of the same subsets.
    """

    study: str
    cells: pd.DataFrame
    rank_counts: pd.DataFrame
    definition_counts: pd.DataFrame
    category_stats: pd.DataFrame
    subsets: pd.DataFrame
    statistics: pd.DataFrame
    diagnostics: pd.DataFrame
    intervals: pd.DataFrame
    controls: pd.DataFrame
    cross_distances: pd.DataFrame
    score_quantiles: pd.DataFrame
    image_counts: pd.DataFrame
    score_counts: pd.DataFrame
    weights: Mapping[str, str]
    recipe: str
    is_preview: bool
    notes: Sequence[str]
    stage_s: Mapping[str, float]
    versions: Mapping[str, str]
    num_leaked: int
    epochs: pd.DataFrame
    machines: Sequence[str] = ()
    centroid_maps: Sequence[CentroidMap] = ()
    pictures: Mapping[tuple[str, int], Pixels] = field(default_factory=dict)
    control_cells: pd.DataFrame = field(default_factory=partial(_make_empty, schemas.CONTROL_CELLS))
    effects: pd.DataFrame = field(
        default_factory=partial(_make_empty, schemas.INTERVENTION_EFFECTS)
    )
    changed_scores: pd.DataFrame = field(
        default_factory=partial(_make_empty, schemas.INTERVENTION_SCORES)
    )
