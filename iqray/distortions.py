"""Plants a known loss of quality in an image: blur, noise, JPEG artefacts, lost resolution.

Every distortion is a pure function of the pixels, a severity in [0, 1] and, where it is random, a
NumPy generator. Severity 0 gives the image back unchanged. The strengths were set so that equal
severities of different kinds lie about equally far from clean images: the mean NIQE of ten demo
textures, with the demo's weights, is 6 for clean ones, 50 to 65 at severity 0.35, 120 to 140 at 1.
"""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from iqray.errors import StudyError

Pixels = npt.NDArray[np.uint8]

MIN_BLUR_SD_PX = 0.4  # a sampled Gaussian below it hardly differs from no blur
MAX_BLUR_SD_PX = 3.0
MAX_NOISE_SD = 40.0  # grey levels of 255
MAX_JPEG_QUALITY = 50  # Pillow's scale, 1 to 95
MIN_JPEG_QUALITY = 4
MAX_DOWNSCALE = 5.0  # factor by which each side shrinks before it is enlarged again


def blur(image: Pixels, severity: float) -> Pixels:
    """Convolve with an isotropic Gaussian.

    Its standard deviation grows geometrically from `MIN_BLUR_SD_PX` to `MAX_BLUR_SD_PX`.

    Args:
        image: (H, W, 3) uint8, RGB.
        severity: in [0, 1]; 0 returns a copy.
    """
    _check(image, severity)
    if severity == 0:
        return image.copy()
    sd_px = MIN_BLUR_SD_PX * (MAX_BLUR_SD_PX / MIN_BLUR_SD_PX) ** severity
    blurred = ndimage.gaussian_filter(image.astype(np.float32), (sd_px, sd_px, 0), mode="reflect")
    return _round_to_uint8(blurred)


def add_noise(image: Pixels, severity: float, generator: np.random.Generator) -> Pixels:
    """Add white Gaussian noise to each value; its variance is `severity * MAX_NOISE_SD ** 2`.

    Args:
        image: (H, W, 3) uint8, RGB.
        severity: in [0, 1]; 0 returns a copy.
        generator: source of the noise.
    """
    _check(image, severity)
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    return _round_to_uint8(image + severity**0.5 * MAX_NOISE_SD * noise)


def compress_jpeg(image: Pixels, severity: float) -> Pixels:
    """Encode as JPEG (4:2:0 chroma) and decode again.

    The quality falls geometrically from `MAX_JPEG_QUALITY` to `MIN_JPEG_QUALITY`.

    Args:
        image: (H, W, 3) uint8, RGB.
        severity: in [0, 1]; 0 returns a copy that was not encoded.
    """
    _check(image, severity)
    if severity == 0:
        return image.copy()
    quality = round(MAX_JPEG_QUALITY * (MIN_JPEG_QUALITY / MAX_JPEG_QUALITY) ** severity)
    return decode_jpeg(encode_jpeg(image, quality, "4:2:0"))


def reduce_resolution(image: Pixels, severity: float) -> Pixels:
    """Shrink each side by `MAX_DOWNSCALE ** severity` and enlarge it again, both bicubic.

    Args:
        image: (H, W, 3) uint8, RGB.
        severity: in [0, 1]; 0 returns a copy.
    """
    _check(image, severity)
    height, width = image.shape[:2]
    factor = MAX_DOWNSCALE**severity
    small_size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = Image.fromarray(image).resize(small_size, Image.Resampling.BICUBIC)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).copy()


DISTORTIONS: dict[str, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    "blur": lambda image, severity, _: blur(image, severity),
    "noise": add_noise,
    "jpeg": lambda image, severity, _: compress_jpeg(image, severity),
    "downscale": lambda image, severity, _: reduce_resolution(image, severity),
}


def distort(
    image: Pixels, distortion: str, severity: float, generator: np.random.Generator
) -> Pixels:
    """Apply one distortion by name.

    Args:
        image: (H, W, 3) uint8, RGB; left as it is.
        distortion: a key of `DISTORTIONS`.
        severity: in [0, 1]; 0 returns a copy.
        generator: used by the random distortions alone.

    Raises:
        StudyError: if the distortion is unknown or the severity is outside [0, 1].
        ValueError: if the image is not (H, W, 3) uint8.
    """
    if distortion not in DISTORTIONS:
        raise StudyError(f"unknown distortion '{distortion}'; choose from {', '.join(DISTORTIONS)}")
    return DISTORTIONS[distortion](image, severity, generator)


def encode_jpeg(image: Pixels, quality: int, chroma: str) -> bytes:
    """JPEG file of an image.

    Args:
        image: (H, W, 3) uint8, RGB.
        quality: Pillow's scale, 1 to 95.
        chroma: subsampling of the colour planes, `4:4:4` (none) or `4:2:0` (half each way).
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality, subsampling=chroma)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> Pixels:
    """Pixels of a JPEG file, (H, W, 3) uint8, RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def _check(image: Pixels, severity: float) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image of shape {image.shape} and type {image.dtype} must be (H, W, 3) uint8"
        )
    if not 0 <= severity <= 1:
        raise StudyError(f"severity {severity} must be in [0, 1]")


def _round_to_uint8(values: npt.NDArray[np.floating]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
