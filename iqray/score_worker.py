"""What a scoring process does with a shard: decode each image once, score it with every metric.

Reads image files, writes `scores/<dataset>/<metric>/<shard>.parquet`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from iqray import schemas
from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.images import DecodedImage, ImageFailure, check_unchanged, decode_image
from iqray.metrics.offline import go_offline
from iqray.metrics.registry import find_metric
from iqray.metrics.weights import MetricWeights
from iqray.storage import Storage

# Raise when a score would differ for the same image and weights.
SCORING_VERSION = 1

# Images are decoded until they hold this many pixels together, then scored: bounds the memory of
# a worker whatever the shard holds (64 Mpx are 0.2 GB of RGB).
_CHUNK_PIXELS = 64_000_000


@dataclass(frozen=True)
class ScoreJob:
    """What is to be scored, and how: one dataset with one metric."""

    dataset: str
    root: Path
    metric: str
    weights: MetricWeights
    small_images: str  # reject or upscale

    @property
    def directory(self) -> str:
        """Where the job's tables lie under the output root."""
        return f"scores/{self.dataset}/{self.metric}"

    @property
    def key(self) -> str:
        """Key of a score: equal keys and equal bytes give equal scores."""
        return hash_content(
            {
                "metric": self.metric,
                "pyiqa": version("pyiqa"),
                "pillow": version("pillow"),
                "weights": self.weights.sha256s,
                "small_images": self.small_images,
                "scoring": SCORING_VERSION,
            }
        )


class ScoreWorker:
    """Decodes the images of a shard once and scores them with every metric asked for.

    Args:
        storage: the output root.
        jobs: by name, `<dataset>/<metric>`.
        device: torch's name of it.
        num_threads: of torch on the CPU.
    """

    def __init__(
        self, storage: Storage, jobs: dict[str, ScoreJob], device: str, num_threads: int
    ) -> None:
        go_offline()  # before anything imports the hubs' libraries
        import torch

        from iqray.metrics.scorer import Scorer

        torch.set_num_threads(num_threads)
        self._storage = storage
        self._jobs = jobs
        weights = {job.metric: job.weights for job in jobs.values()}
        self._scorers = {
            metric: Scorer(metric_weights, device=device)
            for metric, metric_weights in weights.items()
        }

    def work(self, rows: pa.Table, files: str) -> int:
        """Score images and write one file per job.

        Args:
            rows: of the manifest, all of one dataset.
            files: JSON mapping of a job's name to the file for its rows.

        Returns:
            The number of score rows written.
        """
        paths: dict[str, str] = json.loads(files)
        jobs = {name: self._jobs[name] for name in paths}
        records: dict[str, list[dict[str, Any]]] = {name: [] for name in paths}
        root = next(iter(jobs.values())).root
        for chunk in _decode_in_chunks(rows.to_pylist(), root):
            for name, job in jobs.items():
                records[name].extend(self._score_chunk(chunk, job))
        for name, path in paths.items():
            table = pa.Table.from_pylist(records[name], schema=schemas.SCORES)
            self._storage.write_table(path, table)
        return rows.num_rows * len(paths)

    def _score_chunk(
        self, chunk: Sequence[tuple[dict[str, Any], DecodedImage | ImageFailure]], job: ScoreJob
    ) -> Iterator[dict[str, Any]]:
        pixels, notes = [], []
        for _, image in chunk:
            if isinstance(image, DecodedImage):
                fitted, note = _fit_smallest_side(image, job)
                pixels.append(fitted)
                notes.append(note)
        results = iter(zip(self._scorers[job.metric].score(pixels), notes, strict=True))
        for row, image in chunk:
            record = {**row, "metric": job.metric, "weights": job.weights.provenance, "note": ""}
            if isinstance(image, ImageFailure):
                yield {**record, "status": image.status, "reason": image.reason}
                continue
            result, note = next(results)
            yield {
                **record,
                "score": result.score,
                "status": result.status,
                "reason": result.reason,
                "note": note,
            }


def _decode_in_chunks(
    rows: list[dict[str, Any]], root: Path
) -> Iterator[list[tuple[dict[str, Any], DecodedImage | ImageFailure]]]:
    chunk: list[tuple[dict[str, Any], DecodedImage | ImageFailure]] = []
    num_pixels = 0
    for row in rows:
        image = _read_image(root / row["path"], row["sha256"])
        chunk.append((row, image))
        if isinstance(image, DecodedImage):
            num_pixels += image.pixels.shape[0] * image.pixels.shape[1]
        if num_pixels >= _CHUNK_PIXELS:
            yield chunk
            chunk, num_pixels = [], 0
    yield chunk


def _read_image(path: Path, sha256: str) -> DecodedImage | ImageFailure:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ImageFailure("missing", "no such file")
    except OSError as error:  # may be mended, so it must not be recorded as final
        raise StudyError(f"image '{path}' cannot be read: {error}") from error
    check_unchanged(path, data, sha256)
    return decode_image(data)


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
