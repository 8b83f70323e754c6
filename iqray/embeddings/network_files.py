"""Bring networks that no trial trains into the output root, where every node can read them.

Reads torchvision's published weights and the user's checkpoints; writes
`networks/<name>.safetensors` and, last, `networks/<name>.json`, which says what is in it.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from iqray.embeddings.network_kinds import Network
from iqray.errors import StudyError
from iqray.filesystems import describe_uri
from iqray.identity import compute_sha256, hash_content
from iqray.run import get_versions
from iqray.settings.embedding import CHECKPOINT, PRETRAINED, UNTRAINED, Checkpoint
from iqray.storage import Storage
from iqray.study import Study

if TYPE_CHECKING:
    import torch

_State = dict[str, "torch.Tensor"]

_SUFFIXES = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class _Offer:
    """A network that can be made, and how."""

    name: str
    kind: str
    architecture: str
    content: object  # changes with the weights
    make: Callable[[], _State]
    seed: int | None = None
    rescales_input: bool = False

    @property
    def key(self) -> str:
        """Of the network's weights and what they are of."""
        return hash_content([self.architecture, self.kind, self.content])

    @property
    def record(self) -> str:
        """Path of the file that says what of it is in the output root."""
        return f"networks/{self.name}.json"


def provide_networks(study: Study, storage: Storage) -> list[Network]:
    """Make the study's untrained and pretrained networks and copy its checkpoints, once.

    Raises:
        StudyError: published weights cannot be had, or a checkpoint cannot be read or does not fit.
    """
    return [_keep(storage, offer) for offer in _list_offers(study)]


def check_networks(study: Study, storage: Storage, *, fetches: bool = True) -> None:
    """Check that published weights can be had, that checkpoints fit, and that layers exist.

    What the output root has already is not made again.

    Args:
        study: whose networks are checked.
        storage: its output root.
        fetches: whether networks are wanted now. If not, published weights are left alone, and
            of checkpoints behind URIs is asked only whether they are there.

    Raises:
        StudyError: at the first mistake.
    """
    if study.embeddings.is_empty:
        return
    from iqray.embeddings.layers import check_layer
    from iqray.embeddings.networks import build_empty

    used = {checkpoint.architecture for checkpoint in study.embeddings.checkpoints}
    for architecture in sorted({*study.architectures, *used}):
        for layer in study.embeddings.list_layers(architecture):
            try:
                check_layer(build_empty(architecture), layer)
            except StudyError as error:
                raise StudyError(f"embeddings.layers, {architecture}: {error}") from error
    for checkpoint in study.embeddings.checkpoints:
        _check_is_there(checkpoint)
    for offer in _list_offers(study, fetches=fetches):
        if offer.kind != UNTRAINED and not _is_kept(storage, offer):
            offer.make()


def _list_offers(study: Study, *, fetches: bool = True) -> Iterator[_Offer]:
    settings = study.embeddings
    if settings.is_empty:
        return
    for architecture in study.architectures:
        if UNTRAINED in settings.networks:
            yield from (_offer_untrained(study, architecture, seed) for seed in study.seeds)
        if PRETRAINED in settings.networks and fetches:
            yield _offer_pretrained(architecture)
    for checkpoint in settings.checkpoints:
        if fetches or "://" not in checkpoint.file:
            yield _offer_checkpoint(checkpoint)


def _offer_untrained(study: Study, architecture: str, seed: int) -> _Offer:
    from iqray.embeddings.networks import draw_untrained

    input_px = study.recipe.architectures[architecture].input_px
    return _Offer(
        name=f"{UNTRAINED}-{architecture}-s{seed}",
        kind=UNTRAINED,
        architecture=architecture,
        content=[seed, get_versions()],
        make=lambda: draw_untrained(architecture, input_px, seed),
        seed=seed,
    )


def _offer_pretrained(architecture: str) -> _Offer:
    from iqray.embeddings.networks import fetch_pretrained, get_pretrained_url

    return _Offer(
        name=f"{PRETRAINED}-{architecture}",
        kind=PRETRAINED,
        architecture=architecture,
        content=get_pretrained_url(architecture),  # which has the first digits of a sum
        make=lambda: fetch_pretrained(architecture),
        rescales_input=architecture == "inception_v3",
    )


def _offer_checkpoint(checkpoint: Checkpoint) -> _Offer:
    from iqray.embeddings.networks import read_checkpoint

    def make() -> _State:
        with _open_checkpoint(checkpoint) as file:
            return read_checkpoint(file, checkpoint.architecture)

    with _open_checkpoint(checkpoint) as file:
        sha256 = compute_sha256(file)
    return _Offer(checkpoint.name, CHECKPOINT, checkpoint.architecture, sha256, make)


@contextmanager
def _open_checkpoint(checkpoint: Checkpoint) -> Iterator[Path]:
    """A local file with the checkpoint's content.

    Raises:
        StudyError: there is none.
    """
    _check_is_there(checkpoint)
    if "://" not in checkpoint.file:
        yield Path(checkpoint.file).expanduser()
        return
    root, _, name = checkpoint.file.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="iqray-") as folder:
        target = Path(folder) / name
        try:
            Storage(root).copy_to_local(name, target)
        except (OSError, pa.ArrowInvalid) as error:
            raise _refuse(checkpoint, str(error)) from error
        yield target


def _check_is_there(checkpoint: Checkpoint) -> None:
    """Check a checkpoint's kind and place, without reading it.

    Raises:
        StudyError: it is not there, or of a kind that is not read.
    """
    if not checkpoint.file.endswith(_SUFFIXES):
        raise StudyError(
            f"checkpoint '{describe_uri(checkpoint.file)}' must end in {', '.join(_SUFFIXES)}; "
            "save the model's state dict with torch.save or safetensors"
        )
    if "://" not in checkpoint.file:
        is_there = Path(checkpoint.file).expanduser().is_file()
    else:
        root, _, name = checkpoint.file.rpartition("/")
        try:
            is_there = Storage(root).exists(name)
        except (OSError, pa.ArrowInvalid) as error:
            raise _refuse(checkpoint, str(error)) from error
    if not is_there:
        raise _refuse(checkpoint, "no such file")


def _refuse(checkpoint: Checkpoint, reason: str) -> StudyError:
    return StudyError(
        f"checkpoint '{describe_uri(checkpoint.file)}' of '{checkpoint.name}' cannot be read "
        f"({reason}); correct its path in embeddings.checkpoints"
    )


def _is_kept(storage: Storage, offer: _Offer) -> bool:
    """Whether the output root has the network."""
    return storage.exists(offer.record) and storage.read_json(offer.record)["key"] == offer.key


def _keep(storage: Storage, offer: _Offer) -> Network:
    key, path, record = offer.key, f"networks/{offer.name}.safetensors", offer.record
    if not _is_kept(storage, offer):
        from iqray.embeddings.networks import encode_state

        if storage.exists(record):
            storage.delete(record)  # it must not vouch for the weights that are written next
        storage.write_bytes(path, encode_state(offer.make()))
        described = {"key": key, "kind": offer.kind, "architecture": offer.architecture}
        storage.write_json(record, described)
    return Network(
        offer.name,
        offer.kind,
        offer.architecture,
        path,
        key,
        seed=offer.seed,
        rescales_input=offer.rescales_input,
    )
