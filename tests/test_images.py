import io

import numpy as np
import pytest
from PIL import Image

from iqray.images import DecodedImage, ImageFailure, decode_image, read_header

GRADIENT = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (80, 1))


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
        ("P", "GIF"),
        ("RGB", "TIFF"),
    ],
)
def test_every_mode_becomes_native_size_rgb(mode: str, file_format: str) -> None:
    data = encode(Image.fromarray(GRADIENT).convert(mode), file_format)
    decoded = decode_image(data)
    assert isinstance(decoded, DecodedImage)
    assert decoded.pixels.shape == (80, 120, 3)
    assert decoded.pixels.dtype == np.uint8
    assert ("converted" in decoded.note) == (mode != "RGB")


def test_16_bit_levels_keep_their_order() -> None:
    levels = (GRADIENT.astype(np.uint16) * 256) + 17
    decoded = decode_image(encode(Image.fromarray(levels), "PNG"))
    assert isinstance(decoded, DecodedImage)
    np.testing.assert_array_equal(decoded.pixels[..., 0], GRADIENT)


def test_exif_rotation_is_ignored_and_noted() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_image(encode(Image.fromarray(GRADIENT), "JPEG", exif=exif))
    assert isinstance(decoded, DecodedImage)
    assert decoded.pixels.shape == (80, 120, 3)
    assert "EXIF rotation ignored" in decoded.note


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.fromarray(GRADIENT), Image.fromarray(255 - GRADIENT)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decoded = decode_image(data)
    assert isinstance(decoded, DecodedImage)
    assert "first frame" in decoded.note
    assert decoded.pixels[0, 0, 0] < decoded.pixels[0, -1, 0]


def test_pixels_equal_pillows() -> None:
    data = encode(
        Image.fromarray(np.dstack([GRADIENT, GRADIENT.T[:80].repeat(2, 1)[:, :120], GRADIENT])),
        "JPEG",
    )
    decoded = decode_image(data)
    assert isinstance(decoded, DecodedImage)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", "decode_error"),
        (b"not an image at all", "decode_error"),
        (encode(Image.fromarray(GRADIENT), "JPEG")[:-200], "truncated"),
        (encode(Image.fromarray(GRADIENT), "PNG")[:60], "truncated"),
        (encode(Image.fromarray(GRADIENT), "TIFF")[:-4000], "truncated"),
        (encode(Image.fromarray(GRADIENT), "WEBP")[:-30], "decode_error"),
        (encode(Image.fromarray(GRADIENT), "GIF")[:1200], "truncated"),
        (encode(Image.new("1", (13000, 13000)), "PNG"), "too_large"),
        (encode(Image.new("1", (20000, 20000)), "PNG"), "too_large"),
    ],
    ids=[
        "empty",
        "text",
        "cut JPEG",
        "cut PNG",
        "cut TIFF",
        "cut WebP",
        "cut GIF",
        "169 Mpx",
        "400 Mpx",
    ],
)
def test_bad_bytes_become_a_reason(data: bytes, status: str) -> None:
    failure = decode_image(data)
    assert isinstance(failure, ImageFailure)
    assert failure.status == status
    assert failure.reason


def test_header_is_read_without_decoding() -> None:
    data = encode(Image.fromarray(GRADIENT), "JPEG")
    header = read_header(data[:-200])
    assert not isinstance(header, ImageFailure)
    assert (header.width, header.height, header.mode) == (120, 80, "L")
