"""The sentences of the report's first screen: what was run, what was found, how certain that is.

Reads finished tables through `ReportInputs`. Pure.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from iqray.progress import format_seconds
from iqray.report.inputs import ReportInputs
from iqray.report.interval_tables import name_draws
from iqray.results.cells import describe_finding
from iqray.results.ranks import MEASURES
from iqray.statistics.statistics import ALL_SUBSETS, CLUSTERS, DATASETS

# Below it, the subsets' ranks are called different; after Holm's method, so that it bounds the
# chance of any false alarm among the measures.
_LEVEL = 0.05


@dataclass(frozen=True)
class Finding:
    """What a measure shows in one sentence, and how certain that is."""

    text: str
    certainty: str


def list_findings(
    rank_counts: pd.DataFrame, statistics: pd.DataFrame, intervals: pd.DataFrame, num_seeds: int
) -> list[Finding]:
    """For each measure the subset with the most first places, and what the tests say of it."""
    sentences = describe_finding(rank_counts)
    return [
        Finding(sentence, describe_certainty(statistics, intervals, measure, num_seeds))
        for sentence, measure in zip(sentences, MEASURES, strict=True)
    ]


def describe_certainty(
    statistics: pd.DataFrame, intervals: pd.DataFrame, measure: str, num_seeds: int
) -> str:
    """Say the best mean rank with its interval, and whether the subsets differ beyond chance.

    Args:
        statistics: a table of `schemas.STATISTICS`; its rows of the whole study are read.
        intervals: a table of `schemas.INTERVALS`.
        measure: which.
        num_seeds: of the study.
    """
    own = statistics[(statistics["scope"] == "all") & (statistics["measure"] == measure)]
    is_joint = (own["test"] == "permutation") & (own["comparison"] == ALL_SUBSETS)
    tests = own[is_joint].set_index("unit").to_dict("index")
    if CLUSTERS not in tests:
        return "Not tested."
    test = tests[CLUSTERS]
    if test["reason"]:
        return f"Not tested: {test['reason']}."
    means = own[own["test"] == "bootstrap"].set_index("comparison")
    leaders = str(test["leader"]).split(", ")
    is_drawn = (intervals["scope"] == "all") & (intervals["measure"] == measure)
    drawn = intervals[is_drawn].set_index("subset")
    if leaders[0] in drawn.index:
        mean, low, high = drawn.loc[leaders[0], ["rank", "rank_low", "rank_high"]]
        source = name_draws(num_seeds, "categories", "images")
    else:  # a trial lacks what is drawn from
        mean, low, high = means.loc[leaders[0], ["effect", "low", "high"]]
        source = name_draws(num_seeds, "clusters", "architectures")
    verdict = (
        "the subsets differ" if test["p_holm"] < _LEVEL else "not to be told apart from chance"
    )
    return (
        f"Best mean rank: {' and '.join(leaders)}, {mean:.2f} (95 % interval "
        f"{low:.2f} to {high:.2f} over drawn {source}; {(1 + len(means)) / 2:g} by chance). Over "
        f"{test['n']} clusters {verdict}: p {_format_p(test['p_holm'])} after Holm"
        f"{_describe_datasets(tests)}."
    )


def _describe_datasets(tests: Mapping[Hashable, Mapping[Hashable, Any]]) -> str:
    """What the test over datasets gives, beside that over clusters; rows by unit."""
    if DATASETS not in tests:
        return ""
    test = tests[DATASETS]
    if test["reason"]:
        return f". Over datasets not tested: {test['reason']}"
    return (
        f". Over {test['n']} datasets p {_format_p(test['p_holm'])} after Holm; before Holm it "
        f"cannot be below {test['smallest_p']:.2g}"
    )


def _format_p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def describe_evidence(cells: pd.DataFrame) -> str:
    """Say what the counts would be by chance, and how far combinations are independent."""
    num_subsets = cells["subset"].nunique()
    num_combinations = len(cells[["dataset", "architecture", "metric"]].drop_duplicates())
    num_choices = len(cells[["dataset", "metric"]].drop_duplicates())
    return (
        f"If order were random, a subset would take about one in {num_subsets} first places. "
        f"Architectures share the choice of categories, so the {num_combinations} combinations "
        f"stand for {num_choices} clusters (dataset x metric), not for as many independent "
        "observations. Tests over clusters allow for that, and for no more: they take clusters for "
        "independent, while the metrics of a dataset rank the same categories and may choose the "
        "very same. The test over datasets takes only datasets for independent. Intervals hold for "
        "these metrics and datasets."
    )


def list_facts(inputs: ReportInputs) -> dict[str, str]:
    """What was run, as the short lines of the first screen."""
    cells = inputs.cells
    num_cells = len(cells[["dataset", "architecture", "metric", "subset"]].drop_duplicates())
    seeds = sorted(cells["seed"].unique())
    return {
        "Data": "; ".join(_describe_data(inputs.image_counts)),
        "Metrics": ", ".join(inputs.weights),
        "Weights": _describe_weights(inputs.weights),
        "Subsets": "; ".join(_describe_subsets(inputs.subsets, inputs.category_stats)),
        "Architectures": ", ".join(cells["architecture"].unique()),
        "Recipe": inputs.recipe + (" (preview)" if inputs.is_preview else ""),
        "Seeds": ", ".join(map(str, seeds)),
        "Grid": f"{num_cells} cells, {cells['trial_id'].nunique()} distinct trials",
        "Cost": _describe_cost(inputs),
    }


def _describe_weights(weights: Mapping[str, str]) -> str:
    provenances = sorted(set(weights.values()))
    if len(provenances) == 1:
        return f"{provenances[0]} for all metrics"
    return "; ".join(
        f"{provenance} for {', '.join(name for name in weights if weights[name] == provenance)}"
        for provenance in provenances
    )


def _describe_data(image_counts: pd.DataFrame) -> Iterator[str]:
    for dataset, splits in image_counts.groupby("dataset", sort=False):
        images = ", ".join(
            f"{num_images:,} {split}"
            for split, num_images in zip(splits["split"], splits["num_images"], strict=True)
        )
        yield f"{dataset}: {splits['num_categories'].max()} categories, {images} images"


def _describe_subsets(subsets: pd.DataFrame, category_stats: pd.DataFrame) -> Iterator[str]:
    """How many categories a subset of each dataset has, then by what they are sorted."""
    sizes = subsets.groupby(["dataset", "metric", "subset"], sort=False).size()
    totals = category_stats.groupby("dataset")["category"].nunique()
    for dataset, own in sizes.groupby("dataset", sort=False):
        numbers = "-".join(map(str, sorted({own.min(), own.max()})))
        yield f"{numbers} of {totals[dataset]} categories of {dataset}"
    yield f"by {' and '.join(subsets['statistic'].unique())}"


def _describe_cost(inputs: ReportInputs) -> str:
    """Seconds of scoring and training; trainings that ran at the same time add up."""
    trials = inputs.cells.drop_duplicates("trial_id")
    parts = [f"training {format_seconds(trials['train_s'].astype('float64').sum())} in all trials"]
    if "scores" in inputs.stage_s:
        parts.insert(0, f"scoring {format_seconds(inputs.stage_s['scores'])}")
    if inputs.stage_s:
        parts.append(f"all stages {format_seconds(sum(inputs.stage_s.values()))} by the clock")
    if inputs.machines:
        parts.append(f"trained on {', '.join(inputs.machines)}")
    return "; ".join(parts)
