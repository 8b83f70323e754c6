"""Encoded bytes to RGB pixels, or a status and a reason; never an exception for a bad image.

Pixels are native size, 8-bit RGB, never re-encoded, not rotated by EXIF: the most literal reading
of the study. What had to be done on the way to 8-bit RGB is noted.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from iqray.errors import StudyError

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
)

# Larger images are refused before they are decoded: a guard against decompression bombs and
# against one image filling a worker's memory (150 Mpx are 0.45 GB of RGB). Pillow itself refuses
# from 179 Mpx on.
MAX_PIXELS = 150_000_000

_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says; no pixel has been decoded."""

    width: int
    height: int
    mode: str


@dataclass(frozen=True)
class DecodedImage:
    """An image as pixels."""

    pixels: np.ndarray  # (height, width, 3) uint8 RGB
    note: str = ""


@dataclass(frozen=True)
class ImageFailure:
    """Why an image could not be read: a status of `schemas.IMAGE_STATUSES` and a reason."""

    status: str
    reason: str


def check_unchanged(name: str, data: bytes, sha256: str) -> None:
    """Check an image's bytes against its manifest: results are kept under that sum.

    Raises:
        StudyError: the file has changed.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StudyError(
            f"image '{name}' has changed since its manifest was made; run the study again, which "
            "starts with the manifest"
        )


def read_header(data: bytes) -> ImageHeader | ImageFailure:
    """Size and mode of an encoded image, without decoding it."""
    opened = _open(data)
    if isinstance(opened, ImageFailure):
        return opened
    return ImageHeader(opened.width, opened.height, opened.mode)


def decode_image(data: bytes) -> DecodedImage | ImageFailure:
    """Decode an encoded image to native-size 8-bit RGB (first frame of an animation)."""
    opened = _open(data)
    if isinstance(opened, ImageFailure):
        return opened
    if opened.width * opened.height > MAX_PIXELS:
        return ImageFailure(
            "too_large", f"{opened.width} x {opened.height} px; the limit is {MAX_PIXELS} pixels"
        )
    try:
        note = _describe_conversion(opened)  # may decode: a PNG's EXIF can follow its pixels
        opened.load()
        rgb = _scale_to_8_bit(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError) as error:
        status = "truncated" if "truncated" in str(error).lower() else "decode_error"
        return ImageFailure(status, _shorten(error))
    return DecodedImage(np.asarray(rgb), note)


def _open(data: bytes) -> Image.Image | ImageFailure:
    if not data:
        return ImageFailure("decode_error", "the file is empty")
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 Mpx on; our own limit is checked before decoding.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        return ImageFailure("too_large", _shorten(error))
    except UnidentifiedImageError:
        return ImageFailure("decode_error", "not an image format that Pillow knows")
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        return ImageFailure("decode_error", _shorten(error))


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit grey levels divided by 256: Pillow's own conversion would clip them at 255."""
    if image.mode not in {"I", "I;16", "I;16B", "I;16L"}:
        return image
    levels = np.asarray(image).astype(np.uint32) >> 8
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def _describe_conversion(image: Image.Image) -> str:
    notes = []
    if image.mode != "RGB":
        notes.append(f"converted from {image.mode}")
    if getattr(image, "n_frames", 1) > 1:
        notes.append("first frame")
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        notes.append("EXIF rotation ignored")
    return ", ".join(notes)


def _shorten(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
