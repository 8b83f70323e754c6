"""The one training loop: a model, packed images and a recipe in; a trained model out.

It knows neither Ray nor the disk, so that every engine runs the same loop. Same data, recipe and
seed give the same weights, bit for bit on a CPU with a fixed number of threads, also when the
training was interrupted and continued from a `TrainState`.
"""

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from iqray.errors import StudyError
from iqray.packs.packing import PackedImages
from iqray.recipes import Recipe
from iqray.training.architectures import choose_memory_format
from iqray.training.augment import BatchStream, derive_step_seed
from iqray.training.loading import BatchLoader, BatchPlanner
from iqray.training.optimizer import create_optimizer, get_momenta, set_momenta
from iqray.training.tally import EpochTally, stack
from iqray.training.team import ALONE, Team

logger = logging.getLogger(__name__)

LogRow = dict[str, float]


@dataclass(frozen=True)
class TrainState:
    """Where a training stands after `step` steps; all there is to continue it.

    The tensors are the live ones, not copies: copy or write them before the next step. No
    generator state is here, since every step seeds its own.

    Attributes:
        step: optimizer steps done.
        model: state dict of the model.
        momenta: the optimizer's momentum by the parameter's name; its other settings are the
            recipe's.
        losses: (num_steps of the open epoch so far,) float32.
        num_correct: the same for the number of images whose top-1 was right.
    """

    step: int
    model: dict[str, torch.Tensor]
    momenta: dict[str, torch.Tensor]
    losses: torch.Tensor
    num_correct: torch.Tensor


@dataclass(frozen=True)
class TrainOutcome:
    """How a training ended.

    Attributes:
        status: `ok`, or `not_converged` when a loss or a weight became NaN or infinite, or `log`
            gave a reason to stop.
        reason: why it did not converge, such as `diverged at step 7`; else empty.
        num_steps: optimizer steps done.
        final_loss: mean training loss of the last epoch, nats; NaN after a divergence.
        seconds: wall time in this process.
    """

    status: str
    reason: str
    num_steps: int
    final_loss: float
    seconds: float = 0.0


def train(
    model: nn.Module,
    data: PackedImages,
    recipe: Recipe,
    architecture: str,
    num_steps: int,
    seed: int,
    device: torch.device,
    log: Callable[[LogRow], str | None],
    start: TrainState | None = None,
    after_step: Callable[[int, Callable[[], TrainState]], None] | None = None,
    rate_factor: float = 1.0,
    team: Team = ALONE,
) -> TrainOutcome:
    """Train a model in place, alone or as one of a team's processes.

    Batches come from `BatchStream`: always full, wrapping over the ends of epochs. Losses stay on
    the device until their epoch ends, so that no step waits for the host; a divergence is
    therefore noticed at the end of the epoch, and named with the step at which it began.

    `log` gets one row per epoch in which a step begins: `epoch` from 0; `step`, steps done so
    far; `loss`, mean over the epoch's steps of the main head's loss, label smoothing included,
    nats; `top1` on the augmented training images, in [0, 1]; `learning_rate` of the last step;
    `seconds` and `images_per_s` of the epoch in this process. In a team every process gets the same
    rows but for the times: losses and answers are those of whole batches.

    Args:
        model: ends on `device`, in training mode.
        data: the trial's training images.
        recipe: what to follow.
        architecture: a key of `recipe.architectures`.
        num_steps: optimizer steps in all, 1 or more.
        seed: of crops, flips, order and dropout.
        device: where to train.
        log: called with each epoch's row; what it returns, if anything, is a reason to stop.
        start: state to continue from, with `step` below `num_steps`; none to begin.
        after_step: called after every step but the last with the number of steps done and a
            function that captures the state.
        rate_factor: multiplies the recipe's learning rates.
        team: the processes that share every batch.

    Raises:
        StudyError: there are no training images.
    """
    if not len(data):
        raise StudyError("a trial has no training images; a subset needs at least one to train on")
    began = time.perf_counter()
    cuda = [device] if device.type == "cuda" else []
    stream = BatchStream(len(data), recipe.batch_size, seed, team.rank, team.size)
    input_px = recipe.architectures[architecture].input_px
    planner = BatchPlanner(stream, data.shapes, recipe, input_px)
    with (
        torch.random.fork_rng(devices=cuda),
        BatchLoader(data, planner, device) as loader,
    ):
        loop = _Loop(
            model, loader, planner, recipe, architecture, num_steps, device, rate_factor, team
        )
        outcome = _take_steps(loop, num_steps, log, start, after_step)
        if outcome.status == "ok" and recipe.recalibrate_batch_norm:
            loop.recalibrate_batch_norm()
    if outcome.status == "ok" and not _is_finite(model):
        outcome = _stop(f"diverged at step {num_steps}", num_steps, math.nan)
    return dataclasses.replace(outcome, seconds=time.perf_counter() - began)


def _take_steps(
    loop: "_Loop",
    num_steps: int,
    log: Callable[[LogRow], str | None],
    start: TrainState | None,
    after_step: Callable[[int, Callable[[], TrainState]], None] | None,
) -> TrainOutcome:
    """Take the steps that are left, until the last one or a reason to stop; see `train`."""
    tally = loop.restore(start) if start else EpochTally()
    for step in range(start.step if start else 0, num_steps):
        tally.add(*loop.run_step(step))
        if loop.ends_epoch(step):
            row = loop.describe_epoch(step, tally)
            reason = log(row)
            if not math.isfinite(row["loss"]):
                return _describe_divergence(tally, step)
            if reason:
                return _stop(reason, step + 1, row["loss"])
            tally = EpochTally()
        if after_step and step + 1 < num_steps:
            after_step(step + 1, functools.partial(loop.capture, step + 1, tally))
    return TrainOutcome("ok", "", num_steps, row["loss"])


class _Loop:
    """What stays the same over the steps of one training."""

    def __init__(
        self,
        model: nn.Module,
        loader: BatchLoader,
        planner: BatchPlanner,
        recipe: Recipe,
        architecture: str,
        num_steps: int,
        device: torch.device,
        rate_factor: float,
        team: Team,
    ) -> None:
        self.recipe = recipe
        self._architecture = architecture
        self._num_steps = num_steps
        self._loader = loader
        self._planner = planner
        self._device = device
        self._rate_factor = rate_factor
        self._team = team
        self._stream = planner.stream
        self._memory_format = choose_memory_format(architecture, device)
        self._model = model.to(device=device, memory_format=self._memory_format).train()  # type: ignore[call-overload]
        self._optimizer = create_optimizer(self._model, recipe)
        self._forward = team.join(self._model)

    def get_epoch(self, step: int) -> int:
        return self._stream.get_epoch(step)

    def get_learning_rate(self, step: int) -> float:
        rate = self.recipe.compute_learning_rate(self._architecture, step, self._num_steps)
        return rate * self._rate_factor

    def ends_epoch(self, step: int) -> bool:
        """Whether the next step begins in another epoch, or there is none."""
        return step + 1 == self._num_steps or self.get_epoch(step + 1) != self.get_epoch(step)

    def describe_epoch(self, step: int, tally: EpochTally) -> LogRow:
        """Row of the log for the epoch that ends with a step."""
        return {
            "epoch": self.get_epoch(step),
            "step": step + 1,
            **tally.summarise(self.recipe.batch_size),
            "learning_rate": self.get_learning_rate(step),
        }

    def run_step(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimizer step; the batch's loss and number of right answers, on the device."""
        images, targets = self._take_batch(step)
        _seed_generators(derive_step_seed(self._stream.seed, step, self._team.rank), self._device)
        for group in self._optimizer.param_groups:
            group["lr"] = self.get_learning_rate(step)
        logits, loss, objective = self._compute_loss(images, targets)
        objective.backward()
        clip_norm = self.recipe.architectures[self._architecture].clip_norm
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), clip_norm)
        self._optimizer.step()
        # Freed right away, so that gradients and the next step's activations never coexist.
        self._optimizer.zero_grad(set_to_none=True)
        num_correct = (logits.detach().argmax(1) == targets).sum()
        return self._team.combine(loss.detach(), num_correct)

    def recalibrate_batch_norm(self) -> None:
        """Average each batch normalisation's statistics over one more epoch of the stream.

        "Precise" batch normalisation (Wu and Johnson 2021): the running averages of training give
        the latest weights' statistics a weight of `1 - 0.9^steps` only.
        """
        norms = [module for module in self._model.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then keeps the plain mean over batches
        # Every process of a team takes whole batches here, and ends with the same statistics.
        whole = dataclasses.replace(self._stream, part=0, num_parts=1)
        self._loader.follow(dataclasses.replace(self._planner, stream=whole))
        num_batches = math.ceil(whole.num_images / self.recipe.batch_size) if norms else 0
        with torch.no_grad():
            for step in range(self._num_steps, self._num_steps + num_batches):
                self._model(self._take_batch(step)[0])
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def capture(self, step: int, tally: EpochTally) -> TrainState:
        """What `restore` needs, as it stands after a step."""
        return TrainState(
            step,
            self._model.state_dict(),
            get_momenta(self._optimizer, self._model),
            stack(tally.losses),
            stack(tally.num_correct),
        )

    def restore(self, state: TrainState) -> EpochTally:
        assert state.step < self._num_steps, "a finished training has no state to continue from"
        self._model.load_state_dict(state.model)
        set_momenta(self._optimizer, self._model, state.momenta)
        losses, num_correct = state.losses.to(self._device), state.num_correct.to(self._device)
        return EpochTally(list(losses), list(num_correct), num_restored=len(losses))

    def _take_batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, targets = self._loader.take(step)
        return images.contiguous(memory_format=self._memory_format), targets

    def _compute_loss(
        self, images: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits, the main head's loss, and what is minimised."""
        is_bf16 = self.recipe.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_bf16):
            output = self._forward(images)
        # Inception-v3 with its auxiliary head gives (logits, auxiliary logits) in training.
        logits, auxiliary = output if isinstance(output, tuple) else (output, None)
        smoothing = self.recipe.label_smoothing
        logits = logits.float()
        loss = functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        if auxiliary is None:
            return logits, loss, loss
        extra = functional.cross_entropy(auxiliary.float(), targets, label_smoothing=smoothing)
        return logits, loss, loss + self.recipe.auxiliary_weight * extra


def _seed_generators(seed: int, device: torch.device) -> None:
    # Not torch.manual_seed, which collects a stack trace for every device kind not in use.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _is_finite(model: nn.Module) -> bool:
    """Whether the last step, whose loss nobody has seen, left finite weights."""
    sums = torch.stack([parameter.detach().sum() for parameter in model.parameters()])
    return bool(sums.isfinite().all())


def _describe_divergence(tally: EpochTally, step: int) -> TrainOutcome:
    losses = stack(tally.losses).cpu().numpy()
    first = int(np.flatnonzero(~np.isfinite(losses))[0])
    diverged_at = step + 1 - len(losses) + first + 1
    return _stop(f"diverged at step {diverged_at}", step + 1, math.nan)


def _stop(reason: str, num_steps: int, final_loss: float) -> TrainOutcome:
    logger.warning("training stopped after %d steps: %s", num_steps, reason)
    return TrainOutcome("not_converged", reason, num_steps, final_loss)
