"""Jobs on a head with one CPU and no GPU: what can never run is refused, what fits ends."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.ray_clusters import provide_clusters
from tests.small_study import write_study
from tests.test_full_grid import run_job

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def make_cluster() -> Iterator[Callable[..., Any]]:
    yield from provide_clusters()


@pytest.fixture(scope="module")
def smallest(make_cluster: Callable[..., Any]) -> str:
    """Address of the head."""
    return str(make_cluster(num_cpus=1).address)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scoring": {"num_gpus": 0.5}}, "scoring asks for 1 CPUs and 0.5 GPUs per worker"),
        ({"training": {"num_gpus": 1}}, "training asks for 1 CPUs and 1 GPUs per worker"),
        ({"training": {"num_cpus": 2}}, "training asks for 2 CPUs and 0 GPUs per worker"),
        ({"training": {"num_concurrent": 2}}, "training asks for 2 workers of 1 CPUs"),
    ],
)
def test_what_no_node_has_is_refused_before_anything_is_made(
    inputs: Path, smallest: str, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    study = write_study(inputs, tmp_path / "out", **changes)
    done = run_job(study, "--address", smallest, cache=tmp_path / "cache", timeout=60)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    made = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert made == {"full_grid.log"}


def test_a_whole_study_ends_on_one_cpu(inputs: Path, smallest: str, tmp_path: Path) -> None:
    """Neither stages nor trials wait for a CPU that another part of the study holds."""
    changes: dict[str, Any] = {"embeddings": {"images": ["all_categories"]}}
    study = write_study(inputs, tmp_path / "out", **changes)
    done = run_job(study, "--address", smallest, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    cells = pd.read_parquet(tmp_path / "out/results/cells.parquet")
    assert (cells["status"] == "ok").sum() == 8
    assert len(pd.read_parquet(tmp_path / "out/embeddings/index.parquet")) == 8
