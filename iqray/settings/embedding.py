"""What a study asks to be embedded beyond each trial's own test images."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from iqray.dataset import NAME_PATTERN, Dataset, StudyPart
from iqray.recipes import ARCHITECTURES

# Sets of a dataset's test images.
OWN, ALL_SUBSETS, ALL_CATEGORIES = "own", "all_subsets", "all_categories"

# Layers besides modules: the input of the last Linear layer, and the output.
PENULTIMATE, LOGITS = "penultimate", "logits"

# Kinds of networks.
TRIALS, UNTRAINED, PRETRAINED, CHECKPOINT = "trials", "untrained", "pretrained", "checkpoint"


class ExtraImages(Dataset):
    """Images outside the study's datasets, such as the stimuli of an experiment."""

    train: str = Field(".", description="folder below root that holds the images' categories")
    test: None = Field(None, description="none: nothing is tested on them")
    demo: None = Field(None, description="none: extra images are the user's own")


class Checkpoint(StudyPart):
    """A network of the user's own."""

    name: str = Field(pattern=NAME_PATTERN)
    architecture: Literal["alexnet", "inception_v3", "resnet50", "vgg16"]
    file: str = Field(
        description="state dict of torchvision's model, with any number of outputs: a path or URI "
        "that ends in .safetensors, .pt or .pth"
    )


class EmbeddingSettings(StudyPart):
    """Which images are embedded by which networks at which layers, beyond a trial's own."""

    images: tuple[Literal["own", "all_subsets", "all_categories"], ...] = Field(
        (),
        description="test images of a dataset: own, those of the trial's categories; all_subsets, "
        "those of every subset with the trial's metric; all_categories",
    )
    extra_images: tuple[ExtraImages, ...] = Field((), description="folders outside the datasets")
    layers: dict[str, tuple[str, ...]] | tuple[str, ...] = Field(
        ("penultimate",),
        description="penultimate (the input of the last Linear layer), logits, or modules by name; "
        "or a list for each architecture",
    )
    networks: tuple[Literal["trials", "untrained", "pretrained"], ...] = Field(
        ("trials",),
        description="trials: every trial's trained one; untrained: one for each architecture and "
        "seed; pretrained: torchvision's ImageNet weights",
    )
    checkpoints: tuple[Checkpoint, ...] = Field((), description="networks of your own")

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.images or self.extra_images)

    def list_layers(self, architecture: str) -> tuple[str, ...]:
        """Layers of an architecture to embed at."""
        if isinstance(self.layers, dict):
            return self.layers.get(architecture, ())
        return self.layers

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, value: object) -> object:
        if isinstance(value, dict):
            unknown = sorted(set(value) - set(ARCHITECTURES))
            if unknown:
                raise ValueError(
                    f"embeddings.layers names the architecture '{unknown[0]}'; choose from "
                    f"{', '.join(ARCHITECTURES)}"
                )
        return value

    @model_validator(mode="after")
    def _check_use(self) -> Self:
        lists = self.layers.values() if isinstance(self.layers, dict) else [self.layers]
        for values in (self.images, self.networks, *lists):
            if len(set(values)) < len(values):
                raise ValueError(f"embeddings names one of {', '.join(values)} twice")
        if not self.is_empty and not any(lists):
            raise ValueError("embeddings.layers is empty; name a layer, such as penultimate")
        names = [images.name for images in self.extra_images]
        reserved = {OWN, ALL_SUBSETS, ALL_CATEGORIES}
        for name in names:
            if name in reserved or names.count(name) > 1:
                raise ValueError(
                    f"embeddings.extra_images uses the name '{name}' twice, or it is one of "
                    f"{', '.join(sorted(reserved))}; choose another"
                )
        if self.is_empty and (self.checkpoints or self.networks != (TRIALS,)):
            raise ValueError(
                "embeddings names networks but no images for them; give embeddings.images or "
                "embeddings.extra_images"
            )
        others = [name for name in self.networks if name != TRIALS] or self.checkpoints
        if self.images == (OWN,) and not self.extra_images and others:
            raise ValueError(
                "embeddings.images is own, which only networks of trials have; add all_subsets or "
                "all_categories for the other networks, or embeddings.extra_images"
            )
        taken = [checkpoint.name for checkpoint in self.checkpoints]
        for name in taken:
            if taken.count(name) > 1 or name.startswith((f"{UNTRAINED}-", f"{PRETRAINED}-")):
                raise ValueError(
                    f"embeddings.checkpoints uses the name '{name}' twice, or it begins like one "
                    "of iqray's own; choose another"
                )
        return self
