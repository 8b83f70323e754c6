"""Stage `subsets`: category statistics, and the categories of every subset."""

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from iqray.categories.subsets import choose_subsets
from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.metrics.registry import find_metric
from iqray.progress import show_stage
from iqray.run import Run
from iqray.scoring.plans import read_scores
from iqray.stages.scores import plan_study_scores
from iqray.usable_images import count_images, select_usable

CATEGORY_STATS_PATH = "category_stats.parquet"
SUBSETS_PATH = "subsets.parquet"

# Raise when the same scores would give other statistics or more of them.
CATEGORY_STATS_VERSION = 2


def make_subsets_key(run: Run) -> str:
    """Key of the subsets that the study's images, scores and rules give.

    Raises:
        StudyError: scores are missing, or are of other images, weights or settings.
    """
    return hash_content([_make_scores_key(run), run.study.subsets.model_dump(mode="json")])


def make_subsets(run: Run) -> None:
    """Compute category statistics and choose the categories of every subset."""
    study = run.study
    key = make_subsets_key(run)
    total = len(study.datasets) * len(study.metrics) * len(study.subsets.names)
    with show_stage("subsets", total, "subsets") as line:
        if run.storage.read_key(SUBSETS_PATH) == key:
            line.skip(total)
            return
        subsets = choose_subsets(
            make_category_stats(run),
            study.subsets,
            {metric: find_metric(metric).lower_better for metric in study.metrics},
            _count_images(run.manifests),
        )
        run.storage.write_table(SUBSETS_PATH, subsets, key=key)
        line(total)
        run.record_seconds(line)


def make_category_stats(run: Run) -> pa.Table:
    """Compute the statistics of every category, unless they are there: `schemas.CATEGORY_STATS`.

    Raises:
        StudyError: scores are missing, or are of other images, weights or settings.
    """
    key = _make_scores_key(run)
    if run.storage.read_key(CATEGORY_STATS_PATH) == key:
        return run.storage.read_table(CATEGORY_STATS_PATH)
    from iqray.categories.category_stats import (  # needs scipy
        add_image_sizes,
        compute_category_stats,
    )

    stats = pa.concat_tables(
        add_image_sizes(
            compute_category_stats(read_scores(run.storage, dataset.name, metric)),
            run.manifests[dataset.name],
        )
        for dataset in run.study.datasets
        for metric in run.study.metrics
    )
    run.storage.write_table(CATEGORY_STATS_PATH, stats, key=key)
    return stats


def _make_scores_key(run: Run) -> str:
    plans = plan_study_scores(run)
    for plan in plans:
        record = f"{plan.job.directory}/_complete.json"
        run.require(record, "scores")
        if run.storage.read_json(record)["files"] != list(plan.names):
            raise StudyError(
                f"the scores of '{plan.job.dataset}' with {plan.job.metric} are of other images, "
                "weights or settings than the study's; run --only scores first, or all stages"
            )
    # With the names of their datasets: the same images under another name make other rows.
    content = [[plan.job.name, *plan.names] for plan in plans]
    return hash_content([CATEGORY_STATS_VERSION, content])


def _count_images(manifests: Mapping[str, pa.Table]) -> Counter[tuple[str, str, str]]:
    """Usable images by (dataset, split, category)."""
    return Counter(
        {
            (dataset, split, category): count
            for dataset, manifest in manifests.items()
            for (split, category), count in count_images(
                select_usable(manifest, ["split", "category"])
            ).items()
        }
    )
