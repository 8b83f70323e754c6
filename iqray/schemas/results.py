"""Tables of a finished grid: cells, ranks, and what they stand beside."""

import pyarrow as pa

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
# `iqray.results.distances` lists. Taken among the test images at matched counts.
DISTANCES = pa.schema(
    [
        ("trial_id", pa.string()),
        ("definition", pa.string()),  # such as euclidean_pairs, participation_ratio
        ("value", pa.float64()),  # sum over pairs, or the participation ratio; null if undefined
        ("mean", pa.float64()),  # value / number of pairs; null for the participation ratio
    ]
)

# One row per cell, layer and subset whose test images its network has embedded
# (`iqray.results.cross_distances`). Where both subsets are one it is the cell's own mean distance.
# After these, of networks that no trial has trained, one row per network, metric, seed, layer and
# subset of the images.
CROSS_DISTANCES = pa.schema(
    [
        ("dataset", pa.string()),
        ("architecture", pa.string()),
        ("metric", pa.string()),  # by which both subsets were chosen
        # Subset of the network; of others untrained, pretrained or checkpoint:<name>
        ("trained_on", pa.string()),
        ("tested_on", pa.string()),  # subset of the embedded images
        ("seed", pa.int64()),  # of the network, which picks the images; or of the images alone
        ("layer", pa.string()),  # penultimate, logits or a module's name
        ("distance", pa.float64()),  # mean Euclidean distance over pairs; null if not finite
        ("num_images", pa.int64()),  # at matched counts
        ("trial_id", pa.string()),  # that trained the network; null for other networks
        # Of the cell that was trained on `tested_on`; where the grid has no such architecture, of
        # another architecture's
        ("tested_trial_id", pa.string()),
        ("weights", pa.string()),
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

# One row per control, architecture and seed; measures and status as in CELLS.
CONTROL_CELLS = pa.schema(
    [
        ("dataset", pa.string()),
        ("architecture", pa.string()),
        # random, count_matched, difficulty_matched, best_half, worst_half, untrained
        ("control", pa.string()),
        ("metric", pa.string()),  # null for random ones
        ("subset", pa.string()),
        ("draw", pa.int64()),  # 1 of what is not drawn
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
# subsets, on averages over seeds. Random ones are those of the dataset and architecture. Of
# image_halves the best half stands beside the worst, of untrained the subset beside its networks
# before training: as one draw, without a place.
CONTROLS = pa.schema(
    [
        ("dataset", pa.string()),
        ("architecture", pa.string()),
        ("metric", pa.string()),
        ("subset", pa.string()),
        ("measure", pa.string()),  # distance, top1, top5
        # random, count_matched, difficulty_matched, image_halves, untrained
        ("control", pa.string()),
        ("value", pa.float64()),  # of the real subset, or of its best half, in the measure's unit
        ("num_draws", pa.int64()),  # controls with a value
        ("mean", pa.float64()),  # over draws; of the worst half, or the untrained networks
        ("sd", pa.float64()),  # over draws, n - 1 in the denominator; null below two
        ("difference", pa.float64()),  # value - mean
        # difference / sd; `results.controls.compute_null_limit` says what is like a control
        ("z", pa.float64()),
        ("percentile", pa.float64()),  # draws below the value, and half of those equal, in percent
        ("weights", pa.string()),
    ]
)

# One row per headline of the paper, orientation and definition: `iqray.results.paper_check` says
# what the verdicts mean. Counts are combinations that gave the subset the rank.
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
        ("low", pa.float64()),  # 95 % Wilson interval of our share
        ("high", pa.float64()),
        ("p_value", pa.float64()),  # one-sided binomial: ours beside chance, 1 of 4
        ("paper_count", pa.int64()),  # null where the paper gives none
        ("paper_n", pa.int64()),
        ("status", pa.string()),  # stated, stated_without_count, order_inferred
        ("reason", pa.string()),  # why it was not run; else empty
        ("weights", pa.string()),
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

# One row per changed subset, split and metric: its images' scores as measured. Of the split test
# only where images are changed, and beside these for the untouched ones (variant unchanged).
INTERVENTION_SCORES = pa.schema(
    [
        ("dataset", pa.string()),
        ("metric", pa.string()),
        ("subset", pa.string()),
        ("variant", pa.string()),
        ("control", pa.string()),
        ("split", pa.string()),  # train, test
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
