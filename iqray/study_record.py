"""What finished tables do not say about the study that made them, kept beside them.

Reads and writes `results/study.json`, so that a report needs nothing but the output root.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from iqray.storage import Storage

STUDY_RECORD_PATH = "results/study.json"


@dataclass(frozen=True)
class StudyRecord:
    """A study as its report names it.

    Attributes:
        study: its name.
        images: by dataset, where its images were: root (without credentials; none where they were
            generated below the output root), layout, image_column.
        weights: by metric, where its weights come from.
        recipe: its name.
        is_preview: the recipe's own word that its results are no findings.
        notes: sentences about how this study was run that a reader must know.
        versions: of the software that changes numbers, by name.
    """

    study: str
    images: Mapping[str, Mapping[str, str | None]]
    weights: Mapping[str, str]
    recipe: str
    is_preview: bool
    notes: Sequence[str]
    versions: Mapping[str, str]


def write_study_record(storage: Storage, record: StudyRecord) -> None:
    """Write the record, unless it is there as it would be written."""
    content: dict[str, Any] = asdict(record) | {"notes": list(record.notes)}
    if not storage.exists(STUDY_RECORD_PATH) or storage.read_json(STUDY_RECORD_PATH) != content:
        storage.write_json(STUDY_RECORD_PATH, content)


def read_study_record(storage: Storage) -> StudyRecord:
    """The record of a root's study, which must exist."""
    return StudyRecord(**storage.read_json(STUDY_RECORD_PATH))
