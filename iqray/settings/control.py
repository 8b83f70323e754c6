"""Which controls a study trains beside its grid."""

from typing import Self

from pydantic import Field, model_validator

from iqray.dataset import StudyPart

RANDOM, COUNT_MATCHED, DIFFICULTY_MATCHED = "random", "count_matched", "difficulty_matched"


class ControlSettings(StudyPart):
    """Subsets of categories that no metric has chosen, each of the size of the real ones.

    A category's difficulty is not iqray's to define: it comes from a file, for example the share of
    a category's test images that a published network names wrongly.
    """

    random: int = Field(
        0, ge=0, description="random subsets of a dataset, trained once for all metrics"
    )
    count_matched: int = Field(
        0, ge=0, description="random subsets for each real one, alike in training images"
    )
    difficulty_matched: int = Field(
        0, ge=0, description="random subsets for each real one, alike in difficulty"
    )
    difficulty: str | None = Field(
        None, description="CSV file or URI with columns dataset, category, difficulty"
    )

    @model_validator(mode="after")
    def _check_difficulty(self) -> Self:
        if bool(self.difficulty_matched) != (self.difficulty is not None):
            raise ValueError(
                f"controls.difficulty_matched is {self.difficulty_matched} and controls.difficulty "
                f"is {self.difficulty!r}; give both, a number of subsets and a CSV file with "
                "columns dataset, category, difficulty, or neither"
            )
        return self

    @property
    def num_draws(self) -> dict[str, int]:
        """Subsets of each kind that is asked for."""
        counts = {
            RANDOM: self.random,
            COUNT_MATCHED: self.count_matched,
            DIFFICULTY_MATCHED: self.difficulty_matched,
        }
        return {control: count for control, count in counts.items() if count}
