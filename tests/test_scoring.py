"""Scoring on a real Ray with pyiqa's networks; the weights are random, so scores mean nothing."""

import hashlib
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from iqray.errors import StudyError
from iqray.identity import make_image_id
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.images import DecodedImage, decode_image
from iqray.inputs.sources import ImageSource
from iqray.metrics.scorer import Scorer
from iqray.metrics.weights import find_weights
from iqray.pools import PoolSize, Written, run_pools
from iqray.schemas import MANIFEST
from iqray.scoring.failures import predict_failures
from iqray.scoring.jobs import ScoreJob
from iqray.scoring.plans import (
    ScorePlan,
    build_score_pool,
    complete_scores,
    plan_scores,
    read_scores,
)
from iqray.scoring.worker import ScoreWorker
from iqray.shards import split_into_shards
from iqray.storage import Storage
from tests.conftest import make_pixels
from tests.metric_weights import write_random_weights

METRICS = ("brisque", "cnniqa", "niqe")
NUM_IMAGES = 14
TABLE = "manifest/d.parquet"
ATTEMPTS = "scores/attempts/test"


class Bench:
    """Images and weights, ready to be planned and scored below an output root."""

    def __init__(self, folder: Path) -> None:
        self.storage = Storage(str(folder / "out"))
        self.images = folder / "images"
        self.weights = folder / "weights"
        self.weights.mkdir()
        write_random_weights(self.weights)
        self._write_images()
        self.refresh()

    def refresh(self) -> None:
        """Take the images' bytes as they are now."""
        self.manifest = pa.Table.from_pylist(list(self._describe_images()), schema=MANIFEST)

    def score_alone(self, metric: str, path: str) -> float | None:
        """Score of one image, called on its own in this process."""
        decoded = decode_image((self.images / path).read_bytes())
        assert isinstance(decoded, DecodedImage)
        [alone] = Scorer(find_weights(self.weights, metric)).score([decoded.pixels])
        return alone.score

    def _write_images(self) -> None:
        rng = np.random.default_rng(0)
        paths = [
            f"train/{name}/{number}.jpg" for name in ("ant", "bee", "cat") for number in range(4)
        ]
        for path in paths:
            (self.images / path).parent.mkdir(parents=True, exist_ok=True)
            shape = (112, 96) if path.endswith(("0.jpg", "1.jpg")) else (96, 130)
            Image.fromarray(make_pixels(rng, *shape)).save(self.images / path, quality=92)
        Image.fromarray(make_pixels(rng, 60, 40)).save(self.images / "train/ant/small.png")
        (self.images / "train/bee/broken.jpg").write_bytes(b"no image")

    def _describe_images(self) -> Iterator[dict[str, object]]:
        for file in sorted(self.images.rglob("*.*")):
            path = file.relative_to(self.images).as_posix()
            yield {
                "dataset": "d",
                "split": "train",
                "category": path.split("/")[1],
                "path": path,
                "image_id": make_image_id(path),
                "container": "",
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "width": 112,
                "height": 96,
                "status": "ok",
                "reason": "",
            }

    def plan(
        self,
        shard_size: int = 4,
        small_images: str = "reject",
        metrics: Sequence[str] = METRICS,
        storage: Storage | None = None,
    ) -> list[ScorePlan]:
        source = ImageSource(ImageRoot(str(self.images)))
        jobs = [
            ScoreJob("d", source, metric, find_weights(self.weights, metric), small_images)
            for metric in metrics
        ]
        storage = storage or self.storage
        storage.write_table(TABLE, self.manifest)
        shards = {"d": tuple(split_into_shards(self.manifest, shard_size, TABLE))}
        return plan_scores(storage, jobs, shards)

    def score_here(self, plans: list[ScorePlan], storage: Storage) -> None:
        """Score what is missing with the real worker, in this process."""
        worker = ScoreWorker(
            storage, {plan.job.name: plan.job for plan in plans}, "cpu", 1, ATTEMPTS, 600
        )
        for plan in plans:
            for shard, name in plan.missing:
                rows = storage.read_rows(shard.table, shard.start, shard.num_rows)
                worker.work(rows, {plan.job.name: f"{plan.job.directory}/{name}"})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("scoring"))


@pytest.fixture(scope="module")
def scored(bench: Bench, local_ray: None) -> Bench:  # noqa: ARG001
    """The bench after one pass through a pool of two actors."""
    written: list[Written] = []
    pool = build_score_pool(bench.storage, bench.plan(), PoolSize(2, 2), ATTEMPTS, 600)
    run_pools([pool], written.append)
    assert sum(part.num_rows for part in written) == NUM_IMAGES * len(METRICS)
    assert sum(part.num_failed for part in written if part.job == "d/niqe") == 2
    assert not bench.storage.list_names(ATTEMPTS)
    for plan in bench.plan():
        complete_scores(bench.storage, plan, max_failed_share=1.0)
    return bench


def read_rows(storage: Storage, metric: str) -> dict[str, dict[str, object]]:
    return {row["path"]: row for row in read_scores(storage, "d", metric).to_pylist()}


def test_rows_are_images_times_metrics_with_reasons(scored: Bench) -> None:
    for metric in METRICS:
        rows = read_rows(scored.storage, metric)
        assert len(rows) == NUM_IMAGES
        assert rows["train/bee/broken.jpg"]["status"] == "decode_error"
        assert rows["train/bee/broken.jpg"]["score"] is None
        assert rows["train/bee/0.jpg"]["status"] == "ok"
        assert rows["train/bee/0.jpg"]["weights"] == "user weights"
    small = read_rows(scored.storage, "niqe")["train/ant/small.png"]
    assert (small["status"], small["score"]) == ("too_small", None)
    assert "niqe needs 96 px" in str(small["reason"])


def test_scores_equal_the_metric_called_on_the_image(scored: Bench) -> None:
    for metric in METRICS:
        row = read_rows(scored.storage, metric)["train/cat/2.jpg"]
        assert row["score"] == pytest.approx(scored.score_alone(metric, str(row["path"])), rel=1e-5)


def test_finished_shards_are_not_planned_again(scored: Bench, tmp_path: Path) -> None:
    assert all(not plan.missing for plan in scored.plan())
    shutil.copytree(scored.storage.get_local_path("scores"), tmp_path / "scores")
    copy = Storage(str(tmp_path))
    niqe = scored.plan(metrics=["niqe"], storage=copy)[0]
    before = read_rows(copy, "niqe")
    copy.delete(f"{niqe.job.directory}/{niqe.names[1]}")
    plans = scored.plan(storage=copy)
    missing = {plan.job.metric: [shard.index for shard, _ in plan.missing] for plan in plans}
    assert missing == {"brisque": [], "cnniqa": [], "niqe": [1]}
    scored.score_here(plans, copy)
    assert read_rows(copy, "niqe") == before


@pytest.mark.parametrize("metric", METRICS)
def test_scores_do_not_depend_on_shards(scored: Bench, tmp_path: Path, metric: str) -> None:
    storage = Storage(str(tmp_path))
    plans = scored.plan(shard_size=NUM_IMAGES, metrics=[metric], storage=storage)
    scored.score_here(plans, storage)
    complete_scores(storage, plans[0], max_failed_share=1.0)
    whole, sharded = read_rows(storage, metric), read_rows(scored.storage, metric)
    assert whole.keys() == sharded.keys()
    for path, row in whole.items():
        assert sharded[path]["status"] == row["status"]
        if row["score"] is not None:
            assert sharded[path]["score"] == pytest.approx(row["score"], rel=1e-5)


def test_small_images_can_be_enlarged(bench: Bench, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    [plan] = bench.plan(small_images="upscale", metrics=["niqe"], storage=storage)
    bench.score_here([plan], storage)
    complete_scores(storage, plan, max_failed_share=1.0)
    rows = read_rows(storage, "niqe")
    assert rows["train/ant/small.png"]["note"] == "upscaled from 60 x 40 px"
    assert rows["train/ant/small.png"]["status"] != "too_small"
    assert rows["train/ant/0.jpg"]["note"] == ""


def test_changed_weights_change_the_key_of_their_metric_only(bench: Bench, tmp_path: Path) -> None:
    before = {plan.job.metric: plan.job.key for plan in bench.plan()}
    shutil.copytree(bench.weights, tmp_path / "weights")
    (tmp_path / "weights/brisque_svm_weights.pth").write_bytes(b"changed")
    for metric in METRICS:
        found = find_weights(tmp_path / "weights", metric)
        changed = ScoreJob("d", bench.images, metric, found, "reject").key != before[metric]
        assert changed == (metric == "brisque")
    enlarged = {plan.job.metric: plan.job.key for plan in bench.plan(small_images="upscale")}
    assert all(enlarged[metric] != before[metric] for metric in METRICS)


def test_a_changed_image_is_refused(bench: Bench, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "out"))
    path = bench.images / "train/bee/1.jpg"
    data = path.read_bytes()
    path.write_bytes((bench.images / "train/bee/2.jpg").read_bytes())
    try:
        with pytest.raises(StudyError, match=r"train/bee/1\.jpg' has changed"):
            bench.score_here(bench.plan(metrics=["brisque"], storage=storage), storage)
    finally:
        path.write_bytes(data)


def test_rows_of_another_setting_do_not_stay(scored: Bench, tmp_path: Path) -> None:
    shutil.copytree(scored.storage.get_local_path("scores"), tmp_path / "scores")
    copy = Storage(str(tmp_path))
    [plan] = scored.plan(metrics=["niqe"], storage=copy)
    other = replace(plan.shards[0], content="of another setting").name_file("key")
    for name in (other, "notes.txt", "desktop.ini", "older/00000.parquet"):
        copy.write_bytes(f"scores/d/niqe/{name}", b"")
    complete_scores(copy, plan, max_failed_share=1.0)
    kept = {"_complete.json", "notes.txt", "desktop.ini", "older"}
    assert copy.list_names("scores/d/niqe") == {*plan.names, *kept}


def test_failures_that_the_manifest_tells_are_known_before_scoring(bench: Bench) -> None:
    sizes = {"width": [95, 300, 40, None], "height": [300, 96, 40, None]}
    statuses = {"status": ["ok", "ok", "truncated", "missing"], "reason": ["", "", "cut", "gone"]}
    rows = pa.table({"category": ["a", "b", "c", "d"], **sizes, **statuses})
    [niqe] = bench.plan(metrics=["niqe"])
    predicted = predict_failures(rows, niqe.job)
    assert predicted["status"].to_pylist() == ["too_small", "ok", "truncated", "missing"]
    assert predicted["reason"].to_pylist() == ["niqe needs 96 px", "", "cut", "gone"]
    [enlarged] = bench.plan(metrics=["niqe"], small_images="upscale")
    assert predict_failures(rows, enlarged.job)["status"].to_pylist()[0] == "ok"


def test_too_many_failures_stop_the_study(scored: Bench, tmp_path: Path) -> None:
    shutil.copytree(scored.storage.get_local_path("scores"), tmp_path / "scores")
    copy = Storage(str(tmp_path))
    copy.delete("scores/d/niqe/_complete.json")
    [plan] = scored.plan(metrics=["niqe"], storage=copy)
    message = r"2 of 14 images of 'd' have no niqe score \(14\.3%.*'ant' \(1\).*max_failed_share"
    with pytest.raises(StudyError, match=message):
        complete_scores(copy, plan, max_failed_share=0.1)
    assert not copy.exists("scores/d/niqe/_complete.json")


def test_a_pool_that_is_stopped_has_ended(scored: Bench, tmp_path: Path) -> None:
    """What still scheduled tasks when Ray is left would end the process without a word."""
    storage = Storage(str(tmp_path))
    plans = scored.plan(shard_size=1, metrics=["niqe"], storage=storage)

    def refuse(written: Written) -> None:
        raise StudyError(f"enough of {written.job}")

    with pytest.raises(StudyError, match="enough of d/niqe"):
        run_pools([build_score_pool(storage, plans, PoolSize(1, 1), ATTEMPTS, 600)], refuse)
    assert not [each for each in threading.enumerate() if "StreamingExecutor" in each.name]
    assert len(storage.list_names("scores/d/niqe")) < NUM_IMAGES
