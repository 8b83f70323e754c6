"""From the table of cells to the table of statistics: how far the ranks can be trusted.

Reads `schemas.CELLS` and returns `schemas.STATISTICS`. Values are averaged over seeds and ranked
within each combination. A cluster, (dataset, metric), has the mean of the ranks of its
architectures: they share the categories of its subsets, and their distances have no common scale.
Pure.

Tests over clusters take these for independent. Metrics of a dataset rank the same categories, and
may choose the very same, so a test over clusters can reject far too often: where an effect of the
subsets belongs to the dataset, and not to quality, every metric that agrees with another counts it
again. Tests over datasets take only those for independent.

The tests, by their names in the table:

- friedman: do the subsets differ? Effect is Kendall's W.
- nemenyi: which pairs differ? Effect is the difference of mean ranks, low and high are one critical
  difference away. The row `critical difference` has that as its effect.
- permutation: as friedman, from permuted labels. Unit `clusters`: architectures of a cluster
  together. Unit `datasets`, with several datasets: metrics and architectures of a dataset together;
  with few datasets `smallest_p` is large. Rows of a subset: is its mean rank other than the middle?
  Adjusted for the number of subsets where none differs; once one does, others have small p-values
  too often (`PermutationResult.p_values`).
- without_metric: the permutation test on all metrics but one.
- interaction: do the datasets rank the subsets differently? Its n counts metrics, which it takes
  for independent.
- bootstrap: the mean rank of a subset and its interval; clusters, architectures and seeds drawn.
  Clusters are drawn one by one, as if metrics of a dataset were independent; else it is too narrow.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from iqray.results.ranks import (
    COMBINATION,
    MEASURES,
    average_over_seeds,
    describe_weights,
    rank_cells,
)
from iqray.schemas import STATISTICS
from iqray.statistics.bootstrap import bootstrap_ranks
from iqray.statistics.rank_tests import (
    FloatArray,
    PermutationResult,
    adjust_holm,
    permute_datasets,
    permute_labels,
    run_friedman,
    run_nemenyi,
)

CLUSTER = ("dataset", "metric")
CLUSTERS, COMBINATIONS, DATASETS = "clusters", "combinations", "datasets"

# Comparisons of all subsets at once: of these the measures make a family for Holm's method.
ALL_SUBSETS = "subsets"
_BETWEEN_DATASETS = "subsets between datasets"

CRITICAL_DIFFERENCE = "critical difference"

_SEED = 0
_MIN_SUBSETS = 3
_MIN_UNITS = 2

Row = dict[str, Any]


@dataclass(frozen=True)
class MeasureRanks:
    """Ranks of one measure in one scope, of combinations that have all subsets at all seeds.

    Attributes:
        subsets: names, in the study's order; the columns of everything below.
        combinations: ranks, one row per (dataset, architecture, metric).
        clusters: mean ranks, one row per (dataset, metric).
        values: of each cluster, `(num_architectures, num_seeds, num_subsets)`.
    """

    subsets: tuple[str, ...]
    combinations: pd.DataFrame
    clusters: pd.DataFrame
    values: list[FloatArray]


def compute_statistics(cells: pd.DataFrame) -> pd.DataFrame:
    """Test the ranks of a study.

    Args:
        cells: a table of `schemas.CELLS`, all seeds of the study.

    Returns:
        A table of `schemas.STATISTICS` for the scopes `all` and, where there are several datasets,
        `dataset:<name>`. A test that cannot be made has a row that says why. The same cells give
        the same numbers: random draws have a fixed seed.
    """
    ranked = rank_cells(average_over_seeds(cells))
    rows: list[Row] = []
    for scope in ["all", *_list_datasets(cells)]:
        part = ranked if scope == "all" else ranked[ranked["dataset"] == scope]
        shared = {
            "scope": scope if scope == "all" else f"dataset:{scope}",
            "weights": describe_weights(part["weights"]),
        }
        for measure in MEASURES:
            ranks = _collect_ranks(cells, part, measure)
            tests = _run_tests(ranks) if scope != "all" else _run_all_tests(ranks)
            rows += ({**shared, "measure": measure, **row} for row in tests)
    return _adjust(pd.DataFrame(rows, columns=STATISTICS.names))


def _list_datasets(cells: pd.DataFrame) -> list[str]:
    datasets = cells["dataset"].unique()
    return list(datasets) if len(datasets) > 1 else []


def _collect_ranks(cells: pd.DataFrame, ranked: pd.DataFrame, measure: str) -> MeasureRanks:
    subsets = tuple(cells["subset"].unique())
    complete = ranked.dropna(subset=[f"rank_{measure}"])
    combinations = complete.pivot(
        index=list(COMBINATION), columns="subset", values=f"rank_{measure}"
    ).reindex(columns=list(subsets))
    kept = cells.merge(combinations.index.to_frame(index=False), on=list(COMBINATION))
    values = kept.pivot(index=[*COMBINATION, "seed"], columns="subset", values=measure).reindex(
        columns=list(subsets)
    )
    num_seeds = cells["seed"].nunique()
    return MeasureRanks(
        subsets,
        combinations,
        combinations.groupby(list(CLUSTER)).mean(),
        [
            rows.to_numpy(dtype=np.float64).reshape(-1, num_seeds, len(subsets))
            for _, rows in values.groupby(list(CLUSTER))
        ],
    )


def _run_all_tests(ranks: MeasureRanks) -> Iterator[Row]:
    yield from _run_tests(ranks)
    yield _permute_in_datasets(ranks)
    yield from _leave_metrics_out(ranks)
    yield _test_interaction(ranks)


def _run_tests(ranks: MeasureRanks) -> Iterator[Row]:
    for unit, table in ((COMBINATIONS, ranks.combinations), (CLUSTERS, ranks.clusters)):
        yield _test_friedman(ranks, unit, table)
        yield from _compare_pairs(ranks, unit, table)
    yield from _test_permutations(ranks)
    yield from _bootstrap(ranks)


def _test_friedman(ranks: MeasureRanks, unit: str, table: pd.DataFrame) -> Row:
    row = {"test": "friedman", "unit": unit, "comparison": ALL_SUBSETS, "n": len(table)}
    if reason := _explain_lack(ranks, unit, len(table)):
        return {**row, "reason": reason}
    result = run_friedman(table.to_numpy())
    return {
        **row,
        "statistic": result.statistic,
        "p_value": result.p_value,
        "effect": result.kendall_w,
        "leader": _find_leader(table),
        "reason": "all subsets tie in every unit" if np.isnan(result.p_value) else "",
    }


def _compare_pairs(ranks: MeasureRanks, unit: str, table: pd.DataFrame) -> Iterator[Row]:
    row = {"test": "nemenyi", "unit": unit, "n": len(table), "reason": ""}
    if reason := _explain_lack(ranks, unit, len(table)):
        yield {**row, "comparison": CRITICAL_DIFFERENCE, "reason": reason}
        return
    result = run_nemenyi(table.to_numpy())
    limit = result.critical_difference
    yield {**row, "comparison": CRITICAL_DIFFERENCE, "effect": limit}
    for first, second in itertools.combinations(range(len(ranks.subsets)), 2):
        difference = result.differences[first, second]
        yield {
            **row,
            "comparison": f"{ranks.subsets[first]} - {ranks.subsets[second]}",
            "p_value": result.p_values[first, second],
            "effect": difference,
            "low": difference - limit,
            "high": difference + limit,
        }


def _test_permutations(ranks: MeasureRanks) -> Iterator[Row]:
    table = ranks.clusters
    row = {"test": "permutation", "unit": CLUSTERS, "n": len(table), "reason": ""}
    if reason := _explain_lack(ranks, CLUSTERS, len(table)):
        yield {**row, "comparison": ALL_SUBSETS, "reason": reason}
        return
    result = permute_labels(table.to_numpy(), _SEED)
    yield {**row, "comparison": ALL_SUBSETS, **_describe_all(result, table)}
    for index, subset in enumerate(ranks.subsets):
        yield {
            **row,
            "comparison": subset,
            "statistic": result.deviations[index],
            "p_value": result.p_values[index],
            "effect": table[subset].mean(),
        }


def _permute_in_datasets(ranks: MeasureRanks) -> Row:
    table = ranks.clusters.groupby("dataset").mean()
    row = {"test": "permutation", "unit": DATASETS, "comparison": ALL_SUBSETS, "n": len(table)}
    if reason := _explain_lack(ranks, DATASETS, len(table)):
        return {**row, "reason": reason}
    result = permute_labels(table.to_numpy(), _SEED)
    return {**row, "reason": "", **_describe_all(result, table)}


def _describe_all(result: PermutationResult, table: pd.DataFrame) -> Row:
    return {
        "statistic": result.statistic,
        "p_value": result.p_value,
        "smallest_p": result.smallest_p,
        "effect": run_friedman(table.to_numpy()).kendall_w,
        "leader": _find_leader(table),
    }


def _leave_metrics_out(ranks: MeasureRanks) -> Iterator[Row]:
    metrics = ranks.clusters.index.get_level_values("metric")
    for metric in metrics.unique():
        rest = ranks.clusters[metrics != metric]
        row = {
            "test": "without_metric",
            "unit": CLUSTERS,
            "comparison": f"without {metric}",
            "n": len(rest),
        }
        if reason := _explain_lack(ranks, CLUSTERS, len(rest)):
            yield {**row, "reason": reason}
            continue
        result = permute_labels(rest.to_numpy(), _SEED)
        yield {**row, "reason": "", **_describe_all(result, rest)}


def _test_interaction(ranks: MeasureRanks) -> Row:
    tables = [table.droplevel("dataset") for _, table in ranks.clusters.groupby("dataset")]
    shared = [
        metric
        for metric in ranks.clusters.index.get_level_values("metric").unique()
        if all(metric in table.index for table in tables)
    ]
    row: Row = {
        "test": "interaction",
        "unit": CLUSTERS,
        "comparison": _BETWEEN_DATASETS,
        "n": len(shared),
    }
    if len(tables) < 2:
        return {**row, "reason": f"{len(tables)} datasets with all subsets; 2 or more are needed"}
    if reason := _explain_lack(ranks, "metrics in all datasets", len(shared)):
        return {**row, "reason": reason}
    statistic, p_value = permute_datasets(
        np.stack([table.loc[shared].to_numpy() for table in tables], axis=1), _SEED
    )
    return {**row, "statistic": statistic, "p_value": p_value, "reason": ""}


def _bootstrap(ranks: MeasureRanks) -> Iterator[Row]:
    row = {"test": "bootstrap", "unit": CLUSTERS, "n": len(ranks.clusters), "reason": ""}
    if reason := _explain_lack(ranks, CLUSTERS, len(ranks.clusters)):
        yield {**row, "comparison": ALL_SUBSETS, "reason": reason}
        return
    result = bootstrap_ranks(ranks.values, _SEED)
    for index, subset in enumerate(ranks.subsets):
        yield {
            **row,
            "comparison": subset,
            "effect": result.mean_ranks[index],
            "low": result.low[index],
            "high": result.high[index],
        }


def _explain_lack(ranks: MeasureRanks, unit: str, num_units: int) -> str:
    """Why there is too little for a test; empty if there is enough."""
    num_subsets = len(ranks.subsets)
    if num_subsets < _MIN_SUBSETS:
        return f"{num_subsets} subsets; {_MIN_SUBSETS} or more are needed"
    if num_units < _MIN_UNITS:
        return f"{num_units} {unit} with all subsets; {_MIN_UNITS} or more are needed"
    return ""


def _find_leader(table: pd.DataFrame) -> str:
    means = table.mean()
    return ", ".join(means.index[np.isclose(means, means.min())])


def _adjust(statistics: pd.DataFrame) -> pd.DataFrame:
    """Fill `p_holm`: the measures of a test of all subsets are one family."""
    is_family = statistics["comparison"].isin([ALL_SUBSETS, _BETWEEN_DATASETS])
    family = statistics[is_family].astype({"p_value": "float64"})
    p_holm = family.groupby(["scope", "unit", "test"])["p_value"].transform(adjust_holm)
    return statistics.assign(p_holm=p_holm)
