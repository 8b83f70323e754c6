"""Run the grid's unfinished trials with Ray Tune, in processes that are reused between trials.

A finished trial has a `result.json`; a trial that failed has a `failure.json` with its error and
is tried again by the next submit. Nothing depends on Tune's own state.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iqray.storage import Storage
from iqray.trial_runner import TrialRunner, write_failure
from iqray.trials import Trial, order_longest_first

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GridResources:
    """What one trial may use, and how many run at once."""

    num_concurrent: int
    num_cpus: float = 1
    num_gpus: float = 0
    max_retries: int = 1


def run_trials(
    trials: Sequence[Trial],
    runner: TrialRunner,
    resources: GridResources,
    name: str,
    report: Callable[[int], None],
) -> None:
    """Train every trial given; one that fails does not stop the others.

    Args:
        trials: unfinished trials.
        runner: what a process does with a trial.
        resources: per trial, and the cap on concurrent trials.
        name: of the experiment.
        report: called with 1 for each trial that has ended, finished or failed.
    """
    if not trials:
        return
    # Tune's per-trial loggers write three files and a TensorBoard log that nobody reads here.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    # An interrupt must reach the job; Tune would take the first one and return as if finished.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    from ray import tune

    by_id = {trial.trial_id: trial for trial in order_longest_first(trials)}
    trainable = tune.with_parameters(_make_trainable(), runner=runner, trials=by_id)
    with tempfile.TemporaryDirectory(prefix="iqray-tune-") as folder:
        results = tune.Tuner(
            tune.with_resources(trainable, {"CPU": resources.num_cpus, "GPU": resources.num_gpus}),
            param_space={"trial_id": tune.grid_search(list(by_id))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=resources.num_concurrent,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["trial_id"],
                trial_dirname_creator=lambda trial: trial.config["trial_id"],
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(Path(folder).resolve()),
                verbose=0,
                callbacks=[_make_reporter(report)],
                failure_config=tune.FailureConfig(max_failures=resources.max_retries),
            ),
        ).fit()
    for index in range(len(results)):
        result = results[index]
        if result.error is not None and result.config is not None:
            _record_crash(runner.storage, result.config["trial_id"], result.error)


def _record_crash(storage: Storage, trial_id: str, error: BaseException) -> None:
    reason = f"the trial's process ended: {str(error).splitlines()[0] if str(error) else error!r}"
    logger.error("trial %s: %s", trial_id, reason)
    write_failure(storage, trial_id, reason, str(error))


def _make_trainable() -> type:
    """The Tune trainable; made in a function so that importing this module does not import Ray."""
    from ray import tune

    class TrainOnSubset(tune.Trainable):  # type: ignore[misc]
        """One process that runs trial after trial."""

        def setup(
            self,
            config: dict[str, Any],  # noqa: ARG002  Tune keeps it as self.config
            **shared: Any,
        ) -> None:
            self._runner: TrialRunner = shared["runner"]
            self._trials: dict[str, Trial] = shared["trials"]

        def step(self) -> dict[str, Any]:
            trial = self._trials[self.config["trial_id"]]
            return {"status": self._runner.run(trial), "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:  # noqa: ARG002
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing: what a trial has done lies in the study's storage."""

        def load_checkpoint(self, checkpoint: Any) -> None:
            """Nothing to load."""

    return TrainOnSubset


def _make_reporter(report: Callable[[int], None]) -> Any:
    from ray import tune

    class Reporter(tune.Callback):  # type: ignore[misc]
        """Counts trials that have ended."""

        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            report(1)

        def on_trial_error(self, *_: Any, **__: Any) -> None:
            report(1)

    return Reporter()
