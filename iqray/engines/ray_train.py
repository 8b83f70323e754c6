"""Engine `ray_train`: a Tune actor that asks for nearly nothing drives Ray Train's workers.

Workers are started for each trial and share every batch. When one of them or its node is lost, Ray
Train starts the group anew and each process reads the trial's checkpoint from the study's storage,
which is the only state there is: nothing is reported to Ray Train, which would wait up to two
seconds each time. A node that is about to be taken away is a reason for a checkpoint at once.
"""

import logging
import math
import os
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from iqray.training.trial_runner import write_failure
from iqray.trials import Trial

logger = logging.getLogger(__name__)

# What Tune holds for a driver, which only waits: a byte, as it must be something. Were it a CPU,
# drivers could take what their own workers need, and all would wait for ever.
DRIVER_RESERVES = {"memory": 1}

# How often the workers of a trial ask whether a node is to be taken away, seconds. Notices come 30
# seconds (Google Cloud, Azure) or two minutes (AWS) ahead.
_NOTICE_CHECK_S = 5.0

# Starts of a worker group that may fail, each after waiting for its resources.
_MAX_GROUP_STARTS = 20

# Set for Ray Train where the environment does not say otherwise.
_ENVIRONMENT = {
    # Polls of the controller: what a trial's end waits for.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Trials may wait for each other's GPUs, and an autoscaler's nodes take minutes.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
    # Relative paths of the study mean the driver's folder.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@dataclass(frozen=True)
class WorkerGroup:
    """The workers of every trial, and how often a group may be lost."""

    num_workers: int
    num_cpus: float
    num_gpus: float
    max_failures: int


def train_with_workers(shared: Any, trial: Trial, group: WorkerGroup) -> str:
    """Run a trial with Ray Train; an error of its workers becomes a failure record.

    Args:
        shared: reference to the study's `TrialRunner` in Ray's object store.
        trial: what to run.
        group: its workers.

    Returns:
        Its status.
    """
    import ray

    os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    storage = ray.get(shared).storage
    # Ray Train keeps its own state here and finds none: continuing is the checkpoint's matter. The
    # folder is new each time, so that a name that was used before cannot bring anything back.
    with tempfile.TemporaryDirectory(prefix="iqray-train-") as folder:
        trainer = TorchTrainer(
            _train_worker,
            train_loop_config={"shared": shared, "trial": trial},
            scaling_config=ScalingConfig(
                num_workers=group.num_workers,
                use_gpu=group.num_gpus > 0,
                resources_per_worker={"CPU": group.num_cpus, "GPU": group.num_gpus},
            ),
            run_config=RunConfig(
                name=trial.trial_id,
                storage_path=folder,
                failure_config=FailureConfig(  # type: ignore[call-arg]  # mypy sees Train's V1
                    max_failures=group.max_failures, controller_failure_limit=_MAX_GROUP_STARTS
                ),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            reason = f"the trial's workers ended: {_find_cause(error)}"
            logger.exception("trial %s failed", trial.trial_id)
            write_failure(storage, trial.trial_id, reason, str(error))
            return "failed"
    # One process's failure record is a result too: the workers have returned.
    path = f"trials/{trial.trial_id}/result.json"
    return str(storage.read_json(path)["status"]) if storage.exists(path) else "failed"


def _train_worker(config: dict[str, Any]) -> None:
    """What each worker runs."""
    import ray
    import ray.train
    import ray.train.torch
    import torch

    from iqray.training.team import Team

    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # workers of a node see each other's GPUs
    context = ray.train.get_context()
    team = Team(context.get_world_rank(), context.get_world_size())
    ray.get(config["shared"]).run(config["trial"], team, _PreemptionNotice())


class _PreemptionNotice:
    """Tells once, to all workers after the same step, that a worker's node will be taken away.

    Asking is a round trip that all workers make together, so they agree each time on how many steps
    later they ask again: rank 0's steps in `_NOTICE_CHECK_S` seconds.
    """

    def __init__(self) -> None:
        self._num_steps = 0
        self._ask_at = 1
        self._asked_s = time.monotonic()
        self._asked_steps = 0
        self._known: list[str] = []

    def __call__(self) -> bool:
        self._num_steps += 1
        if self._num_steps < self._ask_at:
            return False
        import ray.train
        import ray.train.collective

        info = ray.train.get_preemption_info()
        self._ask_at = self._num_steps + ray.train.collective.broadcast_from_rank_zero(
            self._count_steps_to_wait()
        )
        self._asked_s, self._asked_steps = time.monotonic(), self._num_steps
        nodes = [] if info is None else info.preempted_node_ids
        is_new = bool(nodes) and nodes != self._known
        self._known = nodes
        if is_new:
            logger.warning("nodes %s will be taken away; writing a checkpoint", ", ".join(nodes))
        return is_new

    def _count_steps_to_wait(self) -> int:
        step_s = (time.monotonic() - self._asked_s) / (self._num_steps - self._asked_steps)
        return max(1, math.floor(_NOTICE_CHECK_S / max(step_s, 1e-6)))


def _find_cause(error: Exception) -> str:
    """First line that says what went wrong in a worker."""
    failures = getattr(error, "worker_failures", {})
    cause = next(iter(failures.values()), error)
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return lines[-1].strip() if lines else repr(cause)
