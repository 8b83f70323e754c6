"""The tables that pass between rooms: every column with its type and unit.

A room reads finished tables and writes one. Nothing else is shared between rooms, so this file is
the contract. Scores are raw values as the metric defines them; `quality` is the score oriented so
that higher is better, and is made in one place (`iqray.subsets`).
"""

import pyarrow as pa

IMAGE_STATUSES = (
    "ok",
    "decode_error",
    "truncated",
    "too_small",
    "too_large",
    "not_finite",
    "crashed",
    "missing",
)

_IMAGE_COLUMNS = [
    ("dataset", pa.string()),
    ("split", pa.string()),  # train or test
    ("category", pa.string()),
    ("path", pa.string()),  # the user's own path or key; `iqray.inputs.listing` states the rule
    ("image_id", pa.int64()),  # 63-bit hash of the path, unique in a dataset
]

IMAGE_COLUMN_NAMES = tuple(name for name, _ in _IMAGE_COLUMNS)

# One row per image, unreadable ones included; training images first, in reading order.
MANIFEST = pa.schema(
    [
        *_IMAGE_COLUMNS,
        ("num_bytes", pa.int64()),
        ("sha256", pa.string()),  # of the encoded bytes; empty when missing
        ("width", pa.int32()),  # pixels, as stored (no EXIF rotation); null when unreadable
        ("height", pa.int32()),
        ("mode", pa.string()),  # Pillow's mode, such as RGB, L, CMYK, P
        ("container", pa.string()),  # file that holds the image, relative to the root; else empty
        ("position", pa.int64()),  # in the container: row (parquet), byte offset (webdataset)
        ("status", pa.string()),  # one of IMAGE_STATUSES, after decoding the file once
        ("reason", pa.string()),
    ]
)

# One row per readable image whose bytes another image of the study has.
DUPLICATES = pa.schema(
    [
        ("group", pa.int64()),  # equal for equal bytes, from 1
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("category", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        # Where equal images lie, joined by ', ': across splits (of the image's dataset: a test
        # image is in training), across datasets, across categories (of the dataset), within split
        ("kind", pa.string()),
    ]
)

# One row per (training image, metric), failures included.
SCORES = pa.schema(
    [
        *_IMAGE_COLUMNS,
        ("metric", pa.string()),
        ("score", pa.float64()),  # raw value; null unless status is ok
        ("status", pa.string()),  # one of IMAGE_STATUSES
        ("reason", pa.string()),  # why, when status is not ok; else empty
        ("note", pa.string()),  # what was done to the pixels before scoring, such as 'upscaled'
        ("precision", pa.string()),  # fp32, or less behind the rank gate: tf32, bf16
        ("weights", pa.string()),  # where the metric's weights come from: demo weights, ...
    ]
)

# 101 rows per (dataset, metric): the training images at every hundredth of the ordered scores.
SCORE_QUANTILES = pa.schema(
    [
        ("dataset", pa.string()),
        ("metric", pa.string()),
        ("lower_better", pa.bool_()),  # a lower score means better quality
        ("quantile", pa.float64()),  # 0 is the lowest score, 1 the highest
        ("score", pa.float64()),  # raw value, of an image: nearest rank, no interpolation
        ("image_id", pa.int64()),
        ("category", pa.string()),
        ("path", pa.string()),
        ("weights", pa.string()),
    ]
)

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
        ("subset", pa.string()),  # avg_high, avg_low, range_high, range_low
        ("position", pa.int32()),  # 1 is the most extreme
        ("category", pa.string()),
        ("statistic", pa.string()),  # column of CATEGORY_STATS that was sorted
        ("value", pa.float64()),  # its value, in quality orientation
        ("num_train_images", pa.int64()),
        ("num_test_images", pa.int64()),
        ("weights", pa.string()),
    ]
)

# One row per test image of a trial.
PREDICTIONS = pa.schema(
    [
        ("image_id", pa.int64()),
        ("path", pa.string()),
        ("category", pa.string()),
        ("predicted", pa.string()),  # top-1 category
        ("category_rank", pa.int32()),  # 1-based position of the true category; ties rank worst
    ]
)


def build_embedding_schema(dim: int) -> pa.Schema:
    """Schema of a trial's embedding table: one row per test image, `dim` float32 values each."""
    return pa.schema(
        [
            ("image_id", pa.int64()),
            ("category", pa.string()),
            ("embedding", pa.list_(pa.float32(), dim)),
        ]
    )


# One row per embedding table that the study's `embeddings` asks for.
EMBEDDINGS = pa.schema(
    [
        ("dataset", pa.string()),  # of the images, or the name of extra images
        ("images", pa.string()),  # own, all_subsets, all_categories
        ("layer", pa.string()),  # penultimate, logits or a module's name
        ("network", pa.string()),  # a trial's id, or the network's name
        ("kind", pa.string()),  # trials, untrained, pretrained, checkpoint
        ("architecture", pa.string()),
        ("num_images", pa.int64()),
        ("path", pa.string()),  # of the table, under the output root
    ]
)

# One row per cell and seed. Accuracies are fractions in [0, 1]; ranks are within the four subsets
# of one (dataset, architecture, metric, seed), 1 is the highest value, ties share the average. What
# a trial that did not converge measured stays in its row, but is in no rank and no average.
CELLS = pa.schema(
    [
        ("dataset", pa.string()),
        ("architecture", pa.string()),
        ("metric", pa.string()),
        ("subset", pa.string()),
        ("seed", pa.int64()),
        ("trial_id", pa.string()),
        ("num_categories", pa.int64()),
        ("num_test_images", pa.int64()),
        ("top1", pa.float64()),  # mean over categories
        ("top5", pa.float64()),
        ("distance", pa.float64()),  # sum of Euclidean distances, all pairs at matched counts
        ("rank_top1", pa.float64()),
        ("rank_top5", pa.float64()),
        ("rank_distance", pa.float64()),
        ("status", pa.string()),  # ok, not_converged, failed, missing
        ("reason", pa.string()),
        ("chance_top1", pa.float64()),  # 1 / num_categories
        ("chance_top5", pa.float64()),
        ("mean_distance", pa.float64()),  # distance / number of pairs
        ("final_loss", pa.float64()),  # mean training loss of the last epoch, nats
        ("train_s", pa.float64()),  # seconds of training, over all attempts and interruptions
        ("weights", pa.string()),
        ("top1_images", pa.float64()),  # mean over images
        ("top5_images", pa.float64()),
        ("num_restarts", pa.int64()),  # 1 where a training did not converge and was begun again
        ("learning_rate_factor", pa.float64()),  # of the recipe's learning rates; 0.5 then
    ]
)

# One row per (scope, measure, subset, rank): how many combinations gave the subset that rank.
# A tie of two at the top is rank 1.5 for both, and counts at neither rank 1 nor rank 2.
RANK_COUNTS = pa.schema(
    [
        ("scope", pa.string()),  # all, dataset:<name>, metric:<name>
        ("measure", pa.string()),  # distance, top1, top5
        ("subset", pa.string()),
        ("rank", pa.float64()),
        ("count", pa.int64()),
        ("num_combinations", pa.int64()),  # with all subsets present
        ("num_tied", pa.int64()),  # combinations with any tie on this measure
        ("weights", pa.string()),
    ]
)

# One row per number that tells, without training, how far a selection of categories can be
# trusted. `first` and `second` are compared; a null dataset or metric means that they are of it.
DIAGNOSTICS = pa.schema(
    [
        ("measure", pa.string()),  # `iqray.diagnostics` says what each is
        ("dataset", pa.string()),
        ("metric", pa.string()),
        ("quantity", pa.string()),  # what is compared: a subset, score, a column of CATEGORY_STATS
        ("first", pa.string()),
        ("second", pa.string()),
        ("value", pa.float64()),  # Jaccard in [0, 1], else a correlation, at most 1
        ("low", pa.float64()),  # 2.5th percentile over random halves; null for other measures
        ("high", pa.float64()),  # 97.5th
        ("n", pa.int64()),  # categories or images compared; Jaccard: size of the union
        ("reason", pa.string()),  # why value is null; else empty
        ("weights", pa.string()),
    ]
)

# One row per test, interval or difference. Ranks are 1 for the highest value, so a negative
# difference of mean ranks favours the first.
STATISTICS = pa.schema(
    [
        ("scope", pa.string()),  # all, dataset:<name>
        ("measure", pa.string()),  # distance, top1, top5
        ("unit", pa.string()),  # combinations, clusters: a cluster is a (dataset, metric)
        ("test", pa.string()),  # `iqray.statistics` says what each is
        # subsets, subsets between datasets, <subset>, <subset> - <subset>, without <metric>,
        # critical difference
        ("comparison", pa.string()),
        ("n", pa.int64()),  # units with all subsets present; interaction: metrics
        ("statistic", pa.float64()),  # as the test defines it
        ("p_value", pa.float64()),
        ("p_holm", pa.float64()),  # Holm over the measures; tests of all subsets at once only
        ("effect", pa.float64()),  # Kendall's W in [0, 1], or (differences of) mean ranks
        ("low", pa.float64()),  # 95 % interval of the effect
        ("high", pa.float64()),
        ("leader", pa.string()),  # subset of the best mean rank; several joined by ', '
        ("reason", pa.string()),  # why the test was not made; else empty
        ("weights", pa.string()),
    ]
)
