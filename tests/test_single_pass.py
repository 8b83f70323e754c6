"""Inspecting and scoring in one pass: what it leaves, beside what the two stages leave."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.identity import hash_strings
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.inspection import ImageInspector
from iqray.inputs.listing import list_images
from iqray.inputs.manifest import (
    ManifestPlan,
    finish_manifest,
    get_manifest_path,
    list_missing,
    plan_manifest,
    read_manifest,
    select_train,
)
from iqray.inputs.sources import ImageSource
from iqray.metrics.weights import find_weights
from iqray.pools import Written
from iqray.scoring.failures import FailureLimit
from iqray.scoring.jobs import ScoreJob
from iqray.scoring.plans import ScorePlan, plan_scores
from iqray.scoring.single_pass import SinglePassWorker
from iqray.scoring.worker import ScoreWorker
from iqray.shards import Shard, split_into_shards
from iqray.stages.images import describe_tasks
from iqray.storage import Storage
from tests.conftest import make_pixels
from tests.metric_weights import write_random_weights

METRICS = ("brisque", "niqe")
SHARD_SIZE = 4
NUM_TRAIN, NUM_TEST = 10, 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training images, a broken and a too small one among them, test images, and weights."""
    folder = tmp_path_factory.mktemp("single_pass")
    rng = np.random.default_rng(3)
    for number in range(NUM_TRAIN + NUM_TEST):
        split = "train" if number < NUM_TRAIN else "val"
        path = folder / f"images/{split}/{'ant' if number % 2 else 'bee'}/{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (40, 40) if number == 3 else (100 + number, 120)
        Image.fromarray(make_pixels(rng, *shape)).save(path)
    (folder / "images/train/bee/06.png").write_bytes(b"no image")
    (folder / "weights").mkdir()
    write_random_weights(folder / "weights")
    return folder


class Pass:
    """A dataset below one output root, inspected and scored in this process."""

    def __init__(self, root: Path, out: Path) -> None:
        self.storage = Storage(str(out))
        self.source = ImageSource(ImageRoot(str(root / "images")))
        jobs = [
            ScoreJob("d", self.source, metric, find_weights(root / "weights", metric), "reject")
            for metric in METRICS
        ]
        self.jobs = {job.name: job for job in jobs}

    def plan(self) -> ManifestPlan:
        dataset = Dataset(name="d", root=self.source.root.uri)
        listing = list_images(dataset, self.source.root)
        return plan_manifest("d", self.source, listing, SHARD_SIZE)

    def list_tasks(self) -> list[tuple[Shard, dict[str, Any]]]:
        plan = self.plan()
        return list(describe_tasks(self.storage, plan, list_missing(self.storage, plan), self.jobs))

    def run_at_once(self) -> list[Written]:
        """What stage `images` does, and no more."""
        worker = SinglePassWorker(
            self.storage, {"d": self.source}, self.jobs, "cpu", 2, "attempts", 600
        )
        return [
            written
            for shard, task in self.list_tasks()
            for written in worker.work(
                self.storage.read_rows(shard.table, shard.start, shard.num_rows), **task
            )
        ]

    def inspect(self) -> None:
        """What stage `manifest` does."""
        plan = self.plan()
        inspector = ImageInspector(self.storage, {"d": self.source}, "attempts")
        for shard, path in list_missing(self.storage, plan):
            rows = self.storage.read_rows(shard.table, shard.start, shard.num_rows)
            inspector.work(rows, path, "d")
        finish_manifest(self.storage, plan)

    def plan_scores(self) -> list[ScorePlan]:
        start, rows = select_train(read_manifest(self.storage, "d"))
        shards = split_into_shards(rows, SHARD_SIZE, get_manifest_path("d"), start)
        return plan_scores(self.storage, self.jobs.values(), {"d": tuple(shards)})

    def score(self) -> None:
        """What stage `scores` does."""
        worker = ScoreWorker(self.storage, self.jobs, "cpu", 2, "attempts", 600)
        for plan in self.plan_scores():
            for shard, name in plan.missing:
                rows = self.storage.read_rows(shard.table, shard.start, shard.num_rows)
                worker.work(rows, {plan.job.name: f"{plan.job.directory}/{name}"})

    def list_scores(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for job in self.jobs.values():
            for name in sorted(self.storage.list_names(job.directory)):
                path = f"{job.directory}/{name}"
                yield path, self.storage.read_table(path).to_pylist()


@pytest.fixture(scope="module")
def in_two(root: Path) -> Pass:
    """Both stages, one after the other."""
    made = Pass(root, root / "two")
    made.inspect()
    made.score()
    return made


def test_one_pass_leaves_what_the_two_stages_leave(root: Path, in_two: Pass) -> None:
    at_once = Pass(root, root / "one")
    written = at_once.run_at_once()
    finish_manifest(at_once.storage, at_once.plan())
    assert read_manifest(at_once.storage, "d").equals(read_manifest(in_two.storage, "d"))
    assert dict(at_once.list_scores()) == dict(in_two.list_scores())
    assert not any(plan.missing for plan in at_once.plan_scores())
    counts = {
        name: sum(part.num_rows for part in written if part.job == name)
        for name in ("d", *at_once.jobs)
    }
    assert counts == {"d": NUM_TRAIN + NUM_TEST, **dict.fromkeys(at_once.jobs, NUM_TRAIN)}
    statuses = {row["status"] for _, rows in at_once.list_scores() for row in rows}
    assert {"ok", "decode_error", "too_small"} <= statuses


def test_an_interrupted_pass_goes_on_with_what_is_missing(root: Path, in_two: Pass) -> None:
    interrupted = Pass(root, root / "interrupted")
    interrupted.run_at_once()
    # As if the process had ended between a shard's scores and its rows of the manifest.
    plan = interrupted.plan()
    lost = plan.names[1]
    interrupted.storage.delete(f"{plan.directory}/{lost}")
    [(shard, task)] = interrupted.list_tasks()
    assert (shard.index, task["jobs"]) == (1, []), "its scores are there"
    [written] = interrupted.run_at_once()
    assert written == Written("d", SHARD_SIZE, written.num_failed)
    finish_manifest(interrupted.storage, plan)
    assert dict(interrupted.list_scores()) == dict(in_two.list_scores())


def test_scores_of_known_images_are_not_made_again(root: Path, in_two: Pass) -> None:
    """Another file among the test images makes the manifest anew, and nothing else."""
    more = Pass(root, root / "two")
    more.storage.write_bytes("scores/d/niqe/notes.txt", b"of a person")
    added = root / "images/val/ant/99.png"
    added.write_bytes((root / "images/val/ant/11.png").read_bytes())
    try:
        written = more.run_at_once()
        assert {part.job for part in written} == {"d"}
        finish_manifest(more.storage, more.plan())
        assert read_manifest(more.storage, "d").num_rows == NUM_TRAIN + NUM_TEST + 1
        assert not any(plan.missing for plan in more.plan_scores())
    finally:
        added.unlink()
        more.storage.delete("scores/d/niqe/notes.txt")
        in_two.inspect()


def test_a_shard_that_ended_a_process_is_only_inspected(root: Path) -> None:
    bad = Pass(root, root / "bad")
    (_, task), *_ = bad.list_tasks()
    folder = f"attempts/single_pass/{hash_strings([task['path']])[:16]}"
    bad.storage.write_json(f"{folder}/0000.json", {})  # what a process leaves that is killed
    written = bad.run_at_once()
    finish_manifest(bad.storage, bad.plan())
    assert sum(part.num_rows for part in written if part.job == "d") == NUM_TRAIN + NUM_TEST
    for plan in bad.plan_scores():
        assert [shard.index for shard, _ in plan.missing] == [0], "left for the stage `scores`"


def test_too_many_failures_stop_a_pass(root: Path) -> None:
    failing = Pass(root, root / "failing")
    written = [part for part in failing.run_at_once() if part.job == "d/niqe"]
    jobs = {name: (job, NUM_TRAIN) for name, job in failing.jobs.items()}
    limit = FailureLimit(failing.storage, jobs, max_failed_share=0.2)
    for part in written:
        limit(part)
    limit = FailureLimit(failing.storage, jobs, max_failed_share=0.1)
    first, second = (part for part in written if part.num_failed)
    limit(first)  # one of ten
    with pytest.raises(StudyError, match="2 of 10 images of 'd' have no niqe score"):
        limit(second)
