import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqray.demo.fit_images import FIT_PATTERNS
from iqray.demo.images import (
    NUM_IMAGES,
    RECORD_NAME,
    draw_category_image,
    generate_dataset,
    plan_categories,
)
from iqray.demo.textures import COLOURS, PATTERNS, Texture, draw_image, draw_spectral_noise
from iqray.errors import StudyError

NIQE_BLOCK_PX = 96


def _hash_files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "below" / "a"
    generate_dataset(folder, "a", seed=0)
    return folder


@pytest.mark.parametrize("variant", ["a", "b"])
def test_five_categories_of_each_quality_and_no_hint_in_pattern_or_colour(variant):
    plans = plan_categories(variant)
    assert len({plan.name for plan in plans}) == len(plans) == 20
    assert Counter(plan.quality for plan in plans) == dict.fromkeys(
        ("high", "low", "wide", "medium"), 5
    )
    for plan in plans:
        assert plan.name == f"{plan.texture.colour}_{plan.texture.pattern}"
        same_pattern = [p for p in plans if p.texture.pattern == plan.texture.pattern]
        assert len({p.quality for p in same_pattern}) == 4
        same_colour = [p for p in plans if p.texture.colour == plan.texture.colour]
        assert len({p.quality for p in same_colour}) == 4


def test_datasets_and_fit_images_share_no_pattern():
    patterns = [{plan.texture.pattern for plan in plan_categories(v)} for v in ("a", "b")]
    assert not patterns[0] & patterns[1]
    assert not (patterns[0] | patterns[1]) & set(FIT_PATTERNS)


def test_ranges_are_narrow_but_for_wide_ones():
    width = {p.quality: p.severity_range[1] - p.severity_range[0] for p in plan_categories("a")}
    assert width["wide"] == 1
    assert max(width["high"], width["low"], width["medium"]) <= 0.2


def test_folders_hold_readable_images_of_several_shapes(folder):
    shapes = set()
    for split, num_images in NUM_IMAGES.items():
        directories = sorted((folder / split).iterdir())
        assert [d.name for d in directories] == [plan.name for plan in plan_categories("a")]
        for directory in directories:
            names = sorted(path.name for path in directory.iterdir())
            assert names == [f"{directory.name}_{i:04d}.jpg" for i in range(1, num_images + 1)]
            for path in directory.iterdir():
                with Image.open(path) as image:
                    image.load()
                    assert image.mode == "RGB"
                    shapes.add(image.size)
    assert len(shapes) == 3
    assert all(min(shape) >= 128 for shape in shapes)
    assert all((w // NIQE_BLOCK_PX) * (h // NIQE_BLOCK_PX) >= 2 for w, h in shapes)


def test_same_seed_same_bytes_and_another_seed_replaces_them(folder, tmp_path):
    again = tmp_path / "again"
    generate_dataset(again, "a", seed=0)
    assert _hash_files(again) == _hash_files(folder)
    generate_dataset(again, "a", seed=1)
    other = _hash_files(again)
    assert other.keys() == _hash_files(folder).keys()
    assert not set(other.values()) & set(_hash_files(folder).values())
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_a_complete_dataset_is_left_alone(folder):
    def read_times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = read_times()
    generate_dataset(folder, "a", seed=0)
    assert read_times() == before


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StudyError, match="not generated here"):
        generate_dataset(tmp_path, "a")
    (tmp_path / RECORD_NAME).write_text('{"mine": true}')
    with pytest.raises(StudyError, match="not generated here"):
        generate_dataset(tmp_path, "a")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_planted_severity_lies_in_the_plan():
    generator = np.random.default_rng(0)
    for plan in plan_categories("b"):
        image, severity = draw_category_image(plan, (128, 160), generator)
        assert image.shape == (128, 160, 3)
        assert plan.severity_range[0] <= severity <= plan.severity_range[1]


def test_every_pattern_shows_both_colours_and_no_two_look_alike():
    red = {
        pattern: draw_image(Texture(pattern, "red"), 128, 128, np.random.default_rng(1))[..., 0]
        for pattern in PATTERNS
    }
    for pattern, plane in red.items():
        # The background has at most 0.36 of the full scale where red has 0.8.
        assert (plane > 140).mean() > 0.1, pattern
        assert (plane < 115).mean() > 0.1, pattern
    correlations = np.corrcoef([plane.ravel() for plane in red.values()])
    assert np.abs(correlations - np.eye(len(red))).max() < 0.75


def test_every_colour_is_drawn_as_named():
    for colour, expected in COLOURS.items():
        image = draw_image(Texture("bricks", colour), 128, 128, np.random.default_rng(1))
        bright = image[image.sum(axis=2) > np.median(image.sum(axis=2))].mean(axis=0)
        assert np.abs(bright / 255 - np.array(expected)).max() < 0.15, colour


def test_spectral_noise_has_the_stated_slope():
    noise = draw_spectral_noise(256, 256, 1.0, np.random.default_rng(0))
    assert noise.mean() == pytest.approx(0, abs=1e-3)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    power = np.abs(np.fft.fft2(noise)) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None, :])
    inside = (frequency > 0.02) & (frequency < 0.45)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-2, abs=0.05)
