import numpy as np
import pyarrow as pa
import pytest

from iqray import schemas
from iqray.categories.category_stats import STATISTICS, add_image_sizes, compute_category_stats


def make_scores(values: dict[str, list[float | None]]) -> pa.Table:
    rows = [
        {
            "dataset": "d",
            "metric": "niqe",
            "category": category,
            "score": score,
            "status": "ok" if score is not None else "decode_error",
            "weights": "demo weights",
        }
        for category, scores in values.items()
        for score in scores
    ]
    return pa.Table.from_pylist(rows, schema=schemas.SCORES)


def test_statistics_of_a_worked_example() -> None:
    (row,) = compute_category_stats(
        make_scores({"a": [-1.0, 0, 1, 2, 3, 4, 5, 6, 7, 100]})
    ).to_pylist()
    assert row["num_images"] == row["num_scored"] == 10
    assert row["mean"] == pytest.approx(12.7)
    assert row["median"] == pytest.approx(3.5)
    assert row["trimmed_mean"] == pytest.approx(3.5)  # -1 and 100 cut off
    assert row["max_min"] == pytest.approx(101)
    assert row["iqr"] == pytest.approx(5.75 - 1.25)
    assert row["p95_p5"] == pytest.approx((7 + 0.55 * 93) - (-1 + 0.45))
    assert row["sd"] == pytest.approx(np.std([-1, 0, 1, 2, 3, 4, 5, 6, 7, 100], ddof=1))
    assert row["weights"] == "demo weights"


def test_failed_images_are_counted_but_not_averaged() -> None:
    (row,) = compute_category_stats(make_scores({"a": [1.0, None, 3.0]})).to_pylist()
    assert (row["num_images"], row["num_scored"], row["mean"]) == (3, 2, 2.0)


def test_category_without_scores_has_null_statistics() -> None:
    rows = compute_category_stats(make_scores({"a": [None], "b": [4.0]})).to_pylist()
    assert [row["category"] for row in rows] == ["a", "b"]
    assert rows[0]["num_scored"] == 0
    assert rows[0]["mean"] is None
    assert rows[1]["max_min"] == 0.0
    assert rows[1]["sd"] is None


def test_ranges_ignore_shift_and_follow_scale() -> None:
    values = list(np.random.default_rng(0).normal(size=50))
    (before,) = compute_category_stats(make_scores({"a": values})).to_pylist()
    (after,) = compute_category_stats(make_scores({"a": [-3 * v + 7 for v in values]})).to_pylist()
    for name in ("max_min", "p95_p5", "p99_p1", "iqr", "sd"):
        assert after[name] == pytest.approx(3 * before[name])
    assert after["mean"] == pytest.approx(-3 * before["mean"] + 7)


def test_statistics_run_along_the_last_axis() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 2, 40))
    for compute in STATISTICS.values():
        rows = [[float(compute(row)) for row in block] for block in scores]
        np.testing.assert_allclose(compute(scores), rows)


def make_manifest(images: list[tuple[str, str, int, int, int, str]]) -> pa.Table:
    names = ("split", "category", "num_bytes", "width", "height", "status")
    rows = [dict(zip(names, image, strict=True)) for image in images]
    return pa.Table.from_pylist(rows, schema=schemas.MANIFEST)


def test_image_sizes_are_medians_over_readable_training_images() -> None:
    stats = compute_category_stats(make_scores({"b": [1.0, 2.0, 3.0], "a": [4.0], "c": [None]}))
    manifest = make_manifest(
        [
            ("train", "b", 100, 10, 10, "ok"),
            ("train", "b", 100, 10, 20, "ok"),
            ("train", "b", 600, 10, 30, "ok"),
            ("train", "b", 999, 90, 90, "crashed"),
            ("test", "b", 999, 90, 90, "ok"),
            ("train", "a", 50, 5, 5, "ok"),
        ]
    )
    rows = add_image_sizes(stats, manifest).to_pylist()
    assert [row["category"] for row in rows] == ["a", "b", "c"]
    assert [row["median_pixels"] for row in rows] == [25, 200, None]
    assert [row["bytes_per_pixel"] for row in rows] == [2.0, 1.0, None]
    assert [row["num_scored"] for row in rows] == [1, 3, 0]
