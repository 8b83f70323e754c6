"""Engine `in_trial`: a Tune actor trains one trial after another in its own process.

Nothing is started for a trial, so that one costs little beyond its training. One process per trial.
"""

import functools
from typing import Any

from iqray.trials import Trial


def train_here(shared: Any, trial: Trial) -> str:
    """Run a trial in this process.

    Args:
        shared: reference to the study's `TrialRunner` in Ray's object store.
        trial: what to run.

    Returns:
        Its status.
    """
    return str(_fetch(shared).run(trial))


@functools.lru_cache(maxsize=1)  # the process is reused, and so are the tables in it
def _fetch(shared: Any) -> Any:
    import ray

    return ray.get(shared)
