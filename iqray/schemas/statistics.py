"""Tables of tests, intervals and diagnostics."""

import pyarrow as pa

# 95 % intervals over drawn categories, images and, where there are several, seeds
# (`iqray.statistics.image_bootstrap`): one row per cell and measure, then mean ranks of each
# subset. Which architectures and metrics there are is not drawn, nor is a network trained again.
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
        # Of drawn ranks, shifted so that their median is the rank (`bootstrap.bound_ranks`); null
        # where the combination is incomplete.
        ("rank_low", pa.float64()),
        ("rank_high", pa.float64()),
        ("first_share", pa.float64()),  # of draws, not shifted, with the first place to itself
        ("n", pa.int64()),  # combinations
        ("weights", pa.string()),
    ]
)

# One row per number that tells, without training, how far a selection of categories can be
# trusted. `first` and `second` are compared; a null dataset or metric means that they are of it.
DIAGNOSTICS = pa.schema(
    [
        ("measure", pa.string()),  # `iqray.statistics.diagnostics` says what each is
        ("dataset", pa.string()),
        ("metric", pa.string()),
        ("quantity", pa.string()),  # what is compared: a subset, score, a column of CATEGORY_STATS
        ("first", pa.string()),
        ("second", pa.string()),
        ("value", pa.float64()),  # Jaccard in [0, 1], else a correlation, at most 1
        ("low", pa.float64()),  # 2.5th percentile over random halves; null for other measures
        ("high", pa.float64()),  # 97.5th
        ("n", pa.int64()),  # categories or images compared; Jaccard: size of the union
        ("reason", pa.string()),  # why value is null, or how many categories are left out
        ("weights", pa.string()),
    ]
)

# One row per test, interval or difference. Ranks are 1 for the highest value, so a negative
# difference of mean ranks favours the first.
STATISTICS = pa.schema(
    [
        ("scope", pa.string()),  # all, dataset:<name>
        ("measure", pa.string()),  # distance, top1, top5
        # combinations, clusters, datasets: a cluster is a (dataset, metric). Each test takes its
        # units for independent.
        ("unit", pa.string()),
        ("test", pa.string()),  # `iqray.statistics.statistics` says what each is
        # subsets, subsets between datasets, <subset>, <subset> - <subset>, without <metric>,
        # critical difference
        ("comparison", pa.string()),
        ("n", pa.int64()),  # units with all subsets present; interaction: metrics
        ("statistic", pa.float64()),  # as the test defines it
        ("p_value", pa.float64()),
        ("smallest_p", pa.float64()),  # permutations of all subsets: no p_value can be smaller
        ("p_holm", pa.float64()),  # Holm over the measures; tests of all subsets at once only
        ("effect", pa.float64()),  # Kendall's W in [0, 1], or (differences of) mean ranks
        ("low", pa.float64()),  # 95 % interval of the effect
        ("high", pa.float64()),
        ("leader", pa.string()),  # subset of the best mean rank; several joined by ', '
        ("reason", pa.string()),  # why the test was not made; else empty
        ("weights", pa.string()),
    ]
)
