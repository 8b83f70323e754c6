"""Where the weight files of the paper's six metrics are published, and what is known of their sums.

A full sum is pinned where it is known for certain. Other names carry the first eight hexadecimal
digits of the sum, as torch's hub does (`-2de81c0a`).
"""

import re
from dataclasses import dataclass

from iqray.errors import StudyError
from iqray.metrics.registry import find_metric

# Where pyiqa 0.1.16 fetches its files from (archs/arch_util.py, archs/clip_model.py).
PYIQA_HUB = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main"
_CLIP_HUB = "https://openaipublic.azureedge.net/clip/models"
_RN50_SHA256 = "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"

# OpenAI publishes RN50.pt under its sum. For the files of brisque and niqe no sum is known for
# certain, and a wrong one would refuse the right file.
_SHA256S = {"RN50.pt": _RN50_SHA256}

_SUM_IN_NAME = re.compile(r"-([0-9a-f]{8})\.\w+$")


@dataclass(frozen=True)
class PublishedFile:
    """A weight file at its source.

    Attributes:
        name: pyiqa's name of the file.
        metric: that needs it.
        url: where it is published.
    """

    name: str
    metric: str
    url: str


def list_published_files(metric: str) -> list[PublishedFile]:
    """Files of one of the paper's six metrics; none for any other."""
    return [
        PublishedFile(
            name,
            metric,
            f"{_CLIP_HUB}/{_RN50_SHA256}/{name}" if name == "RN50.pt" else f"{PYIQA_HUB}/{name}",
        )
        for name in find_metric(metric).weight_files
    ]


def list_trusted_sums() -> frozenset[str]:
    """Full sums that vouch for a file, so that what is in it may be unpickled once."""
    return frozenset(_SHA256S.values())


def find_published_sum(name: str) -> str:
    """What is known of a file's sha256: all 64 digits, the first 8, or the empty string."""
    if name in _SHA256S:
        return _SHA256S[name]
    match = _SUM_IN_NAME.search(name)
    return match.group(1) if match else ""


def describe_check(name: str) -> str:
    """What a file's sum was held against, in words."""
    known = {64: "sum checked", 8: "first 8 digits of the sum checked"}
    return known.get(len(find_published_sum(name)), "no published sum")


def check_published_sum(published: str, found: str, where: str) -> None:
    """Hold a file's sum against what is published.

    Args:
        published: 64 digits, the first 8, or the empty string, which every sum passes.
        found: sha256 of the file.
        where: path or address, for the message.

    Raises:
        StudyError: it is another file.
    """
    if not found.startswith(published):
        expected = published if len(published) == 64 else f"{published}... (from its name)"
        raise StudyError(
            f"{where} has a wrong sha256: expected {expected}, found {found}; it is damaged, or "
            "not the published file: fetch it again, or from another source"
        )
