"""One dataset of a study: where its images are and how they are laid out."""

import posixpath
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"

# Keys of a dataset that only one layout has a use for.
_LAYOUT_KEYS = {
    "image_column": "parquet",
    "category_column": "parquet",
    "key_column": "parquet",
    "category_field": "webdataset",
}


class StudyPart(BaseModel):
    """A part of a study: no unknown keys, no changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(StudyPart):
    """One dataset: where its images are and how they are laid out.

    An image's identity is the user's own: its path below `root` (folders), its key or own path
    (parquet), its member's name (webdataset); `iqray.inputs.listing` states the rule.
    """

    name: str = Field(pattern=NAME_PATTERN)
    root: str | None = Field(
        None, description="folder or URI that holds the splits; none only with `demo`"
    )
    layout: Literal["folders", "parquet", "webdataset"] = Field(
        "folders", description="category folders, image columns, or tar files"
    )
    train: str = Field(
        "train",
        description="split whose images are scored and trained on: a folder below root; with "
        "parquet and webdataset also a glob of files",
    )
    test: str | None = Field(
        "val", description="split whose images are embedded and tested on; none to score only"
    )
    image_column: str | None = Field(None, description="parquet: encoded images; 'image' if none")
    category_column: str | None = Field(None, description="parquet: categories; 'label' if none")
    key_column: str | None = Field(None, description="parquet: values that name the images")
    category_field: str | None = Field(
        None, description="webdataset: field of <key>.json that holds the category"
    )
    demo: Literal["a", "b"] | None = Field(
        None, description="generate this demo dataset under the output root"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_columns(cls, value: object) -> object:
        """Give the columns of layout parquet their names; elsewhere they stay none."""
        if not isinstance(value, dict) or value.get("layout") != "parquet":
            return value
        filled = dict(value)
        for key, name in (("image_column", "image"), ("category_column", "label")):
            filled[key] = name if filled.get(key) is None else filled[key]
        return filled

    @model_validator(mode="after")
    def _check_root(self) -> Self:
        if self.name == "duplicates" or self.name.endswith((".listing", ".parts")):
            raise ValueError(f"dataset name '{self.name}' is taken by a table; choose another")
        if (self.root is None) == (self.demo is None):
            raise ValueError(
                f"dataset '{self.name}' must have either root (a folder of images) or "
                "demo (a, b: generated images)"
            )
        if self.demo is not None and self.layout != "folders":
            raise ValueError(f"dataset '{self.name}' is a demo, whose layout is folders")
        return self

    @model_validator(mode="after")
    def _check_layout_keys(self) -> Self:
        for key, layout in _LAYOUT_KEYS.items():
            if getattr(self, key) is not None and self.layout != layout:
                raise ValueError(
                    f"dataset '{self.name}' has {key}, which only layout {layout} reads; its "
                    f"layout is {self.layout}: remove {key}, or change the layout"
                )
        return self

    @model_validator(mode="after")
    def _check_splits(self) -> Self:
        splits = [split for split in (self.train, self.test) if split is not None]
        for split in splits:
            if split.startswith(("/", "~")) or ".." in split.split("/") or not split:
                raise ValueError(
                    f"dataset '{self.name}' has a split folder '{split}'; it must be a folder "
                    "below the dataset's root: give its path relative to root"
                )
        if len({posixpath.normpath(split) for split in splits}) < len(splits):
            raise ValueError(
                f"dataset '{self.name}' has train and test both '{self.train}'; a model must not "
                "be tested on the images it was trained on"
            )
        return self
