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


def build_category_distance_schema(num_categories: int) -> pa.Schema:
    """Schema of a trial's distances to categories: one row per test image at matched counts.

    `distances` are mean Euclidean distances to the other images of each category, categories in
    alphabetical order; NaN where there is no other image.
    """
    return pa.schema(
        [
            ("image_id", pa.int64()),
            ("category", pa.string()),
            ("distances", pa.list_(pa.float32(), num_categories)),
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

# One row per condition of an RDM: an image, or a category's mean embedding. The lists joined are
# the condensed upper triangle, row by row, as scipy's squareform reads it.
RDM = pa.schema(
    [
        ("category", pa.string()),
        ("path", pa.string()),  # of the image; null for a category
        ("image_id", pa.int64()),  # likewise
        ("num_images", pa.int64()),  # averaged: 1 for an image
        ("measure", pa.string()),  # of dissimilarity, equal in all rows
        ("dissimilarities", pa.list_(pa.float32())),  # from this condition to each later one
    ]
)

# One row per RDM that the study's `rdms` asks for.
RDMS = pa.schema(
    [
        ("dataset", pa.string()),  # of the images, or the name of extra images
        ("images", pa.string()),  # own, all_subsets, all_categories
        ("layer", pa.string()),  # penultimate, logits or a module's name
        ("network", pa.string()),  # a trial's id, or the network's name
        ("kind", pa.string()),  # trials, untrained, pretrained, checkpoint
        ("architecture", pa.string()),
        ("level", pa.string()),  # category, image
        ("measure", pa.string()),  # euclidean, cosine, correlation
        ("num_images", pa.int64()),  # embedded
        ("path", pa.string()),  # of the table of RDM; beside it .h5 for rsatoolbox
    ]
)

# One row per RDM of RDMS and comparison with RDMs that the user has supplied.
CORRESPONDENCE = pa.schema(
    [
        *((name, RDMS.field(name).type) for name in RDMS.names if name != "num_images"),
        ("comparison", pa.string()),  # spearman, tau_a, cosine
        ("num_conditions", pa.int64()),  # categories or images that both have
        ("num_subjects", pa.int64()),  # supplied
        ("value", pa.float64()),  # mean over subjects, in [-1, 1]
        ("low", pa.float64()),  # 95 % interval: conditions and subjects drawn with replacement
        ("high", pa.float64()),
        ("ceiling_low", pa.float64()),  # noise ceiling over these conditions; null for one subject
        ("ceiling_high", pa.float64()),
        ("reason", pa.string()),  # why value is null; else empty
    ]
)

# One row per image of a derived dataset, which stage `manifest` reads as it does a user's own.
DERIVED_IMAGES = pa.schema(
    [
        ("image", pa.binary()),  # encoded: PNG where pixels were changed, else the original's bytes
        ("category", pa.string()),
        ("path", pa.string()),  # of the image it was made from
    ]
)

# One row per changed subset, architecture and seed; differences are from the control.
INTERVENTION_EFFECTS = pa.schema(
    [
        ("dataset", pa.string()),
        ("metric", pa.string()),  # by which the subset was chosen
        ("subset", pa.string()),
        ("variant", pa.string()),  # such as unchanged, blur-0.5, nearest-0.5
        ("control", pa.string()),  # unchanged; of a choice of images the random choice of as many
        ("architecture", pa.string()),
        ("seed", pa.int64()),
        ("trial_id", pa.string()),  # below the subset's own folder of interventions
        ("status", pa.string()),  # ok, not_converged, failed, missing
        ("top1", pa.float64()),
        ("top5", pa.float64()),
        ("distance", pa.float64()),
        ("top1_difference", pa.float64()),
        ("top5_difference", pa.float64()),
        ("distance_difference", pa.float64()),
        ("weights", pa.string()),
    ]
)

# One row per changed subset and metric: the scores of its training images as measured.
INTERVENTION_SCORES = pa.schema(
    [
        ("dataset", pa.string()),
        ("metric", pa.string()),
        ("subset", pa.string()),
        ("variant", pa.string()),
        ("control", pa.string()),
        ("scored_by", pa.string()),  # metric
        ("num_images", pa.int64()),
        ("num_scored", pa.int64()),
        ("average", pa.float64()),  # mean over categories of the study's average, raw scores
        ("range", pa.float64()),  # mean over categories of the study's range
        ("average_difference", pa.float64()),
        ("range_difference", pa.float64()),
        ("weights", pa.string()),
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

# One row per finished trial and definition of the distance that its embeddings cover, which
# `iqray.distances` lists. Taken among the test images at matched counts.
DISTANCES = pa.schema(
    [
        ("trial_id", pa.string()),
        ("definition", pa.string()),  # such as euclidean_pairs, participation_ratio
        ("value", pa.float64()),  # sum over pairs, or the participation ratio; null if undefined
        ("mean", pa.float64()),  # value / number of pairs; null for the participation ratio
    ]
)

# One row per combination, subset, seed, measure, its definition and orientation. Ranks as in CELLS.
RANKS = pa.schema(
    [
        ("orientation", pa.string()),  # quality, raw: what avg_high means where lower is better
        ("measure", pa.string()),  # distance, top1, top5
        # Of distance as in DISTANCES; of accuracies category_mean (mean over categories, the
        # paper's here) or image_mean (mean over images)
        ("definition", pa.string()),
        ("dataset", pa.string()),
        ("architecture", pa.string()),
        ("metric", pa.string()),
        ("seed", pa.int64()),  # null: values averaged over seeds, then ranked
        ("subset", pa.string()),  # by its name in this orientation
        ("value", pa.float64()),  # of the measure; null without a result, or not converged
        ("rank", pa.float64()),  # 1 is the highest; null where any subset has no value
        ("is_tied", pa.bool_()),  # another subset of the combination has the same rank
        ("weights", pa.string()),
    ]
)

# One row per (orientation, measure, definition, scope, subset, rank): counts as in RANK_COUNTS,
# which has those of the study's own orientation and of the first definition of each measure.
DEFINITION_COUNTS = pa.schema(
    [
        ("orientation", pa.string()),
        ("measure", pa.string()),
        ("definition", pa.string()),
        ("scope", pa.string()),  # all, dataset:<name>, metric:<name>
        ("subset", pa.string()),
        ("rank", pa.float64()),
        ("count", pa.int64()),
        ("num_combinations", pa.int64()),
        ("num_tied", pa.int64()),
        ("weights", pa.string()),
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

# 95 % intervals over drawn categories, images and seeds (`iqray.image_bootstrap`): one row per cell
# and measure, then mean ranks of each subset. Which architectures and metrics there are is not
# drawn, nor is a network trained again.
INTERVALS = pa.schema(
    [
        ("scope", pa.string()),  # cell; mean ranks: all, dataset:<name>
        ("measure", pa.string()),  # distance, top1, top5
        ("dataset", pa.string()),  # null for mean ranks, as are architecture and metric
        ("architecture", pa.string()),
        ("metric", pa.string()),
        ("subset", pa.string()),
        ("value", pa.float64()),  # of the measure, over seeds; null for mean ranks
        ("low", pa.float64()),  # 2.5th percentile of the drawn values
        ("high", pa.float64()),  # 97.5th
        ("rank", pa.float64()),  # over seeds, 1 is the highest; or their mean over combinations
        ("rank_low", pa.float64()),  # null where the combination is incomplete
        ("rank_high", pa.float64()),
        ("first_share", pa.float64()),  # of draws with the first place to itself, in [0, 1]
        ("n", pa.int64()),  # combinations
        ("weights", pa.string()),
    ]
)

# One row per (control, metric, subset, draw, category): which categories a control subset holds.
CONTROL_SUBSETS = pa.schema(
    [
        ("dataset", pa.string()),
        ("control", pa.string()),  # random, count_matched, difficulty_matched: `iqray.controls`
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

# One row per control subset, architecture and seed; measures and status as in CELLS.
CONTROL_CELLS = pa.schema(
    [
        ("dataset", pa.string()),
        ("architecture", pa.string()),
        ("control", pa.string()),
        ("metric", pa.string()),  # null for random ones
        ("subset", pa.string()),
        ("draw", pa.int64()),
        ("seed", pa.int64()),
        ("trial_id", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("top1", pa.float64()),
        ("top5", pa.float64()),
        ("distance", pa.float64()),
    ]
)

# One row per cell, kind of control and measure: where the real subset stands among the control
# subsets, on averages over seeds. Random ones are those of the dataset and architecture.
CONTROLS = pa.schema(
    [
        ("dataset", pa.string()),
        ("architecture", pa.string()),
        ("metric", pa.string()),
        ("subset", pa.string()),
        ("measure", pa.string()),  # distance, top1, top5
        ("control", pa.string()),
        ("value", pa.float64()),  # of the real subset, in the measure's unit
        ("num_draws", pa.int64()),  # control subsets with a value
        ("mean", pa.float64()),  # over draws
        ("sd", pa.float64()),  # over draws, n - 1 in the denominator; null below two
        ("difference", pa.float64()),  # value - mean
        ("z", pa.float64()),  # difference / sd
        ("percentile", pa.float64()),  # draws below the value, and half of those equal, in percent
        ("weights", pa.string()),
    ]
)

# One row per headline of the paper, orientation and definition: `iqray.paper_check` says what the
# verdicts mean. Counts are combinations that gave the subset the rank.
PAPER_CHECK = pa.schema(
    [
        ("headline", pa.string()),  # its id in iqray/data/paper_headlines.csv
        ("orientation", pa.string()),
        ("definition", pa.string()),  # as in RANKS
        ("verdict", pa.string()),  # exact, consistent, direction, not reproduced, not run
        ("dataset", pa.string()),  # the paper's name: imagenet, ecoset, both
        ("measure", pa.string()),
        ("subset", pa.string()),
        ("rank", pa.int64()),
        ("count", pa.int64()),  # ours
        ("n", pa.int64()),  # our combinations, of the paper's metrics and architectures
        ("paper_count", pa.int64()),  # null where the paper gives none
        ("paper_n", pa.int64()),
        ("paper_low", pa.float64()),  # 95 % Wilson interval of the paper's share
        ("paper_high", pa.float64()),
        ("status", pa.string()),  # stated, stated_without_count, order_inferred
        ("reason", pa.string()),  # why it was not run; else empty
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
