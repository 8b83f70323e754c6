"""Encoded bytes to RGB pixels, or a status and a reason; never an exception for a bad image.

Pixels are native size, 8-bit RGB, never re-encoded, not rotated by EXIF, without transparency: the
most literal reading of the study. What had to be done on the way to 8-bit RGB is noted. The format
is taken from the content, not from the file's name.
"""

import functools
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

# What may be opened, whatever the file is called. Pillow knows more; some of it runs other
# programs on the file (EPS).
_FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF"),
    *("AVIF", "JPEG2000", "PPM"),  # found under the suffixes above all the same
)

_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC = 0x0106
_WHITE_IS_ZERO = 0

# Pillow rotates a TIFF by its orientation while it loads; what takes that back.
_TAKE_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_SIDES_SWAPPED = (5, 6, 7, 8)

_TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says; no pixel has been decoded.

    Width and height are those of the stored pixels, not rotated by EXIF.
    """

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
    width, height = opened.size
    if opened.format == "TIFF" and _read_orientation(opened) in _SIDES_SWAPPED:
        width, height = height, width
    return ImageHeader(width, height, opened.mode)


def decode_image(data: bytes) -> DecodedImage | ImageFailure:
    """Decode an encoded image to native-size 8-bit RGB (first frame of an animation).

    Of 16 bits per channel the upper 8 are kept. Signed and 32-bit pixels, whole or floating, are
    refused: nothing says which value is white.
    """
    opened = _open(data)
    if isinstance(opened, ImageFailure):
        return opened
    if opened.width * opened.height > MAX_PIXELS:
        return ImageFailure(
            "too_large", f"{opened.width} x {opened.height} px; the limit is {MAX_PIXELS} pixels"
        )
    if opened.mode in {"I", "F"} and opened.format != "PNG":
        return ImageFailure(
            "decode_error",
            f"signed or 32-bit pixels (mode {opened.mode}) have no agreed white; store 8 or 16",
        )
    try:
        note = _describe_conversion(opened)  # may decode: a PNG's EXIF can follow its pixels
        rgb = _load_rgb(opened)
    except MemoryError:  # says something of the process, not of the image
        raise
    except Exception as error:  # decoders of broken files raise whatever they stumble over
        status = "truncated" if "truncated" in str(error).lower() else "decode_error"
        return ImageFailure(status, _shorten(error))
    return DecodedImage(np.asarray(rgb), note)


def _open(data: bytes) -> Image.Image | ImageFailure:
    if not data:
        return ImageFailure("decode_error", "there are no bytes")
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 Mpx on; our own limit is checked before decoding.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=_list_formats())
    except Image.DecompressionBombError as error:
        return ImageFailure("too_large", _shorten(error))
    except UnidentifiedImageError:
        return ImageFailure("decode_error", "not an image of a known format")
    except MemoryError:
        raise
    except Exception as error:  # see decode_image
        return ImageFailure("decode_error", _shorten(error))


@functools.cache
def _list_formats() -> tuple[str, ...]:
    """The formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _load_rgb(image: Image.Image) -> Image.Image:
    orientation = _read_orientation(image)  # before loading: a TIFF's is gone afterwards
    image.load()
    # The colours under a transparent pixel are kept; Pillow warns of palettes with transparency.
    image.info.pop("transparency", None)
    rgb = _scale_to_8_bit(image).convert("RGB")
    if image.format == "TIFF" and orientation in _TAKE_BACK:
        return rgb.transpose(_TAKE_BACK[orientation])
    return rgb


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit grey levels divided by 256: Pillow's own conversion would clip them at 255."""
    if image.mode not in {"I", "I;16", "I;16B", "I;16L"}:
        return image
    levels = np.clip(np.asarray(image).astype(np.uint32) >> 8, 0, 255).astype(np.uint8)
    # Pillow turns 8-bit negatives into positives itself, 16-bit ones not.
    tags = getattr(image, "tag_v2", {})
    is_negative = tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
    return Image.fromarray(255 - levels if is_negative else levels)


def _describe_conversion(image: Image.Image) -> str:
    notes = []
    if image.mode != "RGB":
        notes.append(f"converted from {image.mode}")
    if any(";16" in str(tile) for tile in getattr(image, "tile", ())):
        notes.append("upper 8 of 16 bits")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        notes.append("transparency ignored")
    if getattr(image, "n_frames", 1) > 1:
        notes.append("first frame")
    if _read_orientation(image) != 1:
        notes.append("EXIF rotation ignored")
    return ", ".join(notes)


def _read_orientation(image: Image.Image) -> int:
    """EXIF orientation; 1, upright, where EXIF is absent or broken, which spoils no pixel."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return 1
    return orientation if orientation in _TAKE_BACK else 1


def _shorten(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
