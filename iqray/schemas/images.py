"""Tables of images and their scores."""

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

IMAGE_COLUMNS = [
    ("dataset", pa.string()),
    ("split", pa.string()),  # train or test
    ("category", pa.string()),
    ("path", pa.string()),  # the user's own path or key; `iqray.inputs.listing` states the rule
    ("image_id", pa.int64()),  # 63-bit hash of the path, unique in a dataset
]

IMAGE_COLUMN_NAMES = tuple(name for name, _ in IMAGE_COLUMNS)

# One row per image, unreadable ones included; training images first, in reading order.
MANIFEST = pa.schema(
    [
        *IMAGE_COLUMNS,
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
        *IMAGE_COLUMNS,
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

# One row per image of a derived dataset, which stage `manifest` reads as it does a user's own.
DERIVED_IMAGES = pa.schema(
    [
        ("image", pa.binary()),  # encoded: PNG where pixels were changed, else the original's bytes
        ("category", pa.string()),
        ("path", pa.string()),  # of the image it was made from
    ]
)
