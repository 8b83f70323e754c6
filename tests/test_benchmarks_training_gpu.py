"""Everything of the GPU benchmark of training but its speed, on the CPU."""

import math
from pathlib import Path

import pytest
import torch

from iqray.benchmarks.inputs import generate_images
from iqray.benchmarks.training_gpu import (
    TARGETS,
    TrainingSpeed,
    TrainingSuite,
    count_study_hours,
    format_speed,
    format_speed_header,
)
from iqray.recipes import ARCHITECTURES, RECIPES


def make_speed(name: str, images_per_s: float, holds: bool | None = None) -> TrainingSpeed:
    return TrainingSpeed(name, images_per_s, 50.0, 200.0, 2.0, 1.5, TARGETS[name], holds)


def test_all_three_loops_run(tmp_path: Path) -> None:
    suite = TrainingSuite(
        images=generate_images(6),
        folder=tmp_path,
        device=torch.device("cpu"),
        num_workers=0,
        batch_size=4,
        num_steps=2,
        num_images=8,
        recipe=RECIPES["demo"],
    )
    [speed] = suite.run(["inception_v3"])
    assert speed.name == "inception_v3"
    for measured in (speed.images_per_s, speed.peer_images_per_s, speed.synthetic_images_per_s):
        assert 0 < measured < math.inf
    assert speed.ratio == speed.images_per_s / speed.peer_images_per_s
    assert speed.first_step_s > 0
    assert speed.holds is None  # targets are for one kind of GPU


def test_hours_are_images_over_speed() -> None:
    """192 trainings of 90 epochs: 48 an architecture, half of them on each dataset."""
    speeds = [make_speed(name, 1000.0) for name in ARCHITECTURES]
    images = 4 * 24 * 90 * (64_100 + 71_600)
    assert count_study_hours(speeds) == pytest.approx(images / 1000 / 3600)


def test_a_line_says_whether_the_target_is_reached() -> None:
    assert format_speed(make_speed("vgg16", 2500.0, holds=True)).endswith("yes")
    assert format_speed(make_speed("vgg16", 2300.0, holds=False)).endswith("NO")
    assert format_speed(make_speed("vgg16", 2300.0)).endswith("no H200")
    assert set(TARGETS) == set(ARCHITECTURES)
    assert "torchvision" in format_speed_header()
