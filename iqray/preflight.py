"""Hold a study against the disk before any work: each mistake ends in one message.

What can be known from the study alone is checked by `iqray.study_file`, what needs the cluster by
`iqray.cluster`.
"""

import os
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.known_listings import list_or_restore
from iqray.inputs.layouts.folders import name_own_category
from iqray.inputs.sources import ImageSource
from iqray.metrics.registry import METRICS_WITH_FILES, METRICS_WITHOUT_WEIGHTS, find_metric
from iqray.metrics.weights import find_weights
from iqray.results.difficulty import read_difficulty
from iqray.settings.control import RANDOM
from iqray.storage import Storage
from iqray.study import Study
from iqray.usable_images import count_images, select_usable


def check_study(study: Study, storage: Storage) -> dict[str, pa.Table]:
    """Check what `check_scoring` does, and that models can be trained and tested on the images.

    Returns:
        The listings made on the way, by dataset: listing millions of images takes minutes.

    Raises:
        StudyError: at the first mistake.
    """
    for dataset in study.datasets:
        _check_test_split(dataset)
    listings = check_scoring(study, storage)
    for dataset in study.datasets:
        if dataset.name in listings:
            check_dataset(study, dataset, listings[dataset.name])
    return listings


def check_scoring(study: Study, storage: Storage) -> dict[str, pa.Table]:
    """Check metrics, weights, output root and the images of the study's own datasets.

    Demo images and demo weights are generated later and need no check.

    Returns:
        The listings made on the way, by dataset.

    Raises:
        StudyError: at the first mistake.
    """
    for metric in study.metrics:
        find_metric(metric)
    _check_root(study, storage)
    _check_weights(study)
    return {
        dataset.name: list_or_restore(
            dataset, ImageSource.of(dataset, ImageRoot.parse(dataset.root)), storage
        )
        for dataset in study.all_datasets
        if dataset.root is not None
    }


def _check_test_split(dataset: Dataset) -> None:
    if dataset.test is None:
        raise StudyError(
            f"dataset '{dataset.name}' has no test split (test: null), so that no model can be "
            "tested; name one, or only score the dataset"
        )


def check_dataset(study: Study, dataset: Dataset, listing: pa.Table) -> None:
    """Check that every category can be tested, and that there are enough categories.

    Raises:
        StudyError: a category has no test image, or the subsets need more categories.
    """
    train, test = (_list_categories(listing, split) for split in ("train", "test"))
    untested = sorted(train - test)
    if untested:
        shown = ", ".join(f"'{category}'" for category in untested[:5])
        more = f" and {len(untested) - 5} more" if len(untested) > 5 else ""
        raise StudyError(
            f"dataset '{dataset.name}': no images in '{dataset.test}' for {shown}{more}; every "
            f"category of '{dataset.train}' needs some: add them, or remove the category"
            + _explain_own_category(dataset, untested)
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
    matched = [name for name in study.controls.num_draws if name != RANDOM]
    if matched and 2 * k > len(train):
        raise StudyError(
            f"controls.{matched[0]}: a subset of dataset '{dataset.name}' has {k} of its "
            f"{len(train)} categories, and as many others are needed to match them: lower "
            f"subsets.fraction or subsets.k, or set controls.{matched[0]} to 0"
        )
    if study.controls.image_halves:
        _check_halves(dataset, listing)
    if study.controls.difficulty is not None:
        read_difficulty(study.controls.difficulty, dataset.name, train)
    needed = k * len(study.subsets.names)
    if study.subsets.disjoint and needed > len(train):
        raise StudyError(
            f"dataset '{dataset.name}' has {len(train)} categories, and {len(study.subsets.names)} "
            f"disjoint subsets of {k} need {needed}: lower subsets.fraction or subsets.k, or set "
            "subsets.disjoint to false"
        )


def _check_halves(dataset: Dataset, listing: pa.Table) -> None:
    """A category of one image has the smallest range there is, and would be chosen for it."""
    counts = count_images(listing)
    single = [
        name for (split, name), count in sorted(counts.items()) if (split, count) == ("train", 1)
    ]
    if single:
        raise StudyError(
            f"controls.image_halves: category '{single[0]}' of dataset '{dataset.name}' has one "
            "training image, and two halves need two; add images, remove the category, or set "
            "controls.image_halves to false"
        )


def _explain_own_category(dataset: Dataset, categories: Iterable[str]) -> str:
    if dataset.layout != "folders" or dataset.root is None:
        return ""
    own = name_own_category(ImageRoot.parse(dataset.root), dataset.train)
    if own not in categories:
        return ""
    return f" ('{own}' holds the images directly in '{dataset.train}', outside category folders)"


def check_usable(dataset: str, manifest: pa.Table) -> None:
    """Check that every category has an image that can be read, in both splits.

    Raises:
        StudyError: a category has none.
    """
    usable = select_usable(manifest)
    lost = sorted(
        (split, category)
        for split in ("train", "test")
        for category in _list_categories(manifest, split) - _list_categories(usable, split)
    )
    if lost:
        split, category = lost[0]
        raise StudyError(
            f"dataset '{dataset}': none of the {split} images of '{category}' can be read "
            f"({len(lost)} such categories); repair them, or remove the category. "
            f"manifest/{dataset}.parquet gives each file's reason"
        )


def _list_categories(images: pa.Table, split: str) -> set[str]:
    return set(images.filter(pc.equal(images["split"], split))["category"].unique().to_pylist())


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
            f"root '{storage.describe('')}' is not a local folder, but demo images and weights are "
            "generated below it; use a local root for the demo"
        )
    probe = f".write-check-{os.getpid()}"
    try:
        storage.write_bytes(probe, b"")
        storage.delete(probe)
    except (StudyError, OSError, pa.ArrowInvalid) as error:
        raise StudyError(
            f"output root '{storage.describe('')}' cannot be written ({error.__cause__ or error}); "
            "choose another with --root or in the study"
        ) from error
