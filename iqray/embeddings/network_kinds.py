"""What a network is known by; apart from `networks`, so that naming one needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A network that images are embedded with. Cheap to pickle.

    Attributes:
        name: unique in a study, safe as a file name; of a trained network the trial's id.
        kind: trials, untrained, pretrained or checkpoint.
        architecture: one of `iqray.recipes.ARCHITECTURES`.
        path: of its state dict under the output root, safetensors.
        key: changes with its weights.
        dataset: that its trial trained on; none unless it is a trial's.
        seed: of its trial, or that its untrained weights were drawn with; else none.
        rescales_input: whether it wants pixels in [-1, 1] rather than normalised by ImageNet's mean
            and deviation. Only torchvision's pretrained Inception-v3 does.
    """

    name: str
    kind: str
    architecture: str
    path: str
    key: str
    dataset: str | None = None
    seed: int | None = None
    rescales_input: bool = False
