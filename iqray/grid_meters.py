"""What Ray's dashboard and Prometheus show of the grid: cells done, and how long trials take.

All are made in the job's own process, which lasts as long as the grid. Ray exports them on that
node's metrics port with `ray_` before their names.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from iqray.grid import EndedTrial
from iqray.trials import Cell, Trial


class GridMeters:
    """Meters of one study's grid.

    Args:
        study: its name.
        cells: all cells.
        trials: the distinct trials that fill them, by id.
        finished: ids of trials that have a result.
    """

    def __init__(
        self,
        study: str,
        cells: Iterable[Cell],
        trials: Mapping[str, Trial],
        finished: Collection[str],
    ) -> None:
        from ray.util import metrics

        self._trials = trials
        self._num_cells = Counter(cell.trial_id for cell in cells)
        self._num_done = sum(self._num_cells[trial_id] for trial_id in finished)
        self._done = metrics.Gauge(
            "iqray_cells_done", "Cells of the grid whose trial has a result.", ("study",)
        )
        self._total = metrics.Gauge("iqray_cells", "Cells of the grid.", ("study",))
        self._ended = metrics.Counter(
            "iqray_trials_total",
            "Trials that ended, by architecture and status.",
            ("study", "architecture", "status"),
        )
        # Not a histogram: on the way to the port Ray takes the middle of a bucket for its values.
        self._seconds = metrics.Counter(
            "iqray_trial_s_total",
            "Seconds of trials that ended, waiting for their workers included.",
            ("study", "architecture"),
        )
        self._tags = {"study": study}
        self._total.set(self._num_cells.total(), self._tags)
        self._done.set(self._num_done, self._tags)

    def count(self, ended: EndedTrial) -> None:
        """Count a trial that ended, and the cells that it fills."""
        tags = {**self._tags, "architecture": self._trials[ended.trial_id].architecture}
        self._ended.inc(1, {**tags, "status": ended.status})
        if ended.seconds is not None:
            self._seconds.inc(ended.seconds, tags)
        if ended.status != "failed":
            self._num_done += self._num_cells[ended.trial_id]
            self._done.set(self._num_done, self._tags)
