"""What Ray's dashboard and Prometheus show of scoring: counters and rates by metric and dataset.

Ray exports them on every node's metrics port with `ray_` before their names.
"""

import time
from collections import Counter
from collections.abc import Sequence


class ScoreMeters:
    """Meters of one scoring process; all processes of a cluster add up."""

    def __init__(self) -> None:
        from ray.util import metrics

        tags = ("metric", "dataset")
        self._scored = metrics.Counter(
            "iqray_images_scored_total", "Images with a score, by metric and dataset.", tags
        )
        self._failed = metrics.Counter(
            "iqray_image_failures_total",
            "Images without a score, by metric, dataset and status.",
            (*tags, "status"),
        )
        self._rate = metrics.Gauge(
            "iqray_images_per_s",
            "Images a second of one process while it scores with a metric (decoding left out).",
            tags,
        )

    def count(self, dataset: str, metric: str, statuses: Sequence[str], started_s: float) -> None:
        """Count images.

        Args:
            dataset: their dataset.
            metric: they were scored with.
            statuses: of each, from `schemas.IMAGE_STATUSES`.
            started_s: when scoring them began, by `time.monotonic`.
        """
        tags = {"metric": metric, "dataset": dataset}
        for status, number in Counter(statuses).items():
            if status == "ok":
                self._scored.inc(number, tags)
            else:
                self._failed.inc(number, {**tags, "status": status})
        elapsed_s = time.monotonic() - started_s
        if statuses and elapsed_s > 0:
            self._rate.set(len(statuses) / elapsed_s, tags)
