"""Generates the demo's two datasets: 20 categories each, with planted image quality.

Writes `<folder>/{train,val}/<category>/<category>_0001.jpg` and `<folder>/dataset.json`. A category
is a pattern in a colour. Five categories each are planted high, low, wide and medium in quality;
both splits of a category share its plan.
"""

import json
import logging
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from iqray.demo.textures import Texture, draw_image
from iqray.distortions import DISTORTIONS, Pixels, distort, encode_jpeg
from iqray.errors import StudyError

logger = logging.getLogger(__name__)

Variant = Literal["a", "b"]
Quality = Literal["high", "low", "wide", "medium"]

# Raise it whenever the same seed gives other bytes, so that older folders are made anew.
VERSION = 1

NUM_IMAGES = {"train": 8, "val": 4}  # per category
SEVERITY_RANGES: dict[Quality, tuple[float, float]] = {
    "high": (0.0, 0.1),
    "low": (0.85, 1.0),
    "wide": (0.0, 1.0),
    "medium": (0.45, 0.55),
}
# The last save must not matter beside what is planted: next to no loss, full chroma.
SAVED_JPEG_QUALITY = 95
SAVED_CHROMA = "4:4:4"

RECORD_NAME = "dataset.json"


@dataclass(frozen=True)
class _Look:
    """How the images of a variant differ from those of the other."""

    patterns: tuple[str, ...]  # keys of textures.PATTERNS
    colours: tuple[str, ...]  # keys of textures.COLOURS
    sizes_px: tuple[tuple[int, int], ...]  # height, width; two of NIQE's 96 px blocks or more


_LOOKS: dict[Variant, _Look] = {
    "a": _Look(
        ("stripes", "checks", "dots", "rings", "zigzag"),
        ("red", "green", "blue", "yellow"),
        ((128, 192), (192, 128), (136, 200)),
    ),
    "b": _Look(
        ("hexagons", "bricks", "spirals", "diamonds", "weave"),
        ("purple", "orange", "teal", "pink"),
        ((144, 192), (192, 144), (128, 208)),
    ),
}


@dataclass(frozen=True)
class CategoryPlan:
    """What is planted in one category.

    Attributes:
        name: colour and pattern, such as `red_stripes`; also the name of its folder.
        quality: high (mild distortions), low (strong), medium, or wide (from none to strong).
        severity_range: lowest and highest severity of its images, in [0, 1].
        texture: what its images show.
    """

    name: str
    quality: Quality
    severity_range: tuple[float, float]
    texture: Texture


def plan_categories(variant: Variant) -> tuple[CategoryPlan, ...]:
    """The 20 categories of a variant, five of each quality, sorted by name.

    Qualities rotate over the grid of patterns and colours, so that every pattern comes in all four
    qualities and every colour in all four as well: neither gives the quality away.
    """
    look = _LOOKS[variant]
    qualities = tuple(SEVERITY_RANGES)
    plans = [
        _plan_category(pattern, colour, qualities[(row + column) % len(qualities)])
        for row, pattern in enumerate(look.patterns)
        for column, colour in enumerate(look.colours)
    ]
    return tuple(sorted(plans, key=lambda plan: plan.name))


def generate_dataset(folder: Path, variant: Variant, seed: int = 0) -> None:
    """Write a generated dataset, whole or not at all.

    The same variant and seed give the same bytes with the same Pillow and NumPy. A folder that
    already holds this very dataset is left alone, one that holds an older or another generated
    dataset is replaced.

    Args:
        folder: where the dataset goes; its parent is created when missing.
        variant: a or b, which differ in patterns, colours and image sizes.
        seed: of everything random.

    Raises:
        StudyError: the folder holds something that was not generated here.
    """
    record = {"generator": "iqray demo", "variant": variant, "seed": seed, "version": VERSION}
    if folder.exists() and not _is_replaceable(folder):
        raise StudyError(
            f"{folder} holds files that were not generated here and would be replaced; move them "
            "away or choose another output root"
        )
    if _read_record(folder) == record:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        partial.chmod(0o755)
        _write_images(partial, variant, seed)
        (partial / RECORD_NAME).write_text(json.dumps(record) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    logger.info("generated demo dataset %s in %s", variant, folder)


def draw_category_image(
    plan: CategoryPlan, size_px: tuple[int, int], generator: np.random.Generator
) -> tuple[Pixels, float]:
    """Draw one image of a category and plant a random distortion in it.

    Returns:
        (height, width, 3) uint8 RGB, and the planted severity, uniform in the category's range.
    """
    clean = draw_image(plan.texture, *size_px, generator)
    distortion = str(generator.choice(list(DISTORTIONS)))
    severity = float(generator.uniform(*plan.severity_range))
    return distort(clean, distortion, severity, generator), severity


def _plan_category(pattern: str, colour: str, quality: Quality) -> CategoryPlan:
    return CategoryPlan(
        name=f"{colour}_{pattern}",
        quality=quality,
        severity_range=SEVERITY_RANGES[quality],
        texture=Texture(pattern, colour),
    )


def _write_images(folder: Path, variant: Variant, seed: int) -> None:
    for split, num_images in NUM_IMAGES.items():
        for plan in plan_categories(variant):
            directory = folder / split / plan.name
            directory.mkdir(parents=True)
            _write_category(directory, plan, split, num_images, variant, seed)


def _write_category(
    directory: Path, plan: CategoryPlan, split: str, num_images: int, variant: Variant, seed: int
) -> None:
    # The generator depends on names, not on an order: another category leaves this one as it is.
    stream = zlib.crc32(f"{variant}/{split}/{plan.name}".encode())
    generator = np.random.default_rng([seed, stream])
    sizes_px = _LOOKS[variant].sizes_px
    for number in range(1, num_images + 1):
        image, _ = draw_category_image(plan, sizes_px[number % len(sizes_px)], generator)
        data = encode_jpeg(image, SAVED_JPEG_QUALITY, SAVED_CHROMA)
        (directory / f"{plan.name}_{number:04d}.jpg").write_bytes(data)


def _is_replaceable(folder: Path) -> bool:
    """Whether a folder is empty or was generated here."""
    return folder.is_dir() and (_read_record(folder) is not None or not any(folder.iterdir()))


def _read_record(folder: Path) -> dict[str, object] | None:
    try:
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("generator") == "iqray demo" else None
