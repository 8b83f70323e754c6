"""What a study changes in the images of a subset, to see whether training on them changes too."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from iqray.dataset import StudyPart

UNCHANGED, RESTORE = "unchanged", "restore"
NEAREST, FARTHEST, RANDOM = "nearest", "farthest", "random"
CHOICES = (NEAREST, FARTHEST, RANDOM)


@dataclass(frozen=True)
class Variant:
    """A subset's images with one change.

    Attributes:
        change: unchanged, a degradation, restore, or a choice of images.
        amount: strength of a degradation, share of images that a choice keeps; else none.
        function: that restores, module:function; else none.
        changes_test: whether test images are changed as well.
        files: that the function depends on besides its own.
    """

    change: str
    amount: float | None = None
    function: str | None = None
    changes_test: bool = False
    files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Readable, safe as a dataset's name, unique within a subset's changes."""
        amount = "" if self.amount is None else f"-{self.amount:g}"
        function = "" if self.function is None else f"-{self.function.replace(':', '.')}"
        return f"{self.change}{amount}{function}{'-test' if self.changes_test else ''}"

    @property
    def control(self) -> "Variant":
        """What it is compared with: of equally many images, and tested on untouched ones."""
        return Variant(RANDOM, self.amount) if self.change in CHOICES else Variant(UNCHANGED)

    @property
    def keeps_pixels(self) -> bool:
        """Whether it only chooses images."""
        return self.change == UNCHANGED or self.change in CHOICES


class Change(StudyPart):
    """One kind of change, at one strength or several."""

    kind: Literal["blur", "noise", "jpeg", "downscale", "restore", "nearest", "farthest"] = Field(
        description="a degradation; a function of your own; or the images of a category whose "
        "scores lie nearest to its mean (a narrow range) or farthest from it (a wide one)"
    )
    strengths: tuple[float, ...] = Field((), description="of a degradation, above 0 and up to 1")
    share: float | None = Field(
        None, gt=0, lt=1, description="nearest, farthest: of a category's images that is kept"
    )
    function: str | None = Field(
        None, description="restore: module:function, (height, width, 3) uint8 RGB in and out"
    )
    files: tuple[str, ...] = Field(
        (),
        description="restore: files that the function reads or imports, such as weights: with "
        "another content, as of the function's own file, images are made again",
    )
    test_images: Literal["untouched", "changed"] = Field(
        "untouched",
        description="whether the test images are changed as well, and then scored as well",
    )

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        needed = {RESTORE: "function", NEAREST: "share", FARTHEST: "share"}.get(
            self.kind, "strengths"
        )
        for key in ("strengths", "share", "function"):
            if bool(getattr(self, key)) != (key == needed):
                raise ValueError(
                    f"change {self.kind} has {needed} and no other of strengths, share, function; "
                    f"correct {key}"
                )
        if self.files and self.kind != RESTORE:
            raise ValueError(f"change {self.kind} has no files; leave them out")
        if any(not 0 < strength <= 1 for strength in self.strengths):
            raise ValueError(
                f"strengths of {self.kind} are {', '.join(map(str, self.strengths))}; each must be "
                "above 0 and at most 1"
            )
        if self.kind in CHOICES and self.test_images == "changed":
            raise ValueError(
                f"change {self.kind} chooses training images; leave test_images untouched"
            )
        return self

    def list_variants(self) -> Iterator[Variant]:
        """Each strength by itself."""
        changes_test = self.test_images == "changed"
        for amount in self.strengths or (self.share,):
            yield Variant(self.kind, amount, self.function, changes_test, self.files)


class Intervention(StudyPart):
    """Changes of one subset."""

    dataset: str
    metric: str = Field(description="by which the subset was chosen")
    subset: Literal["avg_high", "avg_low", "range_high", "range_low"]
    changes: tuple[Change, ...] = Field(min_length=1)

    @property
    def name(self) -> str:
        """Readable, safe as a folder name."""
        return f"{self.dataset}-{self.metric}-{self.subset}"

    def list_variants(self) -> list[Variant]:
        """Every change with its control, the unchanged images first."""
        changed = [variant for change in self.changes for variant in change.list_variants()]
        controls = [variant.control for variant in changed]
        return list(dict.fromkeys([Variant(UNCHANGED), *controls, *changed]))
