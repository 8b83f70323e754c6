"""torchvision's unmodified architectures, with weights that depend on the seed alone.

Reads nothing but, where a caller keeps one, a folder of initial weights; see `InitialWeights`.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from iqray.errors import StudyError
from iqray.recipes import ARCHITECTURES, INCEPTION_AUX_MIN_PX, MIN_INPUT_PX

# Architectures whose convolutions run faster with channels-last tensors on a CPU. Measured with
# torch 2.15 on one thread, time of a step in the default layout over that in channels-last:
# Inception-v3 at 75 px, batch 16: 1.0 to 2.0; ResNet-50 at 32 and 40 px: 0.7 to 1.7 without a
# clear winner; AlexNet and VGG16, whose time is in linear layers: 0.6 to 1.0.
_CPU_CHANNELS_LAST = frozenset({"inception_v3"})


@dataclass(frozen=True)
class InitialWeights:
    """Initial weights kept as files, for the trials and processes of one machine to share.

    Drawing weights costs 1.4 to 1.9 s for VGG16 and 0.3 s for the others, reading them back 0.1 s
    (one thread, torch 2.15, file in the page cache). The numbers are the same. A file's name
    carries everything that they depend on; the folder keeps the `max_files` newest.

    Attributes:
        folder: on a local disk; made when the first weights are kept.
        max_files: at most this many are kept (VGG16: 0.54 GB each).
    """

    folder: Path
    max_files: int = 8

    def load(self, name: str) -> dict[str, torch.Tensor] | None:
        """State dict kept under a name, as tensors of the caller's own; none when there is none."""
        try:
            state: dict[str, torch.Tensor] = torch.load(
                self._path(name), weights_only=True, map_location="cpu"
            )
        except FileNotFoundError:
            return None
        return state

    def keep(self, name: str, state: dict[str, torch.Tensor]) -> None:
        """Keep a state dict under a name: written whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix=f".{name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                torch.save(state, file)
            Path(temporary).replace(self._path(name))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._evict()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _evict(self) -> None:
        # A process that has already opened a file reads on after it is unlinked.
        newest_first = sorted(self.folder.glob("[!.]*.pt"), key=_sort_newest_first)
        for path in newest_first[self.max_files :]:
            path.unlink(missing_ok=True)


def create_model(
    architecture: str,
    num_categories: int,
    input_px: int,
    seed: int,
    initial_weights: InitialWeights | None = None,
) -> nn.Module:
    """Create an untrained model on the CPU; the same arguments give the same weights.

    torchvision's own initialisation, drawn from a generator seeded with `seed`, whatever ran
    before in the process; torch's global generator is left as it was. Inception-v3 is drawn from
    torchvision's truncated normal (`init_weights=True`) and has its auxiliary head only where the
    input is large enough for it (`INCEPTION_AUX_MIN_PX`).

    Args:
        architecture: one of `ARCHITECTURES`.
        num_categories: outputs of the head, 2 or more.
        input_px: side of the square network input, pixels.
        seed: of the weights.
        initial_weights: where to find and keep them; none draws them anew.

    Raises:
        StudyError: unknown architecture, or an input too small for it.
    """
    _check_input(architecture, input_px)
    if initial_weights is None:
        return _draw(architecture, num_categories, input_px, seed)
    name = (
        f"{architecture}-k{num_categories}-aux{int(_has_auxiliary(architecture, input_px))}"
        f"-s{seed}-torch{torch.__version__}-torchvision{torchvision.__version__}"
    )
    state = initial_weights.load(name)
    if state is None:
        model = _draw(architecture, num_categories, input_px, seed)
        initial_weights.keep(name, model.state_dict())
        return model
    with torch.device("meta"):
        model = _build(architecture, num_categories, input_px)
    model.load_state_dict(state, assign=True)
    return model


def choose_memory_format(architecture: str, device: torch.device) -> torch.memory_format:
    """Memory order of weights and inputs in which an architecture trains fastest on a device."""
    if device.type == "cuda" or architecture in _CPU_CHANNELS_LAST:
        return torch.channels_last
    return torch.contiguous_format


def find_last_linear(model: nn.Module) -> str:
    """Name of the model's last Linear layer, the classifier; an auxiliary head does not count.

    Raises:
        StudyError: the model has no Linear layer.
    """
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith("AuxLogits.")
    ]
    if not names:
        raise StudyError(
            f"{type(model).__name__} has no Linear layer to take embeddings from; name a layer, "
            "or take 'logits'"
        )
    return names[-1]


def _check_input(architecture: str, input_px: int) -> None:
    if architecture not in ARCHITECTURES:
        raise StudyError(
            f"unknown architecture '{architecture}'; choose from {', '.join(ARCHITECTURES)}"
        )
    smallest = MIN_INPUT_PX[architecture]
    if input_px < smallest:
        raise StudyError(
            f"input_px {input_px} is too small for {architecture}, which needs {smallest} px; "
            "raise input_px in the recipe"
        )


def _draw(architecture: str, num_categories: int, input_px: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _build(architecture, num_categories, input_px)


def _build(architecture: str, num_categories: int, input_px: int) -> nn.Module:
    options: dict[str, Any] = {}
    if architecture == "inception_v3":
        options = {
            "aux_logits": _has_auxiliary(architecture, input_px),
            "init_weights": True,
            "transform_input": False,
        }
    model: nn.Module = torchvision.models.get_model(
        architecture, weights=None, num_classes=num_categories, **options
    )
    return model


def _has_auxiliary(architecture: str, input_px: int) -> bool:
    return architecture == "inception_v3" and input_px >= INCEPTION_AUX_MIN_PX


def _sort_newest_first(path: Path) -> float:
    """Key of a file: minus its modification time; last if another process has removed it."""
    try:
        return -path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
