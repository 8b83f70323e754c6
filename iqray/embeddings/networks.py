"""Networks to embed with besides those of trials: untrained, torchvision's, the user's own.

Reads state dicts of torchvision's models; gives them as safetensors, and models made of them. Files
are never unpickled.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import torch
import torchvision
from safetensors.torch import load, save
from torch import nn

from iqray.errors import StudyError
from iqray.metrics.tensor_files import read_tensors
from iqray.training.architectures import create_model, find_last_linear

# Outputs of untrained networks: as many as torchvision's pretrained ones have. Only logits tell.
_NUM_UNTRAINED_OUTPUTS = 1000

# Heads that only training uses. A network embeds without it.
_AUXILIARY_HEAD = "AuxLogits."

# Where checkpoints of training loops keep the model's state: torchvision's references, Lightning.
_STATE_KEYS = ("model", "state_dict", "model_state_dict")

# What wrappers put before every name: DataParallel, torch.compile.
_PREFIXES = ("module.", "_orig_mod.")


def draw_untrained(architecture: str, input_px: int, seed: int) -> dict[str, torch.Tensor]:
    """State dict of an untrained network: weights that a trial of this seed might start from."""
    model = create_model(architecture, _NUM_UNTRAINED_OUTPUTS, input_px, seed)
    return _drop_auxiliary(model.state_dict())


def fetch_pretrained(architecture: str) -> dict[str, torch.Tensor]:
    """State dict of torchvision's network that was trained on ImageNet (`IMAGENET1K_V1`).

    Raises:
        StudyError: there is neither a file nor a network connection, or the file is damaged.
    """
    return _drop_auxiliary(fetch_published(get_pretrained_url(architecture)))


def get_pretrained_url(architecture: str) -> str:
    """Where torchvision publishes its network that was trained on ImageNet."""
    return str(torchvision.models.get_model_weights(architecture)["IMAGENET1K_V1"].url)


def fetch_published(url: str) -> dict[str, torch.Tensor]:
    """State dict of a file published for torch.hub, which keeps it in its folder of checkpoints.

    Args:
        url: ends in `<name>-<first 8 digits of the file's sha256>.pth`.

    Raises:
        StudyError: there is neither a file nor a network connection, or the file is damaged.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    try:
        state = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (URLError, OSError, RuntimeError) as error:
        raise StudyError(
            f"torchvision's weights '{file.name}' are not there and cannot be fetched ({error}); "
            f"put the file from {url} into {file.parent}"
        ) from error
    # torch.hub checks a file's sum when it fetches it, not when it finds it.
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    expected = file.stem.rsplit("-", 1)[-1]
    if not found.startswith(expected):
        raise StudyError(
            f"{file} has a wrong sha256: expected {expected}..., found {found}; remove the file to "
            "have it fetched again"
        )
    return dict(state)


def read_checkpoint(file: Path, architecture: str) -> dict[str, torch.Tensor]:
    """State dict of a user's network, checked to fit its architecture.

    Args:
        file: safetensors or a torch file; the state dict itself, or a checkpoint that holds it as
            `model`, `state_dict` or `model_state_dict`. Prefixes of DataParallel and torch.compile
            are dropped.
        architecture: that it must fit, with any number of outputs.

    Raises:
        StudyError: the file cannot be read without unpickling, or does not fit.
    """
    content = read_tensors(file)
    for key in _STATE_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise StudyError(f"checkpoint '{file}' holds no state dict of a model")
    state = _drop_auxiliary({_drop_prefixes(str(key)): value for key, value in content.items()})
    try:
        build_network(state, architecture, rescales_input=False)
    except StudyError as error:
        raise StudyError(f"checkpoint '{file}': {error}") from error
    return state


def build_network(
    state: Mapping[str, torch.Tensor], architecture: str, rescales_input: bool
) -> nn.Module:
    """Make the model that a state dict belongs to, with as many outputs as its last layer has.

    Args:
        state: of torchvision's model; of an auxiliary head nothing is used.
        architecture: its name in torchvision.
        rescales_input: see `iqray.embeddings.network_kinds.Network`.

    Raises:
        StudyError: the state dict is not of this architecture.
    """
    head = find_last_linear(build_empty(architecture))
    weight = state.get(f"{head}.weight")
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2:
        raise StudyError(f"it is no state dict of {architecture}: '{head}.weight' is missing")
    model = build_empty(architecture, len(weight), rescales_input)
    try:
        model.load_state_dict(_drop_auxiliary(state), assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise StudyError(f"it is no state dict of {architecture}: {reason}") from error
    return model


def build_empty(
    architecture: str, num_categories: int = 1000, rescales_input: bool = False
) -> nn.Module:
    """A model without an auxiliary head and without memory for its weights."""
    options: dict[str, Any] = {}
    if architecture == "inception_v3":
        options = {
            "aux_logits": False,
            "init_weights": False,
            "transform_input": rescales_input,
        }
    with torch.device("meta"):
        model: nn.Module = torchvision.models.get_model(
            architecture, weights=None, num_classes=num_categories, **options
        )
    return model


def encode_state(state: Mapping[str, torch.Tensor]) -> bytes:
    """A state dict as the bytes of a safetensors file."""
    return bytes(save({name: value.contiguous() for name, value in state.items()}))


def decode_state(data: bytes) -> dict[str, torch.Tensor]:
    """The reverse of `encode_state`."""
    return dict(load(data))


def _drop_auxiliary(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(_AUXILIARY_HEAD)}


def _drop_prefixes(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
