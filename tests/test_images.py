import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from iqray.inputs.images import DecodedImage, ImageFailure, ImageHeader, decode_image, read_header

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


LEVELS = (GRADIENT.astype(np.uint16) * 256) + 17


def encode_16_bit_png() -> bytes:
    """RGB with 16 bits per channel, which Pillow reads but does not write."""
    height, width = LEVELS.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.dstack([LEVELS] * 3))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encode_16_bit_tiff() -> bytes:
    """The same as a TIFF: bits at byte 8, pixels after them, then the directory."""
    height, width = LEVELS.shape
    pixels = np.dstack([LEVELS] * 3).astype("<u2").tobytes()
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 2, 273: 14, 277: 3}
    values |= {278: height, 279: len(pixels)}
    entries = [
        struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, value)
        for tag, value in values.items()
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return struct.pack("<2sHI3H", b"II", 42, 14 + len(pixels), 16, 16, 16) + pixels + directory


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.fromarray(LEVELS), "PNG"),
        encode(Image.fromarray(LEVELS), "TIFF"),
        encode(Image.fromarray(LEVELS), "TIFF", compression="tiff_lzw"),
        encode(Image.fromarray(65535 - LEVELS), "TIFF", tiffinfo={262: 0}),
        encode_16_bit_png(),
        encode_16_bit_tiff(),
    ],
    ids=["grey PNG", "grey TIFF", "compressed TIFF", "negative TIFF", "RGB PNG", "RGB TIFF"],
)
def test_16_bit_levels_keep_their_upper_8(data: bytes) -> None:
    decoded = decode_image(data)
    assert isinstance(decoded, DecodedImage)
    assert "upper 8 of 16 bits" in decoded.note
    for channel in range(3):
        np.testing.assert_array_equal(decoded.pixels[..., channel], GRADIENT)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_levels_without_a_white_are_refused(kind: type) -> None:
    failure = decode_image(encode(Image.fromarray(GRADIENT.astype(kind) / kind(1)), "TIFF"))
    assert isinstance(failure, ImageFailure)
    assert failure.status == "decode_error"
    assert "no agreed white" in failure.reason


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_ignored_and_noted(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.dstack([GRADIENT, GRADIENT[::-1], GRADIENT]))
    upright, rotated = (encode(image, file_format, **given) for given in ({}, {"exif": exif}))
    header = read_header(rotated)
    assert isinstance(header, ImageHeader)
    assert (header.width, header.height) == (120, 80)
    decoded, expected = decode_image(rotated), decode_image(upright)
    assert isinstance(decoded, DecodedImage)
    assert isinstance(expected, DecodedImage)
    np.testing.assert_array_equal(decoded.pixels, expected.pixels)
    assert (decoded.note, expected.note) == ("EXIF rotation ignored", "")


@pytest.mark.parametrize(
    ("mode", "options"),
    [("RGBA", {}), ("LA", {}), ("P", {"transparency": 7}), ("P", {"transparency": bytes(200)})],
)
@pytest.mark.filterwarnings("error")
def test_transparency_is_ignored_and_noted(mode: str, options: dict[str, object]) -> None:
    image = Image.fromarray(GRADIENT).convert(mode)
    if mode == "RGBA":
        image.putalpha(10)
    decoded = decode_image(encode(image, "PNG", **options))
    assert isinstance(decoded, DecodedImage)
    assert decoded.note == f"converted from {mode}, transparency ignored"
    np.testing.assert_array_equal(decoded.pixels[..., 1], GRADIENT)


def test_a_formats_content_counts_not_its_name() -> None:
    image = Image.fromarray(GRADIENT).convert("RGB")
    assert isinstance(decode_image(encode(image, "JPEG2000")), DecodedImage)
    failure = decode_image(encode(image, "EPS"))  # Pillow would run Ghostscript on it
    assert failure == ImageFailure("decode_error", "not an image of a known format")


@pytest.mark.filterwarnings("ignore")
def test_a_broken_exif_spoils_no_pixel() -> None:
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff broken"
    decoded = decode_image(encode(Image.fromarray(GRADIENT), "JPEG", exif=exif))
    assert isinstance(decoded, DecodedImage)
    assert decoded.pixels.shape == (80, 120, 3)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_never_raise(file_format: str) -> None:
    generator = np.random.default_rng(0)
    data = (
        np.frombuffer(encode(Image.fromarray(GRADIENT).convert("P"), file_format), np.uint8)
        if file_format not in {"JPEG", "WEBP"}
        else np.frombuffer(encode(Image.fromarray(GRADIENT).convert("RGB"), file_format), np.uint8)
    )
    for _ in range(150):
        damaged = data.copy()
        places = generator.integers(0, min(len(data), 600), 4)
        damaged[places] = generator.integers(0, 256, 4)
        assert isinstance(decode_image(damaged.tobytes()), DecodedImage | ImageFailure)
        assert isinstance(read_header(damaged.tobytes()), ImageHeader | ImageFailure)


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
