"""Hold a study's ranks against the counts that the paper reports, definition by definition.

Reads `schemas.RANKS` and the paper's headlines, `iqray/data/paper_headlines.csv` (from "The Role of
Image Quality in Shaping Neural Network Representations and Performance"); returns
`schemas.PAPER_CHECK`. Pure, but for the file of headlines that comes with the package.

A headline says how many combinations gave a subset a rank: `range_high` takes rank 1 on distance in
33 of 48. Its status is `stated`, `stated_without_count`, or `order_inferred` where the paper gives
two counts without saying which rank each belongs to. The verdicts, the first that fits:

- exact: the same count of as many combinations.
- consistent: the subset takes the rank more often than chance, and the paper's share lies within
  the 95 % Wilson interval of ours.
- direction: the subset takes the rank more often than chance, and for a first place no other subset
  takes it more often.
- not reproduced: none of these.
- not run: the study has fewer complete combinations of the headline's datasets than half of the
  paper's, which can tell little, or other subsets.

More often than chance, 1 of 4, means that the one-sided binomial test gives p below 0.05: 18 of 48
combinations, 11 of 24. Both it and the interval take combinations for independent, as the paper's
counts do. They are not (`iqray.statistics.statistics`), so that verdicts say how the counts
compare, not how sure a finding is.
"""

import math
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

_LEVEL = 0.05
_CHANCE = 1 / len(SUBSET_NAMES)
_LEAST_SHARE = 0.5  # of the paper's combinations

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
    interval = binomtest(count, n).proportion_ci(1 - _LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def compute_chance_p(count: int, n: int) -> float:
    """One-sided p-value of the binomial test that a rank is taken in more than 1 of 4."""
    return float(binomtest(count, n, _CHANCE, alternative="greater").pvalue)


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
    row = {
        "headline": headline["id"],
        "status": headline["status"],
        **{name: headline[name] for name in ("dataset", "measure", "subset", "rank")},
        "paper_count": paper_count,
        "paper_n": headline["n"],
    }
    subsets = set(ranked["subset"])
    if reason := _explain_lack(subsets, len(ranked) // len(SUBSET_NAMES), headline["n"]):
        return {**row, "verdict": NOT_RUN, "reason": reason, "weights": ""}
    counts = ranked[ranked["rank"] == headline["rank"]].groupby("subset").size()
    count, n = int(counts.get(headline["subset"], 0)), len(ranked) // len(SUBSET_NAMES)
    low, high = compute_wilson(count, n)
    return {
        **row,
        "count": count,
        "n": n,
        "low": low,
        "high": high,
        "p_value": compute_chance_p(count, n),
        "verdict": _decide(headline, count, n, most=int(counts.max()) if len(counts) else 0),
        "reason": "",
        "weights": ", ".join(sorted(ranked["weights"].dropna().unique())),
    }


def _explain_lack(subsets: set[str], n: int, paper_n: int) -> str:
    """Why a headline cannot be judged; empty if it can."""
    if not subsets:
        return "no complete combination of these datasets"
    if subsets != set(SUBSET_NAMES):
        return f"ranks are among {len(subsets)} subsets, not the paper's four"
    least = math.ceil(_LEAST_SHARE * paper_n)
    if n < least:
        return f"{n} combinations; {least} or more, half of the paper's, are needed"
    return ""


def _decide(headline: Mapping[Any, Any], count: int, n: int, most: int) -> str:
    paper_count, paper_n = headline["count"], headline["n"]
    if not pd.isna(paper_count) and (count, n) == (paper_count, paper_n):
        return EXACT
    if compute_chance_p(count, n) >= _LEVEL:
        return NOT_REPRODUCED
    if not pd.isna(paper_count):
        low, high = compute_wilson(count, n)
        if low <= paper_count / paper_n <= high:
            return CONSISTENT
    is_leader = count == most or headline["rank"] != 1
    return DIRECTION if is_leader else NOT_REPRODUCED
