"""Hold a study's ranks against the counts that the paper reports, definition by definition.

Reads `schemas.RANKS` and the paper's headlines, `iqray/data/paper_headlines.csv` (from "The Role of
Image Quality in Shaping Neural Network Representations and Performance"); returns
`schemas.PAPER_CHECK`. Pure, but for the file of headlines that comes with the package.

A headline says how many combinations gave a subset a rank: `range_high` takes rank 1 on distance in
33 of 48. Its status is `stated`, `stated_without_count`, or `order_inferred` where the paper gives
two counts without saying which rank each belongs to. The verdicts, the first that fits:

- exact: the same count of as many combinations.
- consistent: our share lies within the 95 % Wilson interval of the paper's.
- direction: the subset takes the rank more often than chance, 1 of 4, and for a first place no
  other subset takes it more often.
- not reproduced: none of these.
- not run: the study has no complete combination of the headline's datasets, or other subsets.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from iqray.recipes import ARCHITECTURES
from iqray.results.distances import PAPER_DEFINITION
from iqray.schemas import PAPER_CHECK
from iqray.settings.subset import SUBSET_NAMES
from iqray.study import PAPER_METRICS

EXACT, CONSISTENT, DIRECTION = "exact", "consistent", "direction"
NOT_REPRODUCED, NOT_RUN = "not reproduced", "not run"

PAPER_DATASETS = ("imagenet", "ecoset")
PAPER_DEFINITIONS = (PAPER_DEFINITION, "category_mean")

_BOTH = "both"  # the headline's word for all datasets


def read_headlines() -> pd.DataFrame:
    """The paper's headline counts.

    Returns:
        Columns id, dataset (imagenet, ecoset or both), measure, subset, rank, count (combinations;
        null where the paper gives none), n (combinations in all) and status.
    """
    with files("iqray").joinpath("data/paper_headlines.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype={"count": "Int64"})


def check_headlines(ranks: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Compare every headline with the ranks of every definition and orientation.

    Only the paper's metrics and architectures count, and ranks over seeds.

    Args:
        ranks: a table of `schemas.RANKS`.
        names: by the paper's dataset the name that the study gives it.

    Returns:
        A table of `schemas.PAPER_CHECK`, by headline, then orientation and definition.
    """
    own = ranks[
        ranks["seed"].isna()
        & ranks["metric"].isin(PAPER_METRICS)
        & ranks["architecture"].isin(ARCHITECTURES)
    ]
    rows = [
        {**shared, **_judge(headline, _select(part, headline, names))}
        for headline in read_headlines().to_dict("records")
        for shared, part in _list_definitions(ranks, own, str(headline["measure"]))
    ]
    return pd.DataFrame(rows, columns=PAPER_CHECK.names)


def tabulate_survival(check: pd.DataFrame) -> pd.DataFrame:
    """Verdicts of every headline: one row per headline, one column per orientation and definition.

    Args:
        check: a table of `schemas.PAPER_CHECK`.
    """
    keys = ["headline", "measure", "dataset", "subset", "rank"]
    return check.pivot(index=keys, columns=["orientation", "definition"], values="verdict")


def compute_wilson(count: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share (Wilson 1927, without continuity correction)."""
    interval = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _list_definitions(
    ranks: pd.DataFrame, own: pd.DataFrame, measure: str
) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """Every orientation and definition of a measure in the table, with its rows of `own`."""
    keys = ["orientation", "definition"]
    known = ranks.loc[ranks["measure"] == measure, keys].drop_duplicates()
    return [
        (
            {"orientation": orientation, "definition": definition},
            own[
                (own["measure"] == measure)
                & (own["orientation"] == orientation)
                & (own["definition"] == definition)
            ],
        )
        for orientation, definition in known.itertuples(index=False)
    ]


def _select(part: pd.DataFrame, headline: Mapping[Any, Any], names: Mapping[str, str]) -> Any:
    """Rows of the headline's datasets; of `both` only where both are there."""
    asked = PAPER_DATASETS if headline["dataset"] == _BOTH else (headline["dataset"],)
    wanted = [names.get(name, name) for name in asked]
    rows = part[part["dataset"].isin(wanted)].dropna(subset=["rank"])
    return rows if set(wanted) <= set(rows["dataset"]) else rows.iloc[:0]


def _judge(headline: Mapping[Any, Any], ranked: pd.DataFrame) -> dict[str, Any]:
    paper_count = None if pd.isna(headline["count"]) else int(headline["count"])
    low, high = (None, None)
    if paper_count is not None:
        low, high = compute_wilson(paper_count, headline["n"])
    row = {
        "headline": headline["id"],
        "status": headline["status"],
        **{name: headline[name] for name in ("dataset", "measure", "subset", "rank")},
        "paper_count": paper_count,
        "paper_n": headline["n"],
        "paper_low": low,
        "paper_high": high,
    }
    subsets = set(ranked["subset"])
    if subsets != set(SUBSET_NAMES):
        reason = "no complete combination of these datasets"
        if subsets:
            reason = f"ranks are among {len(subsets)} subsets, not the paper's four"
        return {**row, "verdict": NOT_RUN, "reason": reason, "weights": ""}
    counts = ranked[ranked["rank"] == headline["rank"]].groupby("subset").size()
    count, n = int(counts.get(headline["subset"], 0)), len(ranked) // len(SUBSET_NAMES)
    verdict = _decide(headline, count, n, most=int(counts.max()) if len(counts) else 0)
    weights = ", ".join(sorted(ranked["weights"].dropna().unique()))
    return {**row, "count": count, "n": n, "verdict": verdict, "reason": "", "weights": weights}


def _decide(headline: Mapping[Any, Any], count: int, n: int, most: int) -> str:
    if not pd.isna(headline["count"]):
        if (count, n) == (headline["count"], headline["n"]):
            return EXACT
        low, high = compute_wilson(int(headline["count"]), headline["n"])
        if low <= count / n <= high:
            return CONSISTENT
    is_frequent = count * len(SUBSET_NAMES) > n
    is_leader = count == most or headline["rank"] != 1
    return DIRECTION if is_frequent and is_leader else NOT_REPRODUCED
