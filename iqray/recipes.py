"""How a model is trained: the named recipes `paper`, `fast` and `demo`, and their numbers.

A recipe is data. The loop that follows it is `iqray.training.loop`. Nothing here knows Ray or the
disk.

Sources: torchvision's classification references (SGD with momentum 0.9, weight decay 1e-4, batch
8 x 32, 90 epochs, learning rate 0.1 divided by 10 every 30 epochs; 0.01 for AlexNet and VGG,
which have no batch normalisation). torchvision gives no recipe for Inception-v3: its weights were
ported. 0.1 there is our choice, and so is the auxiliary weight 0.4, which follows PyTorch's
fine-tuning tutorial. Auxiliary head: Szegedy et al. 2016, section 4.
"""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ARCHITECTURES = ("alexnet", "inception_v3", "resnet50", "vgg16")

# Smallest inputs that pass through each architecture's strides and poolings (found by running
# them in training mode with two images).
MIN_INPUT_PX = {"alexnet": 63, "inception_v3": 75, "resnet50": 32, "vgg16": 32}

# Below this side Inception-v3's auxiliary head has nothing left to convolve (5 x 5 on a 17 x 17
# grid at 299 px), so smaller inputs train without it.
INCEPTION_AUX_MIN_PX = 299


# Short side of stored images in pixels, or their own size.
StoredSide = Annotated[int, Field(ge=32)] | Literal["native"]


class ArchitectureRecipe(BaseModel):
    """What differs between architectures in one recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_px: int = Field(ge=32, description="side of the square network input, pixels")
    learning_rate: float = Field(gt=0, description="peak learning rate at `batch_size`")
    clip_norm: float | None = Field(
        None, gt=0, description="largest gradient norm; none for no clip"
    )
    steps: int | None = Field(None, ge=1, description="optimizer steps; overrides the budget")


class Recipe(BaseModel):
    """A training recipe: same data, seed and recipe give the same model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    is_preview: bool = Field(False, description="true when results must not be read as findings")
    epochs: float = Field(
        gt=0, description="epochs at the dataset's median subset size; fixes the optimizer steps"
    )
    batch_size: int = Field(ge=2)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    decay_norm_and_bias: bool = Field(
        True, description="false leaves normalisation weights and biases without weight decay"
    )
    schedule: Literal["step", "cosine", "constant"] = "step"
    warmup_fraction: float = Field(
        0.0, ge=0, lt=1, description="share of the steps in which the learning rate rises linearly"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    recalibrate_batch_norm: bool = Field(
        False,
        description="replace the running means and variances, after the last step, by averages "
        "over the training images under the final weights; they lag behind in short trainings",
    )
    watch_from: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the steps after which a loss that is still at chance level counts as "
        "stuck; none watches for NaN only",
    )
    chance_margin: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="a loss within this share of the chance loss is at chance level; "
        "`iqray.training.convergence` says why 0.02",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="of convolutions and matrix products in training; bf16 is torch's autocast, "
        "with weights, normalisation and losses in fp32. Tests and embeddings are always in fp32",
    )
    auxiliary_weight: float = Field(0.4, ge=0, description="of Inception-v3's auxiliary loss")
    crop: Literal["random_resized", "random", "centre"] = Field(
        "random_resized",
        description="of training images: a part of random area and ratio, resized; a square of the "
        "input's side at a random place; or the central square that is tested on",
    )
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: bool = True
    stored_short_side_px: StoredSide | None = Field(
        None,
        description="images are decoded once and kept at this short side, such as 256 or 342, and "
        "crops are taken from that; `native` keeps every pixel, for two to three times the space; "
        "none for 8/7 of the input",
    )
    architectures: dict[str, ArchitectureRecipe]

    @model_validator(mode="after")
    def _check_crop_scale(self) -> "Recipe":
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale {self.crop_scale} must satisfy 0 < low <= high <= 1")
        return self

    @model_validator(mode="after")
    def _check_inputs(self) -> "Recipe":
        for name, own in self.architectures.items():
            smallest = MIN_INPUT_PX.get(name)
            if smallest is None:
                raise ValueError(
                    f"unknown architecture '{name}' in the recipe; choose from "
                    + ", ".join(ARCHITECTURES)
                )
            if own.input_px < smallest:
                raise ValueError(
                    f"input_px {own.input_px} is too small for {name}, which needs {smallest} px; "
                    "raise it in the recipe"
                )
        return self

    def compute_steps(self, architecture: str, median_train_images: float) -> int:
        """Optimizer steps of every trial of one dataset: equal for all its subsets.

        Args:
            architecture: a key of `architectures`.
            median_train_images: median number of training images over the dataset's subsets.
        """
        fixed = self.architectures[architecture].steps
        if fixed is not None:
            return fixed
        return max(1, math.ceil(self.epochs * median_train_images / self.batch_size))

    def compute_learning_rate(self, architecture: str, step: int, num_steps: int) -> float:
        """Learning rate of an optimizer step.

        During the warm-up it rises linearly and reaches the peak at the warm-up's last step. Then
        `step` divides it by 10 after one and two thirds of all steps (torchvision: every 30 of 90
        epochs), `cosine` lowers it over the remaining steps towards 0 (Loshchilov and Hutter
        2017), `constant` keeps it.

        Args:
            architecture: a key of `architectures`.
            step: in [0, num_steps).
            num_steps: optimizer steps of the whole training.
        """
        peak = self.architectures[architecture].learning_rate
        num_warmup = round(self.warmup_fraction * num_steps)
        if step < num_warmup:
            return peak * (step + 1) / num_warmup
        if self.schedule == "step":
            return peak / 10 ** (3 * step // num_steps)
        if self.schedule == "cosine":
            progress = (step - num_warmup) / (num_steps - num_warmup)
            return peak * 0.5 * (1 + math.cos(math.pi * progress))
        return peak

    def compute_stored_px(self, architecture: str) -> StoredSide:
        """Short side in pixels at which this recipe packs images for an architecture.

        torchvision's references evaluate 224 px centre crops of 256 px images: 8/7 of the input,
        or 342 px for Inception-v3's 299. They train on crops of images of native size, whose finest
        detail 256 px no longer hold: where that detail is the question, `native` keeps it.
        """
        if self.stored_short_side_px is not None:
            return self.stored_short_side_px
        return round(self.architectures[architecture].input_px * 8 / 7)


def _build_architectures(
    input_px: dict[str, int], learning_rate: dict[str, float], **shared: object
) -> dict[str, ArchitectureRecipe]:
    return {
        name: ArchitectureRecipe.model_validate(
            {"input_px": input_px[name], "learning_rate": learning_rate[name], **shared}
        )
        for name in ARCHITECTURES
    }


_REFERENCE_RATES = {"alexnet": 0.01, "inception_v3": 0.1, "resnet50": 0.1, "vgg16": 0.01}

RECIPES = {
    # Numbers without another source are those of torchvision's references/classification/train.py:
    # its defaults, and what its README gives for the architecture.
    "paper": Recipe(
        name="paper",
        epochs=90,
        batch_size=256,  # 8 GPUs x 32
        momentum=0.9,
        weight_decay=1e-4,
        decay_norm_and_bias=True,  # torchvision's default; false is its --norm-weight-decay 0
        schedule="step",  # --lr-step-size 30 --lr-gamma 0.1 of 90 epochs
        warmup_fraction=5 / 90,  # Goyal et al. 2017, section 2.2: 5 of 90 epochs, linear
        auxiliary_weight=0.4,  # PyTorch's fine-tuning tutorial
        crop_scale=(0.08, 1.0),  # RandomResizedCrop, after Szegedy et al. 2015
        flip=True,
        watch_from=1 / 3,  # 30 epochs: before the learning rate falls for the first time
        architectures={
            **_build_architectures(
                {"alexnet": 224, "inception_v3": 299, "resnet50": 224, "vgg16": 224},
                _REFERENCE_RATES,
            ),
            # VGG16 without batch normalisation is known to diverge early on; clip its gradients.
            # The norm is our choice: torchvision's README trains it without.
            "vgg16": ArchitectureRecipe(input_px=224, learning_rate=0.01, clip_norm=5.0),
        },
    ),
    "fast": Recipe(
        name="fast",
        is_preview=True,
        epochs=16,
        batch_size=256,
        schedule="cosine",
        warmup_fraction=0.1,
        label_smoothing=0.1,
        watch_from=0.5,  # 8 epochs; AlexNet and VGG16 can take some to leave chance level
        architectures=_build_architectures(
            {"alexnet": 128, "inception_v3": 160, "resnet50": 128, "vgg16": 128},
            _REFERENCE_RATES,
            clip_norm=5.0,
        ),
    ),
    # About two seconds a trial on one CPU thread, at the smallest inputs that the architectures
    # take. Rates and clips were found by trial on the demo images (six categories of eight training
    # images): ResNet-50, Inception-v3 and AlexNet then end above chance on average, at top-1 0.2
    # to 0.3 where chance is 0.17; VGG16, which learns nothing in so few steps, stays at chance.
    # For that reason this recipe watches for NaN only.
    "demo": Recipe(
        name="demo",
        is_preview=True,
        epochs=2,
        batch_size=16,
        schedule="cosine",
        crop_scale=(0.5, 1.0),
        recalibrate_batch_norm=True,
        architectures={
            "alexnet": ArchitectureRecipe(input_px=64, learning_rate=0.7, clip_norm=1.0, steps=7),
            "inception_v3": ArchitectureRecipe(
                input_px=75, learning_rate=0.5, clip_norm=100.0, steps=4
            ),
            "resnet50": ArchitectureRecipe(input_px=32, learning_rate=0.2, clip_norm=20.0, steps=6),
            "vgg16": ArchitectureRecipe(input_px=32, learning_rate=0.3, clip_norm=1.0, steps=2),
        },
    ),
}
