"""Draws clean images: a pattern in two colours, lit unevenly, with fine detail.

Reads nothing and writes nothing. The detail has the amplitude spectrum of photographs, 1 / f
(Field 1987), so that the natural-scene statistics of NIQE and BRISQUE mean something here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iqray.distortions import Pixels

Plane = npt.NDArray[np.floating]

EDGE_SHARPNESS = 3.0  # slope of a pattern's edges; about one pixel wide at the usual periods
PATTERN_PERIOD_PX = (24.0, 40.0)
DETAIL_SD = 0.07  # of full scale
SHADING_SD = 0.10

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.25, 0.20),
    "green": (0.25, 0.65, 0.25),
    "blue": (0.20, 0.35, 0.80),
    "yellow": (0.85, 0.75, 0.20),
    "purple": (0.55, 0.25, 0.70),
    "orange": (0.90, 0.50, 0.15),
    "teal": (0.15, 0.60, 0.60),
    "pink": (0.90, 0.50, 0.65),
    "grey": (0.60, 0.60, 0.60),
    "brown": (0.50, 0.35, 0.20),
}


def _wrap(values: Plane) -> Plane:
    """Distance to the nearest whole number, in [0, 0.5]."""
    return np.abs(values - np.rint(values))


def _wave(values: Plane) -> Plane:
    return np.sin(2 * np.pi * values)


def _bricks(u: Plane, v: Plane) -> Plane:
    shifted = u / 2 + 0.5 * (np.floor(v) % 2)
    return 10 * np.minimum(_wrap(shifted) * 2, _wrap(v)) - 1


def _weave(u: Plane, v: Plane) -> Plane:
    is_over = (np.floor(u / 2) + np.floor(v / 2)) % 2 == 0
    return np.where(is_over, _wave(v), _wave(u))


# A pattern maps coordinates, in periods, to a field whose sign decides between the two colours.
PATTERNS: dict[str, Callable[[Plane, Plane], Plane]] = {
    "stripes": lambda u, _: _wave(u),
    "checks": lambda u, v: 2 * _wave(u) * _wave(v),
    "dots": lambda u, v: 3 * (0.33 - np.hypot(_wrap(u), _wrap(v))) * 2,
    "rings": lambda u, v: _wave(np.hypot(u, v)),
    "zigzag": lambda u, v: _wave(u + _wrap(v)),
    "hexagons": lambda u, v: _wave(u) + _wave(0.5 * u + 0.866 * v) + _wave(0.5 * u - 0.866 * v),
    "bricks": _bricks,
    "spirals": lambda u, v: _wave(np.hypot(u, v) + np.arctan2(v, u) / np.pi),
    "diamonds": lambda u, v: 6 * (_wrap(u) + _wrap(v) - 0.35),
    "weave": _weave,
    "waves": lambda u, v: _wave(u + 0.25 * _wave(v)),
    "crosses": lambda u, v: 8 * (0.15 - np.minimum(_wrap(u), _wrap(v))),
    "fans": lambda u, v: 2 * np.sin(9 * np.arctan2(v, u)),
    "petals": lambda u, v: _wave(np.hypot(u, v) + 0.2 * np.sin(5 * np.arctan2(v, u))),
    "ladders": lambda u, v: 6 * (0.2 - np.minimum(_wrap(u), _wrap(2 * v + 0.5 * np.floor(u)))),
    "steps": lambda u, v: _wave(u + np.floor(v) / 3),
    "squares": lambda u, v: _wave(np.maximum(np.abs(u), np.abs(v))),
    "ovals": lambda u, v: _wave(np.hypot(u, 2 * v) / 1.5),
    "scallops": lambda u, v: _wave(v + np.sqrt(np.maximum(0, 0.25 - _wrap(u) ** 2))),
    "blobs": lambda u, v: _wave(u + 0.2 * _wave(v)) + _wave(0.8 * v + 0.2 * _wave(0.7 * u)),
}


@dataclass(frozen=True)
class Texture:
    """What the images of one category have in common."""

    pattern: str  # a key of PATTERNS
    colour: str  # a key of COLOURS


def draw_image(
    texture: Texture, height_px: int, width_px: int, generator: np.random.Generator
) -> Pixels:
    """Draw one clean image; angle, period, place, lighting and detail vary.

    Returns:
        (height_px, width_px, 3) uint8, RGB.
    """
    field = _draw_pattern(texture.pattern, height_px, width_px, generator)
    foreground = np.array(COLOURS[texture.colour], np.float32)
    foreground = foreground + generator.normal(0, 0.03, 3).astype(np.float32)
    background = 0.3 * foreground + generator.uniform(0.0, 0.12)
    mix = (0.5 + 0.5 * field)[..., None]
    rgb = mix * foreground + (1 - mix) * background
    shading = SHADING_SD * draw_spectral_noise(height_px, width_px, 2.0, generator)
    detail = DETAIL_SD * draw_spectral_noise(height_px, width_px, 1.0, generator)
    rgb = rgb * (1 + shading)[..., None] + detail[..., None]
    return np.clip(np.rint(255 * rgb), 0, 255).astype(np.uint8)


def draw_spectral_noise(
    height_px: int, width_px: int, exponent: float, generator: np.random.Generator
) -> Plane:
    """Gaussian noise with amplitude spectrum `1 / f ** exponent`, mean 0, standard deviation 1.

    Returns:
        (height_px, width_px) float32.
    """
    white = generator.standard_normal((height_px, width_px), dtype=np.float32)
    frequency = np.hypot(np.fft.fftfreq(height_px)[:, None], np.fft.rfftfreq(width_px)[None, :])
    frequency[0, 0] = np.inf  # no constant part
    noise = np.fft.irfft2(np.fft.rfft2(white) / frequency**exponent, s=(height_px, width_px))
    return (noise / noise.std()).astype(np.float32)


def _draw_pattern(
    pattern: str, height_px: int, width_px: int, generator: np.random.Generator
) -> Plane:
    """Field in [-1, 1] with sharp edges, (height_px, width_px) float32."""
    period_px = generator.uniform(*PATTERN_PERIOD_PX)
    angle = generator.uniform(0, np.pi)
    y, x = np.mgrid[:height_px, :width_px].astype(np.float32)
    y = (y - height_px * generator.uniform(0.2, 0.8)) / period_px
    x = (x - width_px * generator.uniform(0.2, 0.8)) / period_px
    u = np.cos(angle) * x + np.sin(angle) * y
    v = np.cos(angle) * y - np.sin(angle) * x
    field = PATTERNS[pattern](u.astype(np.float32), v.astype(np.float32))
    return np.clip(EDGE_SHARPNESS * field, -1, 1)
