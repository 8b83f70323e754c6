import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from iqray.attempts import Attempt, Exclusion, Step, begin_attempt
from iqray.dataset import Dataset
from iqray.errors import StudyError
from iqray.inputs.image_root import ImageRoot
from iqray.inputs.inspection import ImageInspector
from iqray.inputs.listing import list_images
from iqray.inputs.sources import ImageSource
from iqray.pools import Pool, PoolSize, Written, run_pools
from iqray.scoring.plans import build_score_pool, complete_scores
from iqray.scoring.worker import ScoreWorker
from iqray.shards import split_into_shards
from iqray.storage import Storage
from tests.test_scoring import ATTEMPTS, NUM_IMAGES, TABLE, Bench, read_rows

STEP = Step(3, "musiq")


def die_in(storage: Storage, *steps: Step, reason: str = "") -> None:
    """Leave the notes of a process that entered steps and ended in the last one."""
    attempt = begin_attempt(storage, "notes").__enter__()
    for step in steps:
        attempt.enter(step, reason)


def look(storage: Storage) -> Attempt:
    """The attempt that the next process would make."""
    with begin_attempt(Storage(storage.root), "notes") as attempt:
        return attempt


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def test_a_shard_that_nobody_died_on_is_not_gone_through_step_by_step(storage: Storage) -> None:
    for _ in range(2):
        assert look(storage).is_first  # and its notes are gone


def test_a_step_is_given_up_when_two_processes_have_ended_in_it(storage: Storage) -> None:
    die_in(storage)
    die_in(storage, Step(1, "musiq"), STEP, reason="OutOfMemoryError: 3 GiB")
    attempt = begin_attempt(storage, "notes").__enter__()
    assert not attempt.is_first
    assert attempt.order(5) == [3, 0, 1, 2, 4]
    assert attempt.enter(STEP)  # one death may have had another cause, so this process tries

    attempt = begin_attempt(storage, "notes").__enter__()
    assert not attempt.enter(STEP)
    assert attempt.enter(Step(1, "musiq"))
    assert attempt.enter(Step(3, "niqe"))
    assert "musiq failed 2 times: OutOfMemoryError: 3 GiB" in attempt.explain(STEP)


def test_an_error_keeps_the_notes(storage: Storage) -> None:
    with pytest.raises(RuntimeError), begin_attempt(storage, "notes"):
        raise RuntimeError
    assert not look(storage).is_first


@pytest.mark.parametrize(
    ("steps", "code"),
    [("dog.rearm(); time.sleep(20)", 1), ("dog.rearm(); dog.disarm(); time.sleep(1.5)", 0)],
)
def test_watchdog_ends_what_hangs_and_nothing_else(steps: str, code: int) -> None:
    program = f"import time; from iqray.attempts import Watchdog; dog = Watchdog(0.5); {steps}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == code


def test_processes_that_end_outside_of_any_step_are_not_started_for_ever(storage: Storage) -> None:
    for _ in range(6):
        die_in(storage)
    with pytest.raises(StudyError, match="6 processes have ended on the same images"):
        begin_attempt(storage, "notes").__enter__()


def test_who_is_under_suspicion_works_alone() -> None:
    exclusion, events = Exclusion(), []
    both_work = threading.Barrier(3)  # passed only by two who work together, and this thread
    may_end = threading.Event()

    def work_together(name: str) -> None:
        with exclusion.together():
            events.append(f"{name} begins")
            if name != "c":
                both_work.wait(10)
                may_end.wait(10)
            events.append(f"{name} ends")

    def work_alone() -> None:
        with exclusion.alone():
            events.append("suspect begins")
            events.append("suspect ends")

    def start(work: Callable[..., None], *arguments: str) -> None:
        threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        threads[-1].start()

    threads: list[threading.Thread] = []
    for name in "ab":
        start(work_together, name)
    both_work.wait(10)
    start(work_alone)
    await_true(lambda: exclusion._num_waiting == 1)
    start(work_together, "c")
    may_end.set()
    for thread in threads:
        thread.join(10)
    assert sorted(events[:2]) == ["a begins", "b begins"]
    assert sorted(events[2:4]) == ["a ends", "b ends"]
    assert events[4:6] == ["suspect begins", "suspect ends"]
    assert events[6:] == ["c begins", "c ends"]


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class PoisonedScorer:
    """Scores through the real one, but images of one width kill or hang the process."""

    def __init__(self, scorer, kill_px: int, hang_px: int) -> None:
        self._scorer, self._kill_px, self._hang_px = scorer, kill_px, hang_px
        self.device = scorer.device

    def score(self, images, report):
        for image in images:
            if image.shape[1] == self._kill_px:
                os._exit(139)
            if image.shape[1] == self._hang_px:
                time.sleep(600)
        return self._scorer.score(images, report)


class PoisonedWorker(ScoreWorker):
    """Its second metric cannot stand two of the images."""

    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
        self._scorers["cnniqa"] = PoisonedScorer(self._scorers["cnniqa"], kill_px=77, hang_px=78)


class PoisonedInspector(ImageInspector):
    """Stands in for a decoder that an image crashes."""

    def _inspect(self, row, data):
        if row["path"].endswith("bee/1.jpg"):
            os._exit(139)
        return super()._inspect(row, data)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """14 images, two of them of the widths that PoisonedWorker cannot stand."""
    import ray.cloudpickle

    import tests.test_attempts

    ray.cloudpickle.register_pickle_by_value(tests.test_attempts)
    made = Bench(tmp_path)
    rng = np.random.default_rng(5)
    for path, width in (("train/bee/1.jpg", 77), ("train/cat/0.jpg", 78)):
        pixels = rng.integers(0, 256, (60, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made.images / path)
    made.refresh()
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_images_that_kill_or_hang_a_process_are_found_and_the_rest_is_scored(bench: Bench) -> None:
    plans = bench.plan(metrics=("brisque", "cnniqa"), shard_size=7)
    pool = build_score_pool(bench.storage, plans, PoolSize(2, 2), ATTEMPTS, max_image_s=8)
    written: list[Written] = []
    run_pools(
        [
            Pool(
                pool.name,
                pool.size,
                pool.storage,
                PoisonedWorker,
                pool.worker_arguments,
                pool.tasks,
            )
        ],
        written.append,
    )

    assert sum(part.num_rows for part in written) == 2 * NUM_IMAGES
    for plan in bench.plan(metrics=("brisque", "cnniqa"), shard_size=7):
        complete_scores(bench.storage, plan, max_failed_share=1)
    rows = read_rows(bench.storage, "cnniqa")
    for path in ("train/bee/1.jpg", "train/cat/0.jpg"):
        assert rows[path]["status"] == "crashed"
        assert rows[path]["reason"] == "cnniqa failed 2 times: the process ended each time"
        assert read_rows(bench.storage, "brisque")[path]["status"] == "ok"
    others = {row["status"] for path, row in rows.items() if "bee/1" not in path}
    assert sum(row["status"] == "crashed" for row in rows.values()) == 2
    assert others == {"ok", "decode_error", "crashed"}
    alone = bench.score_alone("cnniqa", "train/cat/2.jpg")
    assert rows["train/cat/2.jpg"]["score"] == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_an_image_that_kills_its_decoder_is_in_the_manifest(bench: Bench) -> None:
    source = ImageSource(ImageRoot(str(bench.images)))
    dataset = Dataset(name="d", root=str(bench.images), test=None)
    listing = list_images(dataset, source.root)
    rows = listing.append_column("dataset", pa.repeat("d", listing.num_rows))
    bench.storage.write_table(TABLE, rows)
    [shard] = split_into_shards(rows, NUM_IMAGES, TABLE)
    task = (shard, {"path": "rows.parquet", "dataset": "d"})
    arguments = {"storage": bench.storage, "sources": {"d": source}, "attempts": ATTEMPTS}
    size = PoolSize(1, 1)
    run_pools(
        [Pool("Inspect", size, bench.storage, PoisonedInspector, arguments, [task])],
        lambda _: None,
    )

    rows = {row["path"]: row for row in bench.storage.read_table("rows.parquet").to_pylist()}
    assert len(rows) == NUM_IMAGES
    assert rows["train/bee/1.jpg"]["status"] == "crashed"
    assert rows["train/bee/2.jpg"]["status"] == "ok"
