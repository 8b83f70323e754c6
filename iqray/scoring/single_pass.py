"""Inspect and score in one pass: an image is read and decoded once for its manifest row and scores.

Writes what `iqray.inputs.inspection` and `iqray.scoring.worker` write, under the same names, so
that nothing later can tell the difference.
"""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from iqray import schemas
from iqray.attempts import begin_attempt
from iqray.identity import hash_strings
from iqray.inputs.decoding import Loaded
from iqray.inputs.inspection import ImageInspector, Record, inspect_in_chunks
from iqray.inputs.sources import ImageSource
from iqray.pools import Written
from iqray.scoring.jobs import ScoreJob
from iqray.scoring.worker import ScoreWorker
from iqray.shards import Shard, replace_content
from iqray.storage import Storage


class SinglePassWorker:
    """Inspects the images of a shard and scores them with every metric asked for.

    A shard on which a process has died is only inspected: scoring finds the image to blame.

    Args:
        storage: the output root.
        sources: of the images, by dataset.
        jobs: by name.
        device: torch's name of it.
        num_threads: of torch on the CPU, and for decoding.
        attempts: folder under the output root for notes on shards that have been begun.
        max_image_s: as of `ScoreWorker`.
    """

    def __init__(
        self,
        storage: Storage,
        sources: Mapping[str, ImageSource],
        jobs: dict[str, ScoreJob],
        device: str,
        num_threads: int,
        attempts: str,
        max_image_s: float,
    ) -> None:
        self._storage = storage
        self._jobs = jobs
        self._num_threads = num_threads
        self._attempts = f"{attempts}/single_pass"
        self._inspector = ImageInspector(storage, sources, f"{attempts}/inspection")
        self._scorer = ScoreWorker(
            storage, jobs, device, num_threads, f"{attempts}/scores", max_image_s
        )

    def work(
        self, rows: pa.Table, path: str, dataset: str, index: int, jobs: Sequence[str]
    ) -> list[Written]:
        """Write the images' rows of the manifest, and before these one file per job.

        Args:
            rows: of a listing.
            path: for rows of the manifest; where it exists, the scores do.
            dataset: of the images.
            index: of the shard.
            jobs: names; none where the images are not scored.
        """
        folder = f"{self._attempts}/{hash_strings([path])[:16]}"
        if not jobs or self._storage.list_names(folder):
            # Alone: what another thread does must not end the process in this one's step.
            with self._scorer.exclusion.alone():
                return self._inspector.work(rows, path, dataset)
        with begin_attempt(self._storage, folder):
            return self._inspect_and_score(rows, path, index, [self._jobs[name] for name in jobs])

    def _inspect_and_score(
        self, rows: pa.Table, path: str, index: int, jobs: Sequence[ScoreJob]
    ) -> list[Written]:
        records: list[Record] = []

        def decode() -> Iterator[Sequence[Loaded]]:
            for own, loaded in inspect_in_chunks(rows, jobs[0].source, self._num_threads):
                records.extend(own)
                yield loaded

        outcomes = self._scorer.score_chunks(decode(), jobs)
        manifest = pa.Table.from_pylist(records, schema=schemas.MANIFEST)
        shard = replace_content(Shard(path, index, 0, manifest.num_rows, ""), manifest)
        written = [
            self._scorer.write(
                manifest, job, outcomes[job.name], f"{job.directory}/{shard.name_file(job.key)}"
            )
            for job in jobs
        ]
        self._storage.write_table(path, manifest)  # last: a shard that is inspected is scored
        num_failed = sum(record["status"] != "ok" for record in records)
        return [*written, Written(jobs[0].dataset, manifest.num_rows, num_failed)]
