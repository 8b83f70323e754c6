"""What is to be scored and how, and the key that says whether a score is still valid. Pure."""

from dataclasses import dataclass
from importlib.metadata import version

from iqray.identity import hash_content
from iqray.inputs.sources import ImageSource
from iqray.metrics.registry import FULL_PRECISION
from iqray.metrics.weights import MetricWeights

# Raise when a score would differ for the same image and weights.
SCORING_VERSION = 2


@dataclass(frozen=True)
class ScoreJob:
    """One dataset to be scored with one metric."""

    dataset: str
    source: ImageSource
    metric: str
    weights: MetricWeights
    small_images: str  # reject or upscale
    precision: str = FULL_PRECISION
    gate: str = ""  # key of what the rank gate secures; only of final rows in lower precision
    folder: str = "scores"  # under the output root

    @property
    def name(self) -> str:
        """Unique in a study."""
        return f"{self.dataset}/{self.metric}"

    @property
    def directory(self) -> str:
        """Where the job's tables lie under the output root."""
        return f"{self.folder}/{self.name}"

    @property
    def key(self) -> str:
        """Key of a score: equal keys and equal bytes give equal scores."""
        content = {
            "metric": self.metric,
            "pyiqa": version("pyiqa"),
            "pillow": version("pillow"),
            "weights": self.weights.sha256s,
            "small_images": self.small_images,
            "scoring": SCORING_VERSION,
        }
        if self.precision != FULL_PRECISION:
            content |= {"precision": self.precision, "gate": self.gate, "torch": version("torch")}
        return hash_content(content)
