"""Tables that a trial leaves, and those of embeddings by any network."""

import pyarrow as pa

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

# One row per training image of a trial that takes only some of its categories' images.
TRAIN_IMAGES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("path", pa.string()),
        ("category", pa.string()),
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

# What one network's embeddings of all subsets' test images come to, by metric and subset, at the
# counts of one seed.
NETWORK_DISTANCES = pa.schema(
    [
        ("metric", pa.string()),
        ("tested_on", pa.string()),
        ("distance", pa.float64()),  # as in CROSS_DISTANCES
        ("num_images", pa.int64()),
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
