"""Shared fixtures: small real image folders, and one local Ray for all tests that need it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.object_store import ObjectStore

# Before anything imports Ray: workers start with this environment's python, and no token is made.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

MakeDataset = Callable[..., Path]


def make_pixels(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Smooth colour ramps with some texture: enough contrast for every metric."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.sin(2 * np.pi * (rng.uniform(2, 9) * x + rng.uniform(2, 9) * y))
    channels = [120 + 60 * waves * rng.uniform(0.5, 1) + 40 * (x - y) for _ in range(3)]
    noise = rng.normal(0, 8, (height, width, 3))
    return np.clip(np.stack(channels, axis=-1) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """Write a dataset of JPEG files: `<root>/{train,val}/<category>/<n>.jpg`."""

    def make(
        name: str = "images",
        categories: tuple[str, ...] = ("ant", "bee", "cat", "dog"),
        num_train: int = 3,
        num_test: int = 2,
        size: tuple[int, int] = (112, 96),
    ) -> Path:
        rng = np.random.default_rng(0)
        for split, count in (("train", num_train), ("val", num_test)):
            for category in categories:
                folder = tmp_path / name / split / category
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = make_pixels(rng, *size)
                    Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=92)
        return tmp_path / name

    return make


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> "Iterator[ObjectStore]":
    """An empty bucket of a simulated S3, with its credentials in the environment."""
    from tests.object_store import CREDENTIALS, serve_store  # moto takes seconds to import

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with serve_store() as store:
        yield store


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of two CPUs that this test session starts and stops."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of six categories and random weights, for whole small studies."""
    from tests.metric_weights import write_random_weights  # takes seconds: torch and pyiqa

    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for category in ("ant", "bee", "cat", "dog", "eel", "fox"):
            (folder / "images" / split / category).mkdir(parents=True)
            for number in range(count):
                path = folder / "images" / split / category / f"{number}.jpg"
                Image.fromarray(make_pixels(rng, 112, 96)).save(path, quality=92)
    (folder / "weights").mkdir()
    write_random_weights(folder / "weights")
    return folder


@pytest.fixture(scope="session")
def report_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output root of an invented finished study, with its report."""
    # Imported here, as matplotlib and scipy take seconds that other tests need not wait.
    from iqray.benchmarks.report_roots import RootSize, write_report_root
    from iqray.stages.report_page import write_report
    from iqray.stages.report_sources import check_sources, open_recorded_images
    from iqray.storage import Storage

    storage = Storage(str(tmp_path_factory.mktemp("report") / "root"))
    size = RootSize(
        categories={"d_one": 12, "d_two": 10},
        metrics=("brisque", "musiq"),
        architectures=("alexnet", "resnet50"),
        seeds=(0, 1),
        num_train=6,
        num_test=3,
        num_epochs=4,
        dim=8,
        fraction=0.25,
    )
    write_report_root(storage, size)
    check_sources(storage)
    write_report(storage, open_recorded_images(storage))
    return Path(storage.root)
