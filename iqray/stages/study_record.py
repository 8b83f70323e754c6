"""What the stage `results` leaves about its study for reports that are made without it."""

from collections.abc import Iterator
from importlib.metadata import version

import iqray
from iqray.dataset import Dataset
from iqray.metrics.registry import FULL_PRECISION, METRICS_WITH_PRECISIONS
from iqray.recipes import INCEPTION_AUX_MIN_PX
from iqray.run import Run, get_versions
from iqray.study import Study
from iqray.study_record import StudyRecord, write_study_record


def record_study(run: Run) -> None:
    """Write the record of the run's study, where it is not there yet."""
    study = run.study
    record = StudyRecord(
        study=study.name,
        images={dataset.name: _describe_images(run, dataset) for dataset in study.datasets},
        weights={metric: found.provenance for metric, found in run.weights.items()},
        recipe=study.recipe.name,
        is_preview=study.recipe.is_preview,
        notes=list(list_notes(study)),
        versions={
            **get_versions(),
            "iqray": iqray.__version__,
            "pyiqa": version("pyiqa"),
            "ray": version("ray"),
        },
    )
    write_study_record(run.storage, record)


def _describe_images(run: Run, dataset: Dataset) -> dict[str, str | None]:
    root = None if dataset.root is None else run.open_images(dataset).root.describe()
    return {"root": root, "layout": dataset.layout, "image_column": dataset.image_column}


def list_notes(study: Study) -> Iterator[str]:
    """What a reader of the results must know of the study's settings, a sentence each."""
    for architecture in study.architectures:
        input_px = study.recipe.architectures[architecture].input_px
        if architecture == "inception_v3" and input_px < INCEPTION_AUX_MIN_PX:
            yield (
                f"Inception-v3 trained at {input_px} px without its auxiliary head, which needs "
                f"about {INCEPTION_AUX_MIN_PX} px."
            )
    if study.scoring.small_images == "upscale":
        yield "Images below a metric's smallest side were enlarged to it before scoring."
    gated = sorted(METRICS_WITH_PRECISIONS & set(study.metrics))
    if study.scoring.precision != FULL_PRECISION and gated:
        yield (
            f"{', '.join(gated)} computed in {study.scoring.precision} behind the rank gate: every "
            f"category that could have changed a subset was scored in {FULL_PRECISION}."
        )
    if study.subsets.orientation == "raw":
        yield "High and low are by raw score, also for metrics where lower is better."
