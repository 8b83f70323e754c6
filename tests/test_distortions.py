import itertools

import numpy as np
import pytest

from iqray.demo.textures import Texture, draw_image
from iqray.distortions import DISTORTIONS, MAX_NOISE_SD, add_noise, blur, distort
from iqray.errors import StudyError


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return draw_image(Texture("dots", "green"), 96, 130, np.random.default_rng(3))


def _apply(image: np.ndarray, distortion: str, severity: float, seed: int = 0) -> np.ndarray:
    return distort(image, distortion, severity, np.random.default_rng(seed))


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_severity_zero_gives_an_equal_copy(image, distortion):
    result = _apply(image, distortion, 0.0)
    assert np.array_equal(result, image)
    assert not np.shares_memory(result, image)


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_error_grows_with_severity(image, distortion):
    before = image.copy()
    severities = (0.0, 0.1, 0.3, 0.6, 1.0)
    results = [_apply(image, distortion, severity) for severity in severities]
    errors = [np.mean((result.astype(float) - image) ** 2) for result in results]
    assert all(low < high for low, high in itertools.pairwise(errors))
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_same_generator_state_gives_the_same_pixels(image, distortion):
    first = _apply(image, distortion, 0.5, seed=7)
    assert np.array_equal(first, _apply(image, distortion, 0.5, seed=7))
    # Only noise is random.
    is_equal = np.array_equal(first, _apply(image, distortion, 0.5, seed=8))
    assert is_equal == (distortion != "noise")


def test_noise_has_the_stated_variance():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = add_noise(grey, 0.25, np.random.default_rng(0)).astype(float)
    # Rounding to whole grey levels adds 1/12. Clipping at 128 / 20 deviations is out of reach.
    assert noisy.var() == pytest.approx(0.25 * MAX_NOISE_SD**2 + 1 / 12, rel=0.02)
    assert noisy.mean() == pytest.approx(128, abs=0.3)


def test_blur_keeps_flat_images_and_channels_apart():
    flat = np.zeros((40, 50, 3), np.uint8)
    flat[..., 1] = 77
    assert np.array_equal(blur(flat, 1.0), flat)


@pytest.mark.parametrize("severity", [-0.01, 1.01, float("nan")])
def test_severity_outside_the_unit_interval_is_refused(image, severity):
    with pytest.raises(StudyError, match=r"severity .* must be in \[0, 1\]"):
        _apply(image, "blur", severity)


def test_unknown_distortion_is_refused(image):
    with pytest.raises(StudyError, match="unknown distortion 'fog'; choose from blur, noise"):
        _apply(image, "fog", 0.5)


def test_grey_planes_are_refused():
    with pytest.raises(ValueError, match="must be"):
        _apply(np.zeros((10, 10), np.uint8), "blur", 0.5)
