"""Tables of categories and the subsets chosen from them."""

import pyarrow as pa

# One row per (dataset, metric, category), over the training images with status ok.
CATEGORY_STATS = pa.schema(
    [
        ("dataset", pa.string()),
        ("metric", pa.string()),
        ("category", pa.string()),
        ("num_images", pa.int64()),
        ("num_scored", pa.int64()),
        ("mean", pa.float64()),
        ("median", pa.float64()),
        ("trimmed_mean", pa.float64()),  # 10 % cut from each end
        ("max_min", pa.float64()),
        ("p95_p5", pa.float64()),
        ("p99_p1", pa.float64()),
        ("iqr", pa.float64()),
        ("sd", pa.float64()),  # n - 1 in the denominator; null below two images
        ("median_pixels", pa.float64()),  # width x height, as stored; of readable images
        ("bytes_per_pixel", pa.float64()),  # median over readable images; encoded bytes
        ("weights", pa.string()),
    ]
)

# One row per (dataset, metric, subset, category): which categories a subset holds.
SUBSETS = pa.schema(
    [
        ("dataset", pa.string()),
        ("metric", pa.string()),
        ("subset", pa.string()),  # such as avg_high, avg_low, range_high, range_low
        ("position", pa.int32()),  # 1 is the most extreme
        ("category", pa.string()),
        ("statistic", pa.string()),  # column of CATEGORY_STATS that was sorted
        ("value", pa.float64()),  # its value; averages in the study's orientation
        ("num_train_images", pa.int64()),
        ("num_test_images", pa.int64()),
        ("weights", pa.string()),
    ]
)

# One row per (control, metric, subset, draw, category): which categories a control subset holds.
CONTROL_SUBSETS = pa.schema(
    [
        ("dataset", pa.string()),
        (
            "control",
            pa.string(),
        ),  # random, count_matched, difficulty_matched: `iqray.results.controls`
        ("metric", pa.string()),  # of the real subset that it is for; null for random ones
        ("subset", pa.string()),
        ("draw", pa.int64()),  # from 1
        ("category", pa.string()),
        ("num_train_images", pa.int64()),
        ("matched_category", pa.string()),  # of the real subset, that this one is alike
        ("value", pa.float64()),  # what was matched: training images, or difficulty
        ("matched_value", pa.float64()),  # the same of matched_category
    ]
)
