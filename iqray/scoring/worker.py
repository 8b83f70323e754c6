"""What a scoring process does with a shard: decode each image once, score it with every metric.

Reads image files, writes `scores/<dataset>/<metric>/<shard>.parquet`.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from iqray import schemas
from iqray.attempts import (
    Attempt,
    Exclusion,
    Step,
    Watchdog,
    begin_attempt,
    end_process_on,
)
from iqray.identity import hash_strings
from iqray.inputs.decoding import Loaded, decode, decode_in_chunks, read_images
from iqray.inputs.images import DecodedImage, ImageFailure
from iqray.inputs.sources import ImageSource
from iqray.metrics.offline import go_offline
from iqray.metrics.registry import find_metric
from iqray.pools import Written
from iqray.scoring.jobs import ScoreJob
from iqray.scoring.meters import ScoreMeters
from iqray.storage import Storage

logger = logging.getLogger(__name__)

_DECODE = "decoding"


@dataclass(frozen=True)
class Outcome:
    """An image's row but for the image itself; the fields are columns of `schemas.SCORES`."""

    score: float | None
    status: str
    reason: str
    note: str = ""


class ScoreWorker:
    """Decodes the images of a shard once and scores them with every metric asked for.

    Safe to call from several threads: they decode side by side, and score in turn on each device.

    Args:
        storage: the output root.
        jobs: by name.
        device: torch's name of it.
        num_threads: of torch on the CPU, and for decoding.
        attempts: folder under the output root for notes on shards that have been begun.
        max_image_s: how long an image, or a batch of them, may take before this process is ended
            and the image comes under suspicion.
    """

    def __init__(
        self,
        storage: Storage,
        jobs: dict[str, ScoreJob],
        device: str,
        num_threads: int,
        attempts: str,
        max_image_s: float,
    ) -> None:
        go_offline()  # before anything imports the hubs' libraries
        import torch

        from iqray.metrics.scorer import Scorer

        torch.set_num_threads(num_threads)
        self._storage = storage
        self._jobs = jobs
        self._num_threads = num_threads
        self._attempts = attempts
        self._watchdog = Watchdog(max_image_s)
        self.exclusion = Exclusion()
        self._turns = {name: threading.Lock() for name in {"cpu", device}}
        self._meters = ScoreMeters()
        by_metric = {job.metric: job for job in jobs.values()}
        self._scorers = {
            metric: Scorer(job.weights, device, job.precision) for metric, job in by_metric.items()
        }

    def work(self, rows: pa.Table, files: dict[str, str]) -> list[Written]:
        """Score images and write one file per job.

        Args:
            rows: of the manifest, all of one dataset.
            files: by a job's name, the file for its rows.
        """
        folder = f"{self._attempts}/{hash_strings(sorted(files.values()))[:16]}"
        jobs = [self._jobs[name] for name in files]
        with begin_attempt(self._storage, folder) as attempt:
            if attempt.is_first:
                chunks = decode_in_chunks(rows, jobs[0].source, self._num_threads)
                outcomes = self.score_chunks(chunks, jobs)
            else:
                # Alone: what another thread does must not end the process in this one's step.
                with self.exclusion.alone():
                    outcomes = self._score_step_by_step(rows, jobs, attempt)
            return [self.write(rows, job, outcomes[job.name], files[job.name]) for job in jobs]

    def score_chunks(
        self, chunks: Iterable[Sequence[Loaded]], jobs: Sequence[ScoreJob]
    ) -> dict[str, list[Outcome]]:
        """Score images as they come, in batches.

        Args:
            chunks: decoded images, as many at a time as memory holds.
            jobs: all of one dataset.

        Returns:
            By a job's name an outcome for every image, in order.
        """
        outcomes: dict[str, list[Outcome]] = {job.name: [] for job in jobs}
        self._set_threads()
        with self.exclusion.together(), self._watching(), end_process_on(_list_process_errors()):
            for loaded in chunks:
                for job in jobs:
                    outcomes[job.name].extend(self._score(loaded, job))
                self._watchdog.rearm()
        return outcomes

    def _set_threads(self) -> None:
        import torch

        # The thread that calls takes torch's number from the process, where others have set theirs.
        torch.set_num_threads(self._num_threads)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        self._watchdog.rearm()
        try:
            yield
        finally:
            self._watchdog.disarm()

    def _score_step_by_step(
        self, rows: pa.Table, jobs: Sequence[ScoreJob], attempt: Attempt
    ) -> dict[str, list[Outcome]]:
        """One image after another, every step noted: a process has died on the shard before."""
        logger.warning("a process has ended on a shard; try %d goes step by step", attempt.number)
        outcomes: dict[str, dict[int, Outcome]] = {job.name: {} for job in jobs}
        self._set_threads()
        with self._watching():
            for index in attempt.order(rows.num_rows):
                self._watchdog.rearm()
                with _noting(attempt, Step(index, _DECODE)) as failure:
                    loaded = failure or _decode_alone(rows.slice(index, 1), jobs[0].source)
                for job in jobs:
                    with _noting(attempt, Step(index, job.metric)) as failure:
                        [outcomes[job.name][index]] = self._score([failure or loaded], job)
        return {name: [own[i] for i in range(rows.num_rows)] for name, own in outcomes.items()}

    def _score(self, loaded: Sequence[Loaded], job: ScoreJob) -> list[Outcome]:
        """Score decoded images, in this thread's turn on the metric's device."""
        scorer = self._scorers[job.metric]
        self._watchdog.disarm()
        with self._turns[scorer.device]:
            self._watchdog.rearm()
            started_s = time.monotonic()
            fitted = [
                _fit_smallest_side(image, job)
                for image in loaded
                if isinstance(image, DecodedImage)
            ]
            scores = scorer.score([pixels for pixels, _ in fitted], self._watchdog.rearm)
            results = iter(zip(scores, fitted, strict=True))
            outcomes = []
            for image in loaded:
                if isinstance(image, ImageFailure):
                    outcomes.append(Outcome(None, image.status, image.reason))
                else:
                    result, (_, note) = next(results)
                    outcomes.append(Outcome(result.score, result.status, result.reason, note))
            statuses = [outcome.status for outcome in outcomes]
            self._meters.count(job.dataset, job.metric, statuses, started_s)
        return outcomes

    def write(
        self, rows: pa.Table, job: ScoreJob, outcomes: Sequence[Outcome], path: str
    ) -> Written:
        """Write a job's rows.

        Args:
            rows: of the manifest.
            job: that was done.
            outcomes: one per row.
            path: of the file.
        """
        columns: dict[str, Any] = {name: rows[name] for name in schemas.IMAGE_COLUMN_NAMES}
        for name in ("score", "status", "reason", "note"):
            columns[name] = [getattr(outcome, name) for outcome in outcomes]
        constants = {"metric": job.metric, "precision": job.precision}
        constants["weights"] = job.weights.provenance
        for name, value in constants.items():
            columns[name] = [value] * len(outcomes)
        self._storage.write_table(path, pa.table(columns, schema=schemas.SCORES))
        num_failed = sum(outcome.status != "ok" for outcome in outcomes)
        return Written(job.name, len(outcomes), num_failed, path)


def _decode_alone(row: pa.Table, source: ImageSource) -> Loaded:
    """Read and decode the image of a table's only row."""
    [encoded] = read_images(row, source)
    return decode(encoded)


def _list_process_errors() -> tuple[type[BaseException], ...]:
    from iqray.metrics.scorer import PROCESS_ERRORS

    return PROCESS_ERRORS


@contextmanager
def _noting(attempt: Attempt, step: Step) -> Iterator[ImageFailure | None]:
    """Note a step before it is done; gives the failure of one that is not to be tried again."""
    if not attempt.enter(step):
        yield ImageFailure("crashed", attempt.explain(step))
        return
    with end_process_on(_list_process_errors(), attempt, step):
        yield None


def _fit_smallest_side(image: DecodedImage, job: ScoreJob) -> tuple[np.ndarray, str]:
    """Pixels for a metric: native, or enlarged to its smallest side where the study says so."""
    height, width, _ = image.pixels.shape
    smallest = find_metric(job.metric).min_side_px
    if job.small_images != "upscale" or min(height, width) >= smallest:
        return image.pixels, image.note
    factor = smallest / min(height, width)
    size = (max(smallest, round(width * factor)), max(smallest, round(height * factor)))
    enlarged = Image.fromarray(image.pixels).resize(size, Image.Resampling.BICUBIC)
    note = f"upscaled from {width} x {height} px"
    return np.asarray(enlarged), f"{image.note}, {note}" if image.note else note
