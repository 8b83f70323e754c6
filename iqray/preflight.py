"""Hold a study against the disk before any work: each mistake ends in one message.

What can be known from the study alone is checked by `iqray.study_file`, what needs the cluster by
`iqray.cluster`.
"""

import os
from collections import Counter
from pathlib import Path

import pyarrow as pa

from iqray.errors import StudyError
from iqray.listing import ListedImage, list_images
from iqray.metrics.registry import METRICS_WITH_FILES, METRICS_WITHOUT_WEIGHTS, find_metric
from iqray.metrics.weights import find_weights
from iqray.storage import Storage
from iqray.study import Dataset, Study
from iqray.trials import select_usable


def check_study(study: Study, storage: Storage) -> None:
    """Check metrics, weights, output root and the folders of the study's own datasets.

    Demo images and demo weights are generated later and need no check.

    Raises:
        StudyError: at the first mistake.
    """
    for metric in study.metrics:
        find_metric(metric)
    _check_root(study, storage)
    _check_weights(study)
    for dataset in study.datasets:
        if dataset.root is not None:
            root = Path(dataset.root).expanduser().absolute()
            check_dataset(study, dataset, list_images(dataset, root))


def check_dataset(study: Study, dataset: Dataset, listing: list[ListedImage]) -> None:
    """Check that every category can be tested, and that there are enough categories.

    Raises:
        StudyError: a category has no test image, or the subsets need more categories.
    """
    train = Counter(image.category for image in listing if image.split == "train")
    test = Counter(image.category for image in listing if image.split == "test")
    untested = sorted(set(train) - set(test))
    if untested:
        shown = ", ".join(f"'{category}'" for category in untested[:5])
        more = f" and {len(untested) - 5} more" if len(untested) > 5 else ""
        raise StudyError(
            f"dataset '{dataset.name}': no images in '{dataset.test}' for {shown}{more}; every "
            f"category of '{dataset.train}' needs some: add them, or remove the category"
        )
    k = study.subsets.compute_k(len(train))
    if k < 2 or k > len(train):
        asked = (
            f"subsets.k is {study.subsets.k}"
            if study.subsets.k is not None
            else f"subsets.fraction {study.subsets.fraction:g} of {len(train)} categories is {k}"
        )
        raise StudyError(
            f"dataset '{dataset.name}' has {len(train)} categories and {asked}; a subset needs "
            f"at least 2 and at most {len(train)}: change subsets.fraction or subsets.k, or add "
            "categories"
        )


def check_usable(dataset: str, manifest: pa.Table) -> None:
    """Check that every category has an image that can be read, in both splits.

    Raises:
        StudyError: a category has none.
    """
    usable = select_usable(manifest)
    found = set(zip(usable["split"].to_pylist(), usable["category"].to_pylist(), strict=True))
    listed = set(zip(manifest["split"].to_pylist(), manifest["category"].to_pylist(), strict=True))
    lost = sorted(listed - found)
    if lost:
        split, category = lost[0]
        raise StudyError(
            f"dataset '{dataset}': none of the {split} images of '{category}' can be read "
            f"({len(lost)} such categories); repair them, or remove the category. "
            f"manifest/{dataset}.parquet gives each file's reason"
        )


def _check_weights(study: Study) -> None:
    if study.weights.directory is not None:
        for metric in study.metrics:
            find_weights(study.weights.directory, metric)
        return
    for metric in study.metrics:
        if metric not in METRICS_WITH_FILES and metric not in METRICS_WITHOUT_WEIGHTS:
            raise StudyError(
                f"metric '{metric}' has no demo weights; those are fitted for "
                f"{', '.join(METRICS_WITH_FILES)}: leave it out, or give weights.directory"
            )


def _check_root(study: Study, storage: Storage) -> None:
    makes_demo = study.weights.demo or any(dataset.demo for dataset in study.datasets)
    if makes_demo and "://" in study.root and not study.root.startswith("file://"):
        raise StudyError(
            f"root '{study.root}' is not a local folder, but demo images and demo weights are "
            "generated below it; use a local root for the demo"
        )
    probe = f".write-check-{os.getpid()}"
    try:
        storage.write_bytes(probe, b"")
        storage.delete(probe)
    except (OSError, pa.ArrowInvalid) as error:
        raise StudyError(
            f"output root '{study.root}' cannot be written ({error}); choose "
            "another with --root or in the study"
        ) from error
