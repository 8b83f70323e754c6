"""Which representational dissimilarity matrices a study writes."""

from typing import Literal

from pydantic import Field, field_validator

from iqray.dataset import StudyPart

# What an RDM compares: images, or the categories' mean embeddings.
CATEGORY, IMAGE = "category", "image"

EUCLIDEAN, COSINE, CORRELATION = "euclidean", "cosine", "correlation"


class RdmSettings(StudyPart):
    """RDMs of every embedding table: each trial's own, and those that `embeddings` asks for."""

    levels: tuple[Literal["category", "image"], ...] = Field(
        (),
        description="category: between the categories' mean embeddings; image: between single "
        "images, 2 MB for 1,000 of them and 200 MB for 10,000, twice; none: no RDMs",
    )
    measures: tuple[Literal["euclidean", "cosine", "correlation"], ...] = Field(
        ("euclidean",), min_length=1, description="of dissimilarity; `iqray.rdms.blocks` says what"
    )

    @field_validator("levels", "measures")
    @classmethod
    def _check_no_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"rdms names one of {', '.join(value)} twice; name it once")
        return value
