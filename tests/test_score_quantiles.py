"""Quantiles of scores are numpy's at the nearest rank, and name the images that have them."""

import numpy as np
import pandas as pd
import pyarrow as pa

from iqray.categories.score_quantiles import NUM_QUANTILES, find_quantiles
from iqray.metrics.registry import find_metric
from iqray.schemas import SCORE_QUANTILES, SCORES


def make_scores(values, status="ok"):
    frame = pd.DataFrame({"score": values, "path": [f"{n:05d}.jpg" for n in range(len(values))]})
    frame = frame.assign(
        dataset="d", split="train", category="c", metric="niqe", status=status, reason="", note=""
    )
    frame = frame.assign(image_id=np.arange(len(frame)), precision="fp32", weights="published")
    return pa.Table.from_pandas(frame[SCORES.names], schema=SCORES, preserve_index=False)


def test_quantiles_are_numpys_at_the_nearest_rank():
    values = np.random.default_rng(0).normal(size=1001)
    found = find_quantiles(make_scores(values), find_metric("niqe"))
    assert list(found.columns) == SCORE_QUANTILES.names
    wanted = np.quantile(values, np.linspace(0, 1, NUM_QUANTILES), method="nearest")
    np.testing.assert_array_equal(found["score"], wanted)
    np.testing.assert_array_equal(values[found["image_id"]], wanted)
    assert found["lower_better"].all()


def test_images_without_a_score_are_in_no_quantile():
    scored, failed = make_scores([3.0, 1.0, 2.0]), make_scores([None, None], "truncated")
    found = find_quantiles(pa.concat_tables([failed, scored]), find_metric("niqe"))
    assert found["score"].tolist() == sorted(found["score"])
    assert set(found["score"]) == {1.0, 2.0, 3.0}
    assert find_quantiles(failed, find_metric("niqe")).empty


def test_equal_scores_are_ordered_by_path():
    found = find_quantiles(make_scores([1.0] * 101), find_metric("niqe"))
    assert found["path"].is_monotonic_increasing
    assert found["path"].is_unique
