"""Images without a score: how many a study bears, and when it stops."""

from collections import Counter, defaultdict
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from iqray.errors import StudyError
from iqray.metrics.registry import find_metric
from iqray.pools import Written
from iqray.scoring.jobs import ScoreJob
from iqray.storage import Storage

_OUTCOME = ["category", "status", "reason"]


class FailureLimit:
    """Counts what jobs have written, and stops them when too many images have failed.

    Args:
        storage: the output root.
        jobs: by name, each with the number of its images.
        max_failed_share: of a job's images.
    """

    def __init__(
        self, storage: Storage, jobs: Mapping[str, tuple[ScoreJob, int]], max_failed_share: float
    ) -> None:
        self._storage = storage
        self._jobs = jobs
        self._max_failed_share = max_failed_share
        self._num_failed: Counter[str] = Counter()
        self._files: dict[str, list[str]] = defaultdict(list)  # with failures

    def __call__(self, written: Written) -> None:
        """Count a job's shard.

        Raises:
            StudyError: naming the worst categories and the commonest reason.
        """
        if not written.num_failed:
            return
        self._num_failed[written.job] += written.num_failed
        self._files[written.job].append(written.path)
        job, num_images = self._jobs[written.job]
        if self._num_failed[written.job] > self._max_failed_share * num_images:
            rows = self._storage.read_tables(self._files[written.job], _OUTCOME)
            check_failures(rows, job, num_images, self._max_failed_share)


def predict_failures(rows: pa.Table, job: ScoreJob) -> pa.Table:
    """Category, status and reason that images will have at least, from their manifest.

    Args:
        rows: of the manifest.
        job: to score them.
    """
    smallest = find_metric(job.metric).min_side_px
    is_small = pc.less(pc.min_element_wise(rows["width"], rows["height"]), smallest)
    if job.small_images == "upscale":
        is_small = pa.scalar(False)
    fails = pc.fill_null(pc.and_(is_small, pc.equal(rows["status"], "ok")), False)
    reason = f"{job.metric} needs {smallest} px"
    return pa.table(
        {
            "category": rows["category"],
            "status": pc.if_else(fails, "too_small", rows["status"]),
            "reason": pc.if_else(fails, reason, rows["reason"]),
        }
    )


def check_failures(rows: pa.Table, job: ScoreJob, num_images: int, max_failed_share: float) -> None:
    """Check that few enough of a job's images have failed.

    Args:
        rows: score rows so far, or rows of the manifest: category, status and reason count.
        job: that was to score them.
        num_images: that the job has in all.
        max_failed_share: of all images.

    Raises:
        StudyError: naming the worst categories and the commonest reason.
    """
    failed = rows.filter(pc.not_equal(rows["status"], "ok"))
    share = failed.num_rows / max(1, num_images)
    if share <= max_failed_share:
        return
    categories = Counter(failed["category"].to_pylist()).most_common(3)
    reasons = Counter(zip(failed["status"].to_pylist(), failed["reason"].to_pylist(), strict=True))
    (status, reason), _ = reasons.most_common(1)[0]
    raise StudyError(
        f"{failed.num_rows} of {num_images} images of '{job.dataset}' have no {job.metric} "
        f"score ({share:.1%}; scoring.max_failed_share is {max_failed_share:.1%}), most in "
        + ", ".join(f"'{name}' ({count})" for name, count in categories)
        + f"; most often {status}: {reason}. Repair or remove the images (all are listed in "
        f"{job.directory}), or raise scoring.max_failed_share"
    )
