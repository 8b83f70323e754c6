"""Run the grid's unfinished trials with Ray Tune, through one of the two engines.

A finished trial has a `result.json`; a trial that failed has a `failure.json` with its error and
is tried again by the next submit. Nothing depends on Tune's own state.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from iqray.engines.in_trial import train_here
from iqray.engines.ray_train import DRIVER_RESERVES, WorkerGroup, train_with_workers
from iqray.errors import StudyError
from iqray.settings.training import Engine
from iqray.storage import Storage
from iqray.training.trial_runner import TrialRunner, write_failure
from iqray.trials import Trial, order_longest_first

logger = logging.getLogger(__name__)

_MISTAKE = "mistake"  # what a trial reports that has met one of the study's


@dataclass(frozen=True)
class GridResources:
    """What each trial may use, how many run at once, and on which engine.

    Attributes:
        num_concurrent: trials at once.
        num_cpus: per worker of a trial.
        num_gpus: per worker, by architecture; those not named use none.
        num_workers: of a trial; 1 with engine `in_trial`.
        max_retries: of a trial whose process or node is lost.
        engine: see `iqray.engines`.
    """

    num_concurrent: int
    num_cpus: float = 1
    num_gpus: Mapping[str, float] = field(default_factory=dict)
    num_workers: int = 1
    max_retries: int = 1
    engine: Engine = "in_trial"

    def start_trial(self, shared: Any, trial: Trial) -> str:
        """Run a trial on the engine; returns its status. `shared` refers to a `TrialRunner`."""
        if self.engine == "in_trial":
            return train_here(shared, trial)
        num_gpus = self.num_gpus.get(trial.architecture, 0)
        group = WorkerGroup(self.num_workers, self.num_cpus, num_gpus, self.max_retries)
        return train_with_workers(shared, trial, group)

    def reserve_for_tune(self, trial: Trial) -> dict[str, float]:
        """What Tune itself holds for a trial; Ray Train's workers are not among it."""
        if self.engine == "ray_train":
            return dict(DRIVER_RESERVES)
        return {"CPU": self.num_cpus, "GPU": self.num_gpus.get(trial.architecture, 0)}


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended.

    Attributes:
        trial_id: which.
        status: ok, not_converged or failed.
        seconds: from its start to its end, waiting for workers included; none where its process
            was lost.
    """

    trial_id: str
    status: str
    seconds: float | None


def run_trials(
    trials: Sequence[Trial],
    runner: TrialRunner,
    resources: GridResources,
    name: str,
    report: Callable[[EndedTrial], None],
) -> None:
    """Train every trial given; one that fails does not stop the others.

    Args:
        trials: unfinished trials.
        runner: what a process does with a trial.
        resources: per trial, and the cap on concurrent trials.
        name: of the experiment.
        report: called with each trial that has ended, finished or failed.

    Raises:
        StudyError: the output root refuses to be written; the other trials are stopped.
    """
    if not trials:
        return
    _set_environment()
    import ray
    from ray import tune

    by_id = {trial.trial_id: trial for trial in order_longest_first(trials)}
    # Put into the object store once; a node fetches it when the first trial there needs it.
    start = partial(resources.start_trial, ray.put(runner))
    trainable = tune.with_parameters(_make_trainable(), start=start, trials=by_id)
    with tempfile.TemporaryDirectory(prefix="iqray-tune-") as folder:
        results = tune.Tuner(
            tune.with_resources(
                trainable,
                lambda config: tune.PlacementGroupFactory(
                    [resources.reserve_for_tune(by_id[config["trial_id"]])]
                ),
            ),
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
                stop=_make_stopper(),
                callbacks=[_make_reporter(report)],
                failure_config=tune.FailureConfig(max_failures=resources.max_retries),
            ),
        ).fit()
    _judge_ended([results[index] for index in range(len(results))], runner.storage)


def _set_environment() -> None:
    """What Ray Tune reads as it is imported or starts."""
    # Tune's per-trial loggers write three files and a TensorBoard log that nobody reads here.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    # An interrupt must reach the job; Tune would take the first one and return as if finished.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Paths of the study are relative to where the job was started.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")


def _judge_ended(results: Sequence[Any], storage: Storage) -> None:
    """Record trials whose process ended.

    Raises:
        StudyError: a trial has met one, which every other would have met as well.
    """
    for result in results:
        if result.metrics and _MISTAKE in result.metrics:
            raise StudyError(result.metrics[_MISTAKE])
    for result in results:
        if result.error is not None and result.config is not None:
            _record_crash(storage, result.config["trial_id"], result.error)


def _record_crash(storage: Storage, trial_id: str, error: BaseException) -> None:
    reason = f"the trial's process ended: {str(error).splitlines()[0] if str(error) else error!r}"
    logger.error("trial %s: %s", trial_id, reason)
    write_failure(storage, trial_id, reason, str(error))


def _make_trainable() -> type:
    """The Tune trainable; made in a function so that importing this module does not import Ray."""
    from ray import tune

    class TrainOnSubset(tune.Trainable):  # type: ignore[misc]
        """One process that runs, or drives, trial after trial."""

        def setup(
            self,
            config: dict[str, Any],  # noqa: ARG002  Tune keeps it as self.config
            **shared: Any,
        ) -> None:
            self._start: Callable[[Trial], str] = shared["start"]
            self._trials: dict[str, Trial] = shared["trials"]

        def step(self) -> dict[str, Any]:
            trial = self._trials[self.config["trial_id"]]
            try:
                return {"status": self._start(trial), "done": True}
            except StudyError as error:  # not even a failure can be written
                return {"status": "failed", _MISTAKE: str(error), "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:  # noqa: ARG002
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing: what a trial has done lies in the study's storage."""

        def load_checkpoint(self, checkpoint: Any) -> None:
            """Nothing to load."""

    return TrainOnSubset


def _make_stopper() -> Any:
    from ray import tune

    class StopAtMistake(tune.Stopper):  # type: ignore[misc]
        """Stops all trials when one has met what every other would meet as well."""

        def __init__(self) -> None:
            self._is_met = False

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
            self._is_met = self._is_met or _MISTAKE in result
            return False

        def stop_all(self) -> bool:
            return self._is_met

    return StopAtMistake()


def _make_reporter(report: Callable[[EndedTrial], None]) -> Any:
    from ray import tune

    class Reporter(tune.Callback):  # type: ignore[misc]
        """Tells of trials that have ended."""

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:  # noqa: ARG002
            result = trial.last_result  # of the one step that is the whole trial
            seconds = result["time_this_iter_s"]
            report(EndedTrial(trial.config["trial_id"], result["status"], seconds))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:  # noqa: ARG002
            report(EndedTrial(trial.config["trial_id"], "failed", None))

    return Reporter()
