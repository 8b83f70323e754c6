"""Which controls a study trains beside its grid."""

from typing import Self

from pydantic import Field, model_validator

from iqray.dataset import StudyPart

RANDOM, COUNT_MATCHED, DIFFICULTY_MATCHED = "random", "count_matched", "difficulty_matched"

# Kinds of control whose subsets are drawn, so that a real one has a place among them.
DRAWN = (RANDOM, COUNT_MATCHED, DIFFICULTY_MATCHED)

# What a real subset's categories give otherwise; of the halves the difference counts.
UNTRAINED, IMAGE_HALVES = "untrained", "image_halves"
BEST_HALF, WORST_HALF = "best_half", "worst_half"


class ControlSettings(StudyPart):
    """What is trained beside the real subsets.

    The first three are subsets of categories that no metric has chosen, each of the size of the
    real ones; the others keep the categories of the real ones. A category's difficulty is not
    iqray's to define: it comes from a file, for example the share of a category's test images that
    a published network names wrongly.
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
    image_halves: bool = Field(
        False,
        description="each real subset on the best and on the worst half of its training images "
        "within every category, by its metric's score",
    )
    untrained: bool = Field(
        False, description="each real subset's networks as they are before training"
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
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.num_draws or self.image_halves or self.untrained)

    @property
    def num_draws(self) -> dict[str, int]:
        """Subsets of each kind that is asked for."""
        counts = {
            RANDOM: self.random,
            COUNT_MATCHED: self.count_matched,
            DIFFICULTY_MATCHED: self.difficulty_matched,
        }
        return {control: count for control, count in counts.items() if count}
