"""What is known about each metric before anything is loaded: direction, range, smallest image.

The paper's six are listed here, so that naming them does not import torch and pyiqa, which takes
seconds. Any other no-reference metric is looked up in pyiqa's own table.
"""

import difflib
from dataclasses import dataclass

from iqray.errors import StudyError

# Metrics of whole sets of images that pyiqa files under no-reference: no score for one image.
_SET_METRICS = frozenset({"fid", "sfid", "fid_dinov2", "inception_score"})


@dataclass(frozen=True)
class MetricInfo:
    """Facts about one metric.

    Attributes:
        name: pyiqa's name.
        lower_better: true when a lower score means better quality.
        score_range: pyiqa's rough statement of the usual range; `~` marks an open end.
        min_side_px: smallest width and height at which any textured image gets a finite score; 1
            where nothing is known, and then the metric fails on images that it cannot take.
        weight_files: files that iqray loads from the weights directory; empty when pyiqa itself
            finds the weights, or there are none.
    """

    name: str
    lower_better: bool
    score_range: str
    min_side_px: int
    weight_files: tuple[str, ...]


# Direction and range: pyiqa 0.1.16, default_model_configs.py. File names: the pyiqa architecture's
# default weights. Smallest sides (a test tries each one, and one pixel below):
#   brisque 16: its statistics need both signs in every product of neighbours. Of 150 textures, all
#               gave a score at 16 px, 93 % at 12 px, 11 % at 7 px; below 7 px it fails.
#   clipiqa 31: five halvings, the first rounding up, leave one position for the attention pool.
#   cnniqa   7: one unpadded 7 x 7 convolution.
#   dbcnn   16: four poolings of VGG16 (the fifth is left out).
#   musiq    1: resizes to 224 and 384 px and pads.
#   niqe    96: one block of 96 x 96.
_PAPER_METRICS = {
    info.name: info
    for info in (
        MetricInfo("brisque", True, "~0, ~150", 16, ("brisque_svm_weights.pth",)),
        MetricInfo("clipiqa", False, "0, 1", 31, ("RN50.pt",)),
        MetricInfo("cnniqa", False, "~0, ~1", 7, ("CNNIQA_koniq10k-e6f14c91.pth",)),
        MetricInfo("dbcnn", False, "~0, ~1", 16, ("DBCNN_KonIQ10k-2de81c0a.pth",)),
        MetricInfo("musiq", False, "~0, ~100", 1, ("musiq_koniq_ckpt-e95806b9.pth",)),
        MetricInfo("niqe", True, "~0, ~100", 96, ("niqe_modelparameters.mat",)),
    )
}

FULL_PRECISION = "fp32"

# Networks that can compute in lower precision; the others have none, or are not iqray's to change.
METRICS_WITH_PRECISIONS = frozenset({"clipiqa", "cnniqa", "dbcnn", "musiq"})

METRICS_WITH_FILES = tuple(_PAPER_METRICS)

# Metrics of pyiqa 0.1.16 that are a formula and load nothing: the only ones of its no-reference
# metrics that can be built with an empty cache and no network.
METRICS_WITHOUT_WEIGHTS = frozenset({"entropy", "piqe"})


def find_metric(name: str) -> MetricInfo:
    """Look a metric up by its pyiqa name.

    Raises:
        StudyError: the name is unknown, or the metric needs a reference image or a set of images.
    """
    if name in _PAPER_METRICS:
        return _PAPER_METRICS[name]
    return _find_pyiqa_metric(name)


def _find_pyiqa_metric(name: str) -> MetricInfo:
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    if name not in DEFAULT_CONFIGS:
        raise StudyError(f"unknown metric '{name}'; {_advise(name, list(DEFAULT_CONFIGS))}")
    config = DEFAULT_CONFIGS[name]
    if config["metric_mode"] != "NR":
        raise StudyError(
            f"metric '{name}' compares with a reference image, and a study has none; {_advise()}"
        )
    if name in _SET_METRICS:
        raise StudyError(f"metric '{name}' scores a set of images, not one image; {_advise()}")
    return MetricInfo(
        name=name,
        lower_better=config.get("lower_better", False),
        score_range=config.get("score_range", "unknown"),
        min_side_px=1,
        weight_files=(),
    )


def _advise(name: str = "", known: list[str] | None = None) -> str:
    advice = f"choose from {', '.join(_PAPER_METRICS)} or pyiqa's other no-reference metrics"
    close = difflib.get_close_matches(name, known or [], n=1)
    return f"{advice} (did you mean '{close[0]}'?)" if close else advice
