"""An image's score is the same whatever its batch, neighbours, actor and run, for each metric."""

import numpy as np
import pytest

from iqray.metrics.registry import METRICS_WITH_FILES
from iqray.pools import PoolSize, Written, run_pools
from iqray.scoring.plans import build_score_pool, complete_scores
from iqray.storage import Storage
from tests.metrics_port import wait_for_lines
from tests.test_scoring import ATTEMPTS, NUM_IMAGES, Bench, read_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("same"))


def score(bench: Bench, storage: Storage, num_actors: int, shard_size: int) -> list[Written]:
    """Score what is missing in a pool of that many actors."""
    plans = bench.plan(shard_size, metrics=METRICS_WITH_FILES, storage=storage)
    written: list[Written] = []
    size = PoolSize(num_actors, num_actors)
    run_pools([build_score_pool(storage, plans, size, ATTEMPTS, 600)], written.append)
    for plan in bench.plan(shard_size, metrics=METRICS_WITH_FILES, storage=storage):
        complete_scores(storage, plan, max_failed_share=1.0)
    return written


@pytest.fixture(scope="module")
def one_by_one(bench: Bench, local_ray: None) -> Storage:  # noqa: ARG001
    """Scores of one actor that gets one image at a time."""
    storage = Storage(bench.storage.root + "/one_by_one")
    score(bench, storage, num_actors=1, shard_size=1)
    return storage


@pytest.fixture(scope="module")
def resumed(bench: Bench, local_ray: None) -> Storage:  # noqa: ARG001
    """Scores of two actors in shards of five, half of which an earlier run had finished."""
    storage = Storage(bench.storage.root + "/resumed")
    score(bench, storage, num_actors=2, shard_size=5)
    for plan in bench.plan(5, metrics=METRICS_WITH_FILES, storage=storage):
        for name in plan.names[::2]:
            storage.delete(f"{plan.job.directory}/{name}")
    written = score(bench, storage, num_actors=1, shard_size=5)
    assert sum(part.num_rows for part in written) == len(METRICS_WITH_FILES) * (5 + 4)
    return storage


@pytest.mark.parametrize("metric", METRICS_WITH_FILES)
def test_scores_do_not_depend_on_company_actor_or_run(
    bench: Bench, one_by_one: Storage, resumed: Storage, metric: str
) -> None:
    alone, together = read_rows(one_by_one, metric), read_rows(resumed, metric)
    assert alone.keys() == together.keys()
    assert len(alone) == NUM_IMAGES
    for path, row in alone.items():
        assert together[path]["status"] == row["status"]
        if row["score"] is not None:
            assert together[path]["score"] == pytest.approx(row["score"], rel=1e-5)
    here = bench.score_alone(metric, "train/bee/3.jpg")
    assert together["train/bee/3.jpg"]["score"] == pytest.approx(here, rel=1e-5)
    assert len({row["score"] for row in alone.values()}) > NUM_IMAGES // 2


def test_meters_reach_the_nodes_metrics_port(one_by_one: Storage) -> None:
    lines = wait_for_lines("ray_iqray_images_scored_total")
    scored = [line for line in lines if 'metric="niqe"' in line and 'dataset="d"' in line]
    assert scored
    rows = read_rows(one_by_one, "niqe").values()
    num_ok = sum(row["status"] == "ok" for row in rows)
    assert max(float(line.split()[-1]) for line in scored) >= num_ok
    failed = wait_for_lines("ray_iqray_image_failures_total")
    assert any('status="too_small"' in line and 'metric="niqe"' in line for line in failed)
    rates = wait_for_lines("ray_iqray_images_per_s")
    assert all(np.isfinite(float(line.split()[-1])) for line in rates)


def test_no_notes_stay_behind(resumed: Storage) -> None:
    assert not resumed.list_names(ATTEMPTS)
