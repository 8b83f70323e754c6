"""Scores of lower precision behind the rank gate: which categories to score in full, and the merge.

Reads rows in lower precision (`gate/lower/<dataset>/<metric>/`), has categories scored in full
precision (`gate/exact/<dataset>/<metric>/`, a file per category), and writes the job's rows in
`scores/`, those in full precision wherever there are some. `iqray.scoring.gate` decides; nothing
else may use rows below `gate/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from iqray import schemas
from iqray.categories.category_stats import STATISTICS, compute_category_stats
from iqray.identity import hash_rows
from iqray.metrics.registry import FULL_PRECISION
from iqray.scoring.gate import (
    MIN_SPEARMAN,
    compute_spearman,
    draw_calibration,
    find_open,
)
from iqray.scoring.jobs import ScoreJob
from iqray.scoring.plans import ScorePlan, get_record_path, plan_scores
from iqray.settings.subset import SubsetRules
from iqray.shards import Shard
from iqray.storage import Storage

_STATS_COLUMNS = ["dataset", "metric", "category", "score", "status", "weights"]


def get_rows_path(dataset: str) -> str:
    """Where a dataset's training images lie sorted by category."""
    return f"gate/rows/{dataset}.parquet"


def cut_by_category(storage: Storage, dataset: str, train: pa.Table) -> dict[str, Shard]:
    """Write a dataset's training images sorted by category; a shard for each category.

    Args:
        storage: the output root.
        dataset: its name.
        train: rows of its manifest.
    """
    order = pc.sort_indices(train, [("category", "ascending"), ("path", "ascending")])
    rows = train.take(order)
    path = get_rows_path(dataset)
    storage.write_table(path, rows)
    shards, start = {}, 0
    for index, entry in enumerate(pc.value_counts(rows["category"].combine_chunks()).to_pylist()):
        own = rows.slice(start, entry["counts"])
        content = hash_rows(own.select(["category", "path", "sha256"]))
        shards[entry["values"]] = Shard(path, index, start, own.num_rows, content)
        start += own.num_rows
    return shards


@dataclass
class GatedScores:
    """One dataset and metric on the way through the gate.

    Attributes:
        storage: the output root.
        plan: of the final rows.
        lower: plan of all rows in lower precision, which are finished.
        categories: a shard for each category, in order of their names.
        rules: of the subsets that have to come out as in full precision.
    """

    storage: Storage
    plan: ScorePlan
    lower: ScorePlan
    categories: dict[str, Shard]
    rules: SubsetRules

    @property
    def exact_job(self) -> ScoreJob:
        """The job in full precision."""
        return replace(self.plan.job, folder="gate/exact", precision=FULL_PRECISION, gate="")

    @cached_property
    def _lower_stats(self) -> pd.DataFrame:
        rows = self._read_lower(_STATS_COLUMNS)
        return compute_category_stats(rows).to_pandas().set_index("category")

    def plan_exact(self, categories: Sequence[str]) -> ScorePlan:
        """Plan to score categories in full precision."""
        job = self.exact_job
        shards = tuple(self.categories[category] for category in categories)
        [plan] = plan_scores(self.storage, [job], {job.dataset: shards})
        return plan

    def list_open(self) -> list[str]:
        """Categories that have to be scored in full precision, given those that are."""
        names = list(self.categories)
        exact = self._read_exact()
        known = set() if exact is None else set(exact["category"].to_pylist())
        calibration = [names[index] for index in draw_calibration(len(names))]
        # All of them before anything is decided, also after a kill: fewer tell less of errors.
        uncalibrated = [name for name in calibration if name not in known]
        if exact is None or uncalibrated:
            return uncalibrated
        missing = sorted(set(names) - known)
        if self.measure_spearman(exact) < MIN_SPEARMAN:
            return missing
        found = self._find_open(compute_category_stats(exact).to_pandas().set_index("category"))
        return sorted(set(missing) & found)

    def _find_open(self, exact_stats: pd.DataFrame) -> set[str]:
        lower = self._lower_stats
        num_scored = exact_stats["num_scored"].reindex(lower.index).fillna(lower["num_scored"])
        is_scored = num_scored / lower["num_images"] >= self.rules.min_scored_share
        eligible = lower[is_scored].dropna(subset=self._list_statistics())
        k = self.rules.compute_k(len(lower))
        found: set[str] = set()
        for statistic in self._list_statistics():
            exact = exact_stats[statistic].astype(float).reindex(eligible.index).to_numpy()
            values = eligible[statistic].to_numpy(dtype=float)
            if np.isnan(exact).all():  # none of those drawn is eligible
                return set(eligible.index)
            found |= {str(eligible.index[index]) for index in find_open(values, exact, k)}
        return found

    def _list_statistics(self) -> list[str]:
        """Statistics of scores that decide about a subset."""
        return [name for name in self.rules.statistics if name in STATISTICS]

    def _read_lower(self, columns: list[str] | None = None) -> pa.Table:
        """Rows in lower precision; read anew each time, since all gates' would fill the memory."""
        paths = [f"{self.lower.job.directory}/{name}" for name in self.lower.names]
        return self.storage.read_tables(paths, columns)

    def _read_exact(self) -> pa.Table | None:
        """Rows that exist in full precision."""
        plan = self.plan_exact(list(self.categories))
        if not plan.finished:
            return None
        return self.storage.read_tables(
            [f"{plan.job.directory}/{name}" for name in plan.names if name in plan.finished]
        )

    def measure_spearman(self, exact: pa.Table) -> float:
        """Correlation over images of scores in both precisions."""
        columns = ["image_id", "score"]
        pairs = (
            exact.select(columns)
            .to_pandas()
            .merge(self._read_lower(columns).to_pandas(), on="image_id")
            .dropna()
        )
        return compute_spearman(pairs["score_x"].to_numpy(), pairs["score_y"].to_numpy())

    def merge(self) -> str:
        """Write the gate's record and the final rows; says in a line what the gate has found."""
        exact = self._read_exact()
        assert exact is not None
        num_exact = len(exact["category"].unique())
        spearman = self.measure_spearman(exact)
        record = {
            "precision": self.plan.job.precision,
            "num_categories": len(self.categories),
            "num_categories_in_full_precision": num_exact,
            "spearman": spearman,
        }
        self.storage.write_json(get_record_path(self.plan.job), record)
        merged = _replace_rows(self._read_lower(), exact)
        start = 0
        for shard, name in zip(self.plan.shards, self.plan.names, strict=True):
            rows = merged.slice(start, shard.num_rows)
            self.storage.write_table(f"{self.plan.job.directory}/{name}", rows)
            start += shard.num_rows
        return (
            f"{self.plan.job.name}: {num_exact:,} of {len(self.categories):,} categories in "
            f"{FULL_PRECISION}, Spearman of {self.plan.job.precision} {spearman:.5f}"
        )


def _replace_rows(lower: pa.Table, exact: pa.Table) -> pa.Table:
    """Rows of `lower` in order; where an image has a row of `exact`, that one."""
    both = pa.concat_tables([lower, exact])
    where = pc.index_in(lower["image_id"], value_set=exact["image_id"].combine_chunks())
    positions = pc.add(pc.cast(where, pa.int64()), lower.num_rows)
    own = pa.array(np.arange(lower.num_rows))
    return both.take(pc.coalesce(positions, own)).cast(schemas.SCORES)
