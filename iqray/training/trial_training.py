"""Train one trial to its end: from its checkpoint, and a second time where it did not converge.

A training that diverges or stays at chance level (`iqray.training.convergence`) is begun once more
from the same initial weights, with the same images in the same order, at half the learning rate.
What still does not converge is kept and marked. A trial of no steps keeps its initial weights.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from iqray.finite import drop_non_finite
from iqray.packs.packing import PackedImages
from iqray.training.architectures import choose_memory_format
from iqray.training.checkpoints import Checkpoints, Progress
from iqray.training.convergence import compute_chance_loss, find_stall
from iqray.training.loop import LogRow, TrainOutcome, TrainState, train
from iqray.training.team import ALONE, Team
from iqray.trials import Trial

logger = logging.getLogger(__name__)

_MAX_ATTEMPTS = 2

# Of each attempt to the one before it.
_RATE_FACTOR = 0.5


@dataclass(frozen=True)
class TrainedTrial:
    """A trial's model after its last step, and how it came about.

    Attributes:
        model: of the last attempt, on the device.
        outcome: of the last attempt; without steps ok, and without a loss.
        progress: rows of all attempts, those that were given up, and seconds.
    """

    model: nn.Module
    outcome: TrainOutcome
    progress: Progress

    def describe(self) -> dict[str, Any]:
        """For the trial's result, as JSON types."""
        given_up = self.progress.given_up
        return {
            "status": self.outcome.status,
            "reason": self.outcome.reason,
            "num_steps": self.outcome.num_steps,
            "final_loss": drop_non_finite(self.outcome.final_loss),
            "train_s": self.progress.train_s,
            "num_restarts": len(given_up),
            "learning_rate_factor": _RATE_FACTOR ** len(given_up),
            "given_up": list(given_up),
        }


def train_trial(
    trial: Trial,
    data: PackedImages,
    create_model: Callable[[], nn.Module],
    device: torch.device,
    checkpoints: Checkpoints,
    team: Team = ALONE,
) -> TrainedTrial:
    """Train a trial from where its checkpoint stands.

    Args:
        trial: what to train.
        data: its training images; none are needed without steps.
        create_model: makes the untrained model, always the same.
        device: where to train.
        checkpoints: of this trial.
        team: the processes that share every batch; each calls this.

    Raises:
        RuntimeError: the processes of the team have read different checkpoints.
    """
    if not trial.num_steps:
        return _leave_untrained(trial, create_model(), device)
    progress = checkpoints.read()
    team.check_agreed("their checkpoint", _describe_position(progress))
    if progress != Progress():
        logger.info("trial %s continues: %s", trial.trial_id, _describe_position(progress))
    while True:
        attempt = _Attempt(trial, data, device, checkpoints, team, progress)
        model = create_model()
        outcome = attempt.train(model)
        progress = attempt.progress
        if outcome.status == "ok" or len(progress.given_up) + 1 == _MAX_ATTEMPTS:
            return TrainedTrial(model, outcome, progress)
        ended = {**asdict(outcome), "final_loss": drop_non_finite(outcome.final_loss)}
        progress = replace(progress, given_up=(*progress.given_up, ended), state=None)
        logger.warning("trial %s is trained again: %s", trial.trial_id, outcome.reason)
        checkpoints.write(progress)


def _leave_untrained(trial: Trial, model: nn.Module, device: torch.device) -> TrainedTrial:
    """The model as it is drawn; batch normalisation still has mean 0 and variance 1."""
    memory_format = choose_memory_format(trial.architecture, device)
    model = model.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    return TrainedTrial(model, TrainOutcome("ok", "", 0, math.nan), Progress())


class _Attempt:
    """One training of a trial from its initial weights to its end, possibly in several sittings."""

    def __init__(
        self,
        trial: Trial,
        data: PackedImages,
        device: torch.device,
        checkpoints: Checkpoints,
        team: Team,
        progress: Progress,
    ) -> None:
        self._trial = trial
        self._data = data
        self._device = device
        self._checkpoints = checkpoints
        self._team = team
        self._earlier = progress
        self._number = len(progress.given_up)
        self._rows = list(progress.rows)
        self._began = time.perf_counter()
        self._chance_loss = compute_chance_loss(
            data.targets, len(trial.categories), trial.recipe.label_smoothing
        )

    @property
    def progress(self) -> Progress:
        """As it stands now, without a state of the model."""
        elapsed_s = time.perf_counter() - self._began
        return replace(
            self._earlier,
            rows=tuple(self._rows),
            train_s=self._earlier.train_s + elapsed_s,
            state=None,
        )

    def train(self, model: nn.Module) -> TrainOutcome:
        """Train the model in place."""
        return train(
            model,
            self._data,
            self._trial.recipe,
            self._trial.architecture,
            self._trial.num_steps,
            self._trial.seed,
            self._device,
            self._log,
            start=self._earlier.state,
            after_step=self._keep,
            rate_factor=_RATE_FACTOR**self._number,
            team=self._team,
        )

    def _log(self, row: LogRow) -> str | None:
        finite = {name: drop_non_finite(value) for name, value in row.items()}
        self._rows.append({"attempt": self._number, **finite})
        if not math.isfinite(row["loss"]):
            return None  # the training itself stops and says at which step it diverged
        own = [other for other in self._rows if other["attempt"] == self._number]
        return find_stall(own, self._trial.recipe, self._trial.num_steps, self._chance_loss)

    def _keep(self, _step: int, capture: Callable[[], TrainState]) -> None:
        if self._checkpoints.is_due():
            self._checkpoints.write(replace(self.progress, state=capture()))


def _describe_position(progress: Progress) -> str:
    step = progress.state.step if progress.state else 0
    return f"attempt {len(progress.given_up) + 1}, step {step}"
