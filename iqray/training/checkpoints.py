"""Checkpoints of a trial that is being trained, so that an interruption costs minutes.

Writes `trials/<trial_id>/checkpoint/`: `state.json` (rows of the log, attempts that did not
converge, seconds spent) and the tensors that it names with their sha256. The tensors are written
first and the JSON is replaced last, so that what it names is whole. The folder goes when the trial
has its result.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from iqray.errors import StudyError
from iqray.storage import Storage
from iqray.training.loop import TrainState
from iqray.trials import get_checkpoint_folder

logger = logging.getLogger(__name__)

# Raise when older checkpoints cannot be continued.
_VERSION = 1


@dataclass(frozen=True)
class Progress:
    """How far the training of a trial has come.

    Attributes:
        rows: of the log, over all attempts; a loss that was not finite is none.
        given_up: attempts that did not converge: how each ended.
        train_s: seconds of training so far, over all processes that took part one after another.
        state: of the open attempt; none where it has not begun.
    """

    rows: tuple[Mapping[str, float | None], ...] = ()
    given_up: tuple[Mapping[str, Any], ...] = ()
    train_s: float = 0.0
    state: TrainState | None = None


class Checkpoints:
    """Keeps the latest checkpoint of a trial.

    Args:
        storage: the study's output root.
        trial_id: whose checkpoint it is.
        every_s: seconds between checkpoints; 0 for one after every step.
        is_writer: false in processes of a team that only read.
        is_leaving: tells after each step whether this machine is about to be taken away, in which
            case a checkpoint is due now. Called by every process of a team.
    """

    def __init__(
        self,
        storage: Storage,
        trial_id: str,
        every_s: float,
        is_writer: bool = True,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self._storage = storage
        self._folder = get_checkpoint_folder(trial_id)
        self._every_s = every_s
        self._is_writer = is_writer
        self._is_leaving = is_leaving
        self._written_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time for the next one; asked once after each step."""
        is_leaving = self._is_leaving()
        is_late = time.monotonic() - self._written_at >= self._every_s
        return self._is_writer and (is_leaving or is_late)

    def write(self, progress: Progress) -> None:
        """Replace the checkpoint; where the storage refuses, training goes on without."""
        if not self._is_writer:
            return
        self._written_at = time.monotonic()
        try:
            self._write(progress)
        except (StudyError, OSError, pa.ArrowException) as error:
            folder = self._storage.describe(self._folder)
            logger.warning("no checkpoint could be written to '%s': %s", folder, error)

    def read(self) -> Progress:
        """The latest checkpoint; an empty one where there is none or it is damaged."""
        path = f"{self._folder}/state.json"
        if not self._storage.exists(path):
            return Progress()
        try:
            return self._read(self._storage.read_json(path))
        except (OSError, pa.ArrowException, ValueError, KeyError, SafetensorError) as error:
            logger.warning(
                "the checkpoint in '%s' is damaged (%s: %s); its trial starts anew",
                self._storage.describe(self._folder),
                type(error).__name__,
                error,
            )
            return Progress()

    def _write(self, progress: Progress) -> None:
        content: dict[str, Any] = {
            "version": _VERSION,
            "rows": progress.rows,
            "given_up": progress.given_up,
            "train_s": progress.train_s,
            "state": None,
        }
        names = {"state.json"}
        if progress.state is not None:
            data = _pack(progress.state)
            name = f"{len(progress.given_up)}-{progress.state.step}.safetensors"
            names.add(name)
            self._storage.write_bytes(f"{self._folder}/{name}", data)
            content["state"] = {
                "file": name,
                "step": progress.state.step,
                "num_bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        self._storage.write_json(f"{self._folder}/state.json", content)
        for outdated in self._storage.list_names(self._folder) - names:
            self._storage.delete(f"{self._folder}/{outdated}")

    def _read(self, content: dict[str, Any]) -> Progress:
        if content["version"] != _VERSION:
            raise ValueError(f"it has version {content['version']}, not {_VERSION}")
        state = None
        if content["state"] is not None:
            named = content["state"]
            data = self._storage.read_bytes(f"{self._folder}/{named['file']}")
            if len(data) != named["num_bytes"]:
                raise ValueError(f"{named['file']} has {len(data)} bytes, not {named['num_bytes']}")
            if hashlib.sha256(data).hexdigest() != named["sha256"]:
                raise ValueError(f"{named['file']} has another sha256 than state.json says")
            state = _unpack(named["step"], load(data))
        return Progress(
            tuple(content["rows"]), tuple(content["given_up"]), content["train_s"], state
        )


def _pack(state: TrainState) -> bytes:
    tensors = {
        "losses": state.losses,
        "num_correct": state.num_correct,
        **{f"model/{name}": value for name, value in state.model.items()},
        **{f"momentum/{name}": value for name, value in state.momenta.items()},
    }
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def _unpack(step: int, tensors: dict[str, torch.Tensor]) -> TrainState:
    def select(kind: str) -> dict[str, torch.Tensor]:
        return {
            name.removeprefix(kind): value
            for name, value in tensors.items()
            if name.startswith(kind)
        }

    return TrainState(
        step, select("model/"), select("momentum/"), tensors["losses"], tensors["num_correct"]
    )
