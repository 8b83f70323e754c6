"""Control subsets, and where the real ones stand among them and beside other controls. Pure.

Reads `schemas.SUBSETS` and returns `schemas.CONTROL_SUBSETS`; reads finished cells and returns
`schemas.CONTROLS`. Kinds of control that are drawn, each of as many categories as a real subset:

- random: any categories of the dataset. What a real subset shows beyond them is not chance.
- count_matched: for a real subset, other categories with about as many training images, so that a
  difference is not one of image counts.
- difficulty_matched: likewise of about the same difficulty, which the user's file defines.

Kinds that keep the categories of a real subset:

- image_halves: the best and the worst half of its images (`iqray.categories.image_halves`). What
  they differ by is not one of categories.
- untrained: its networks before training. What a real subset has beyond them has been learned.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.results.ranks import MEASURES, round_for_ties
from iqray.schemas import CONTROL_SUBSETS, CONTROLS
from iqray.settings.control import (
    BEST_HALF,
    COUNT_MATCHED,
    DRAWN,
    IMAGE_HALVES,
    RANDOM,
    UNTRAINED,
    WORST_HALF,
)

# A matched category is drawn among this many of the most similar ones that are left: more of them
# make draws that differ more, and match less.
NUM_NEAREST = 10

_CELL = ("dataset", "architecture", "metric", "subset")

Row = dict[str, Any]


def choose_controls(
    subsets: pd.DataFrame,
    counts: Mapping[str, int],
    num_draws: Mapping[str, int],
    difficulty: Mapping[str, float],
) -> pd.DataFrame:
    """Draw the control subsets of a dataset. The same study draws the same ones.

    Args:
        subsets: a table of `schemas.SUBSETS`, of one dataset.
        counts: training images of every category that may be drawn.
        num_draws: subsets by kind of control: of the dataset, or for each real subset.
        difficulty: of every category of `counts`, where a control needs it.

    Returns:
        A table of `schemas.CONTROL_SUBSETS`.

    Raises:
        StudyError: too few categories may be drawn.
    """
    dataset = subsets["dataset"].iloc[0]
    groups = subsets.groupby(["metric", "subset"], sort=False)["category"]
    real = {names: list(categories) for names, categories in groups}
    rows: list[Row] = []
    for control, num in num_draws.items():
        values = counts if control == COUNT_MATCHED else difficulty
        for draw in range(1, num + 1):
            if control == RANDOM:
                picked = _draw(dataset, counts, len(next(iter(real.values()))), draw)
                rows += (_describe(dataset, control, draw, each, counts) for each in picked)
                continue
            for names, categories in real.items():
                metric, subset = map(str, names)
                seed = _make_seed(dataset, control, metric, subset, draw)
                pairs = _match(dataset, control, categories, values, seed)
                rows += (
                    {
                        **_describe(dataset, control, draw, picked, counts),
                        "metric": metric,
                        "subset": subset,
                        "matched_category": matched,
                        "value": values[picked],
                        "matched_value": values[matched],
                    }
                    for picked, matched in pairs
                )
    return pd.DataFrame(rows, columns=CONTROL_SUBSETS.names)


def compute_null_limit(num_draws: pd.Series) -> pd.Series:
    """The |z| within which one more control subset would lie in 95 % of studies.

    That is the prediction interval of one more value from a normal distribution of which the mean
    and the standard deviation are estimated from `num_draws` values: `t(0.975, n - 1) *
    sqrt(1 + 1 / n)` (Hahn and Meeker, 1991, Statistical Intervals, chapter 4). It is 15.6 of two
    draws, 2.14 of 20, and nears 1.96 of ever more.

    Args:
        num_draws: as in `schemas.CONTROLS`.

    Returns:
        Floats with the same index; NaN below two draws, which have no z either.
    """
    n = num_draws.astype("float64").where(num_draws >= 2)
    return student.ppf(0.975, n - 1) * np.sqrt(1 + 1 / n)


def place_cells(cells: pd.DataFrame, control_cells: pd.DataFrame) -> pd.DataFrame:
    """Place every real subset among its controls that are drawn, on averages over seeds.

    Args:
        cells: a table of `schemas.CELLS`.
        control_cells: a table of `schemas.CONTROL_CELLS`.

    Returns:
        A table of `schemas.CONTROLS`: one row per cell, kind of control and measure. A cell, or a
        draw, that lacks a value at any seed is left out of what is compared.
    """
    num_seeds = cells["seed"].nunique()
    real = _average(cells, list(_CELL), num_seeds)
    weights = cells.groupby(list(_CELL), sort=False)["weights"].first()
    keys = ["control", *_CELL, "draw"]
    drawn = control_cells[control_cells["control"].isin(DRAWN)]
    draws = _average(drawn.fillna({"metric": "", "subset": ""}), keys, num_seeds)
    rows = []
    for control, own in draws.groupby("control", sort=False):
        shared = ["dataset", "architecture"] if control == RANDOM else list(_CELL)
        by_place = dict(iter(own.groupby(shared, sort=False)))
        for names, values in real.iterrows():
            assert isinstance(names, tuple)
            null = by_place.get(names[: len(shared)])
            for measure in MEASURES:
                known = [] if null is None else null[measure].dropna().to_list()
                rows.append(
                    {
                        **dict(zip(_CELL, names, strict=True)),
                        "control": control,
                        "measure": measure,
                        **_place(values[measure], known),
                        "weights": weights[names],
                    }
                )
    return pd.DataFrame(rows, columns=CONTROLS.names)


def compare_cells(cells: pd.DataFrame, control_cells: pd.DataFrame) -> pd.DataFrame:
    """Compare every real subset with controls of its own categories, on averages over seeds.

    Args:
        cells: a table of `schemas.CELLS`.
        control_cells: a table of `schemas.CONTROL_CELLS`.

    Returns:
        A table of `schemas.CONTROLS`: one row per cell, kind of control and measure. What lacks a
        value at any seed has no difference. One control is no spread: z and percentile are null.
    """
    num_seeds = cells["seed"].nunique()
    means = {"": _average(cells, list(_CELL), num_seeds)}
    for control, own in control_cells.groupby("control", sort=False):
        if control not in DRAWN:
            means[str(control)] = _average(own, list(_CELL), num_seeds)
    weights = cells.groupby(list(_CELL), sort=False)["weights"].first()
    tables = [
        _subtract(control, means[first], means[second], weights)
        for control, first, second in (
            (IMAGE_HALVES, BEST_HALF, WORST_HALF),
            (UNTRAINED, "", UNTRAINED),
        )
        if second in means
    ]
    return pd.concat(tables) if tables else pd.DataFrame(columns=CONTROLS.names)


def _subtract(
    control: str, first: pd.DataFrame, second: pd.DataFrame, weights: pd.Series
) -> pd.DataFrame:
    columns = list(MEASURES)
    table = first[columns].stack(future_stack=True).rename_axis([*_CELL, "measure"])
    other = second[columns].stack(future_stack=True).rename_axis([*_CELL, "measure"])
    joined = pd.DataFrame({"value": table, "mean": other}).reindex(table.index)
    frame = joined.reset_index().join(weights, on=list(_CELL))
    return frame.assign(
        control=control,
        difference=frame["value"] - frame["mean"],
        num_draws=frame["mean"].notna().astype(int),
    ).reindex(columns=CONTROLS.names)


def _average(cells: pd.DataFrame, keys: list[str], num_seeds: int) -> pd.DataFrame:
    measured = cells[list(MEASURES)].astype("float64").where(cells["status"] == "ok")
    groups = measured.groupby([cells[key] for key in keys], sort=False)
    means = groups.mean().where(groups.count() == num_seeds)
    # As ranks do, so that what differs by the order of a sum is equal here too.
    return means.apply(round_for_ties)


def _place(value: float, draws: Sequence[float]) -> Row:
    """A value among draws; what needs more draws, or a spread of them, is null."""
    row: Row = {"value": value, "num_draws": len(draws)}
    if not draws or np.isnan(value):
        return row
    null = np.asarray(draws)
    below = (null < value).sum() + 0.5 * (null == value).sum()
    row |= {"mean": null.mean(), "difference": value - null.mean()}
    row["percentile"] = 100 * below / len(null)
    if null.min() < null.max():  # of equal values the deviation is 0 but for rounding
        sd = null.std(ddof=1)
        row |= {"sd": sd, "z": (value - null.mean()) / sd}
    return row


def _describe(
    dataset: str, control: str, draw: int, category: str, counts: Mapping[str, int]
) -> Row:
    return {
        "dataset": dataset,
        "control": control,
        "draw": draw,
        "category": category,
        "num_train_images": counts[category],
    }


def _draw(dataset: str, counts: Mapping[str, int], k: int, draw: int) -> list[str]:
    _check_enough(dataset, RANDOM, len(counts), k)
    generator = np.random.default_rng(_make_seed(dataset, RANDOM, draw))
    return sorted(generator.choice(sorted(counts), size=k, replace=False).tolist())


def _match(
    dataset: str,
    control: str,
    categories: Sequence[str],
    values: Mapping[str, float],
    seed: int,
) -> Iterator[tuple[str, str]]:
    """For each category of a subset another one outside it, and the category that it is alike."""
    left = sorted(set(values) - set(categories))
    _check_enough(dataset, control, len(left), len(categories))
    generator = np.random.default_rng(seed)
    for category in generator.permutation(sorted(categories)).tolist():
        shuffled = generator.permutation(left).tolist()  # equal values are drawn alike
        nearest = sorted(shuffled, key=lambda name: abs(values[name] - values[category]))
        picked = str(generator.choice(nearest[:NUM_NEAREST]))
        left.remove(picked)
        yield picked, category


def _check_enough(dataset: str, control: str, num: int, k: int) -> None:
    if num < k:
        raise StudyError(
            f"controls.{control}: {num} categories of '{dataset}' can be drawn, and a subset has "
            f"{k}; lower subsets.fraction or subsets.k, or set controls.{control} to 0"
        )


def _make_seed(*names: object) -> int:
    return int(hash_content(list(names))[:16], 16)
