"""What a report is made from, collected from an output root alone: no study file, no Ray."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
import pyarrow as pa

from iqray.errors import StudyError
from iqray.inputs.duplicates import count_duplicates, describe_duplicates
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.manifest import get_manifest_path
from iqray.inputs.sources import ImageSource
from iqray.report.figures.pictures import Pixels, pick_examples
from iqray.report.inputs import ReportInputs
from iqray.report.thumbnails import COLUMNS, read_thumbnails
from iqray.report.trial_logs import list_machines, read_epochs
from iqray.results.cells import count_images
from iqray.results.cross_distances import keep_current
from iqray.run import read_stage_seconds
from iqray.schemas import (
    CONTROL_CELLS,
    CONTROLS,
    CROSS_DISTANCES,
    INTERVENTION_EFFECTS,
    INTERVENTION_SCORES,
)
from iqray.stages.centroid_maps import PlacedCentroids, place_centroids
from iqray.stages.controls import CONTROL_CELLS_PATH, CONTROLS_PATH
from iqray.stages.intervention_results import (
    EFFECTS_PATH,
    SCORES_PATH,
    list_current_interventions,
)
from iqray.stages.manifest import DUPLICATES_PATH
from iqray.stages.results import (
    CELLS_PATH,
    CROSS_DISTANCES_PATH,
    DEFINITION_COUNTS_PATH,
    RANK_COUNTS_PATH,
)
from iqray.stages.statistics import (
    DIAGNOSTICS_PATH,
    INTERVALS_PATH,
    SCORE_QUANTILES_PATH,
    STATISTICS_PATH,
    check_statistics_current,
)
from iqray.stages.subsets import CATEGORY_STATS_PATH, SUBSETS_PATH
from iqray.storage import Storage
from iqray.study_record import STUDY_RECORD_PATH, read_study_record

# Finished tables without which there is no report, by the stage that makes them.
_REQUIRED = {
    DUPLICATES_PATH: "manifest",
    CATEGORY_STATS_PATH: "subsets",
    SUBSETS_PATH: "subsets",
    STUDY_RECORD_PATH: "results",
    CELLS_PATH: "results",
    RANK_COUNTS_PATH: "results",
    DEFINITION_COUNTS_PATH: "results",
    DIAGNOSTICS_PATH: "statistics",
    SCORE_QUANTILES_PATH: "statistics",
    STATISTICS_PATH: "statistics",
    INTERVALS_PATH: "statistics",
}

_COUNTED = ("dataset", "split", "category", "status")


def check_sources(storage: Storage) -> None:
    """Check that everything is there that a report is made from, and belongs together.

    Raises:
        StudyError: a table is missing, or is of another state of the study.
    """
    required = dict(_REQUIRED)
    if storage.exists(CELLS_PATH):
        cells = storage.read_table(CELLS_PATH, ["dataset", "metric"]).to_pandas().drop_duplicates()
        required |= {get_manifest_path(name): "manifest" for name in cells["dataset"].unique()}
        required |= {_get_scores_record(*pair): "scores" for pair in cells.to_numpy().tolist()}
    missing = {path: stage for path, stage in required.items() if not storage.exists(path)}
    if missing:
        paths = ", ".join(f"{path} (stage {stage})" for path, stage in missing.items())
        raise StudyError(
            f"no report can be made below '{storage.describe('')}', where these are missing: "
            f"{paths}. Name the output root of a study, and run the study first: "
            "jobs/full_grid.py --study FILE makes only what is missing"
        )
    check_statistics_current(storage)


def open_recorded_images(storage: Storage) -> dict[str, ImageSource]:
    """The images of a root's study, by dataset, where they were when its results were made.

    A dataset is left out whose generated images lay below a root that is now on an object store.
    """
    sources = {}
    for name, images in read_study_record(storage).images.items():
        root = images["root"]
        if root is None and not storage.is_local:
            continue
        folder = str(storage.get_local_path(f"data/{name}")) if root is None else root
        sources[name] = ImageSource(
            ImageRoot.parse(folder), str(images["layout"]), images["image_column"]
        )
    return sources


def collect_inputs(storage: Storage, sources: Mapping[str, ImageSource]) -> ReportInputs:
    """Read finished tables, logs and embeddings, and such pictures as can be reached.

    Args:
        storage: the output root, checked by `check_sources`.
        sources: of images, by dataset.
    """
    record = read_study_record(storage)
    duplicates = count_duplicates(storage.read_table(DUPLICATES_PATH))
    repeats = describe_duplicates(duplicates)
    cells = _read_frame(storage, CELLS_PATH)
    quantiles = _read_frame(storage, SCORE_QUANTILES_PATH)
    trial_ids = list(cells["trial_id"].unique())
    placed = list(place_centroids(storage, cells))
    changed = [storage.below(folder) for folder in list_current_interventions(storage)]
    manifests = {
        name: storage.read_table(get_manifest_path(name), [*_COUNTED, *COLUMNS])
        for name in cells["dataset"].unique()
    }
    pictures = _read_pictures(sources, manifests, quantiles, placed)
    return ReportInputs(
        study=record.study,
        cells=cells,
        rank_counts=_read_frame(storage, RANK_COUNTS_PATH),
        definition_counts=_read_frame(storage, DEFINITION_COUNTS_PATH),
        category_stats=_read_frame(storage, CATEGORY_STATS_PATH),
        subsets=_read_frame(storage, SUBSETS_PATH),
        statistics=_read_frame(storage, STATISTICS_PATH),
        diagnostics=_read_frame(storage, DIAGNOSTICS_PATH),
        intervals=_read_frame(storage, INTERVALS_PATH),
        controls=_read_controls(storage, CONTROLS_PATH, CONTROLS),
        control_cells=_read_controls(storage, CONTROL_CELLS_PATH, CONTROL_CELLS),
        effects=_join_tables(changed, EFFECTS_PATH, INTERVENTION_EFFECTS),
        changed_scores=_join_tables(changed, SCORES_PATH, INTERVENTION_SCORES),
        cross_distances=_read_cross_distances(storage, cells),
        score_quantiles=quantiles,
        image_counts=count_images(manifests.values()),
        score_counts=pd.DataFrame(_count_scores(storage, cells)),
        weights={metric: record.weights[metric] for metric in cells["metric"].unique()},
        recipe=record.recipe,
        is_preview=record.is_preview,
        notes=[
            *record.notes,
            *([f"{repeats}. manifest/duplicates.csv lists all."] if repeats else []),
        ],
        num_leaked=duplicates.num_leaked,
        stage_s=read_stage_seconds(storage),
        versions=record.versions,
        epochs=read_epochs(storage, trial_ids),
        machines=list_machines(storage, trial_ids),
        centroid_maps=[each.draw(pictures) for each in placed],
        pictures=pictures,
    )


def _read_frame(storage: Storage, path: str) -> pd.DataFrame:
    return storage.read_table(path).to_pandas()


def _read_controls(storage: Storage, path: str, schema: pa.Schema) -> pd.DataFrame:
    """The controls of these very cells; no rows where there are none, or only those of others."""
    if storage.read_key(path) != storage.read_key(CELLS_PATH):
        return schema.empty_table().to_pandas()
    return _read_frame(storage, path)


def _join_tables(roots: Sequence[Storage], path: str, schema: pa.Schema) -> pd.DataFrame:
    """Rows of one table below several roots."""
    tables = [own.read_table(path, schema.names).cast(schema) for own in roots]
    return pa.concat_tables([schema.empty_table(), *tables]).to_pandas()


def _read_cross_distances(storage: Storage, cells: pd.DataFrame) -> pd.DataFrame:
    """Rows of these very cells; none where no study has embedded the images of all subsets."""
    if not storage.exists(CROSS_DISTANCES_PATH):
        return CROSS_DISTANCES.empty_table().to_pandas()
    return keep_current(_read_frame(storage, CROSS_DISTANCES_PATH), cells)


def _get_scores_record(dataset: str, metric: str) -> str:
    return f"scores/{dataset}/{metric}/_complete.json"


def _count_scores(storage: Storage, cells: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Images by dataset, metric and status, from records instead of millions of scores."""
    pairs = cells[["dataset", "metric"]].drop_duplicates().to_numpy().tolist()
    for dataset, metric in sorted(pairs):
        counts = storage.read_json(_get_scores_record(dataset, metric))["status"]
        for status, count in sorted(counts.items()):
            yield {"dataset": dataset, "metric": metric, "status": status, "num_images": count}


def _read_pictures(
    sources: Mapping[str, ImageSource],
    manifests: Mapping[str, pa.Table],
    quantiles: pd.DataFrame,
    placed: Sequence[PlacedCentroids],
) -> dict[tuple[str, int], Pixels]:
    """Pictures for all figures, by dataset and image_id."""
    wanted = {(each.dataset, image_id) for each in placed for image_id in each.images.values()}
    for (dataset, _), own in quantiles.groupby(["dataset", "metric"], sort=False):
        wanted |= {(str(dataset), row["image_id"]) for row in pick_examples(own)}
    return {
        (dataset, image_id): picture
        for dataset, source in sources.items()
        if dataset in manifests
        for image_id, picture in read_thumbnails(
            source, manifests[dataset], [number for name, number in wanted if name == dataset]
        ).items()
    }
