"""Images to fit the demo's metric weights on: other patterns and other seeds than the demo's.

Reads nothing and writes nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iqray.demo.images import SAVED_CHROMA, SAVED_JPEG_QUALITY
from iqray.demo.textures import COLOURS, Texture, draw_image
from iqray.distortions import DISTORTIONS, Pixels, decode_jpeg, distort, encode_jpeg

# None of these is a pattern of the demo's datasets; a test holds the two apart.
FIT_PATTERNS = (
    "waves",
    "crosses",
    "fans",
    "petals",
    "ladders",
    "steps",
    "squares",
    "ovals",
    "scallops",
    "blobs",
)

# Keeps these images' random numbers away from those of a demo dataset of the same seed.
_STREAM = 0x666974


@dataclass(frozen=True)
class FitImages:
    """Images with known severity.

    Attributes:
        images: each (height, width, 3) uint8, RGB.
        severities: (num_images,) float64 in [0, 1]; 0 is clean.
    """

    images: tuple[Pixels, ...]
    severities: npt.NDArray[np.float64]

    @property
    def quality(self) -> npt.NDArray[np.float64]:
        """(num_images,) float64 in [0, 1]; 1 is clean."""
        return 1 - self.severities


def draw_fit_images(
    num_images: int,
    seed: int,
    sizes_px: tuple[tuple[int, int], ...] = ((128, 128),),
    patterns: tuple[str, ...] = FIT_PATTERNS,
) -> FitImages:
    """Draw images with one random distortion each, of severity uniform in [0, 1].

    Patterns and sizes take turns. Like the demo's files, each image goes once through JPEG of high
    quality.

    Args:
        num_images: how many.
        seed: of everything random.
        sizes_px: height and width.
        patterns: keys of `iqray.demo.textures.PATTERNS`.
    """
    generator = np.random.default_rng([seed, _STREAM])
    severities = generator.uniform(size=num_images)
    return _draw(severities, generator, sizes_px, patterns)


def draw_clean_images(
    num_images: int, seed: int, sizes_px: tuple[tuple[int, int], ...]
) -> FitImages:
    """Draw images without distortion; the arguments are those of `draw_fit_images`."""
    generator = np.random.default_rng([seed, _STREAM, 0])
    return _draw(np.zeros(num_images), generator, sizes_px, FIT_PATTERNS)


def _draw(
    severities: npt.NDArray[np.float64],
    generator: np.random.Generator,
    sizes_px: tuple[tuple[int, int], ...],
    patterns: tuple[str, ...],
) -> FitImages:
    images = []
    for number, severity in enumerate(severities):
        texture = Texture(patterns[number % len(patterns)], str(generator.choice(list(COLOURS))))
        clean = draw_image(texture, *sizes_px[number % len(sizes_px)], generator)
        image = distort(clean, str(generator.choice(list(DISTORTIONS))), float(severity), generator)
        images.append(decode_jpeg(encode_jpeg(image, SAVED_JPEG_QUALITY, SAVED_CHROMA)))
    return FitImages(tuple(images), severities)
