"""The networks of the metrics: pyiqa's classes, built and loaded without downloads or unpickling.

Reads the weight files that `iqray.metrics.weights` found, in the formats that pyiqa publishes:
a tuple of tensors (BRISQUE), a MATLAB file (NIQE), a TorchScript archive or state dict (CLIP), and
state dicts, bare or under the key `params` (CNN-IQA, DBCNN, MUSIQ).
"""

import contextlib
import io
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import scipy.io
import torch
from pyiqa.archs.arch_util import clean_state_dict
from pyiqa.archs.brisque_arch import BRISQUE
from pyiqa.archs.clip_imports import clip
from pyiqa.archs.clip_model import CLIP, build_model
from pyiqa.archs.clipiqa_arch import CLIPIQA
from pyiqa.archs.cnniqa_arch import CNNIQA
from pyiqa.archs.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from pyiqa.archs.dbcnn_arch import DBCNN, SCNN
from pyiqa.archs.musiq_arch import MUSIQ
from pyiqa.archs.niqe_arch import NIQE
from torch import nn
from torchvision.models.vgg import cfgs as vgg_layouts
from torchvision.models.vgg import make_layers

from iqray.errors import StudyError
from iqray.metrics.guards import forbid_network, forbid_unpickling, use_pyiqa_files
from iqray.metrics.nss_parameters import (
    NUM_NSS_FEATURES,
    read_brisque_parameters,
    read_niqe_parameters,
)
from iqray.metrics.tensor_files import MISFITS, explain_misfit, is_torchscript, read_tensors
from iqray.metrics.weights import MetricWeights

logger = logging.getLogger(__name__)

# pyiqa 0.1.16's five pairs of prompts for CLIP-IQA, the good one first. A test holds them against
# pyiqa's own network.
CLIPIQA_PROMPTS = (
    "Good image",
    "bad image",
    "Sharp image",
    "blurry image",
    "sharp edges",
    "blurry edges",
    "High resolution image",
    "low resolution image",
    "Noise-free image",
    "noisy image",
)

# ImageNet's channel means and deviations: the normalisation of DBCNN in pyiqa.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class OfflineClipiqa(CLIPIQA):
    """pyiqa's CLIP-IQA around a CLIP model that is already there; its constructor downloads one.

    As in pyiqa, `clip_model` is a list of one module, so `state_dict()` and `to()` pass it by.
    """

    def __init__(self, clip_model: CLIP) -> None:
        nn.Module.__init__(self)
        self.clip_model = [clip_model]
        self.prompt_pairs = clip.tokenize(list(CLIPIQA_PROMPTS))
        self.model_type = "clipiqa"
        self.pos_embedding = False
        self.default_mean = torch.tensor(OPENAI_CLIP_MEAN).view(1, 3, 1, 1)
        self.default_std = torch.tensor(OPENAI_CLIP_STD).view(1, 3, 1, 1)


class OfflineDbcnn(DBCNN):
    """pyiqa's DBCNN without its downloads of VGG16 and SCNN, which its checkpoint overwrites.

    Untrained weights follow torchvision's VGG (He initialisation), so activations keep their scale.
    """

    def __init__(self) -> None:
        nn.Module.__init__(self)
        vgg_layers = make_layers(vgg_layouts["D"], batch_norm=False)
        self.features1 = nn.Sequential(*list(vgg_layers)[:-1])  # without the last pooling
        self.features2 = SCNN(use_bn=True).features
        self.fc = nn.Linear(512 * 128, 1)  # outer product of the two branches' channels
        self.default_mean = torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1)
        self.default_std = torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.features1:
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
        nn.init.kaiming_normal_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)


def create_network(metric: str) -> nn.Module:
    """Build one of the paper's six networks, untrained, without any download.

    Random weights come from torch's global generator. BRISQUE and NIQE have no random part: they
    start with one support vector of weight 0 and with a standard Gaussian.

    Args:
        metric: brisque, clipiqa, cnniqa, dbcnn, musiq or niqe.

    Returns:
        pyiqa's own class (or a subclass that inherits its forward), in eval mode, float32, taking
        (num_images, 3, height, width) in [0, 1].

    Raises:
        KeyError: for any other metric; pyiqa alone knows how to build those.
    """
    return _CREATORS[metric]().eval()


def load_network(weights: MetricWeights) -> nn.Module:
    """Load a metric's network from its weight files, or through pyiqa where iqray knows no file.

    Args:
        weights: from `iqray.metrics.weights.find_weights`.

    Returns:
        Network in eval mode, float32, on the CPU, without gradients.

    Raises:
        StudyError: a file is missing on this node, has a wrong sum, is damaged, does not fit the
            network, would need unpickling, or was not prefetched.
    """
    folder = weights.locate()
    with forbid_network(weights.metric), forbid_unpickling():
        if weights.metric in _LOADERS:
            network = _LOADERS[weights.metric](folder / weights.names[0])
        else:
            network = _create_pyiqa_metric(weights.metric, folder)
    return network.eval().requires_grad_(False)


def _create_brisque(coefficients: torch.Tensor, vectors: torch.Tensor) -> BRISQUE:
    # pyiqa's constructor unpickles the file it is given, so it gets one made of tensors only.
    file = io.BytesIO()
    torch.save((coefficients, vectors), file)
    file.seek(0)
    return BRISQUE(pretrained_model_path=file)


def _create_clip_rn50() -> CLIP:
    # The published RN50: 224 px, 1024-d embeddings, a text tower 512 wide with 12 layers, 8 heads.
    return CLIP(
        embed_dim=1024,
        image_resolution=224,
        vision_layers=(3, 4, 6, 3),
        vision_width=64,
        vision_patch_size=None,
        context_length=77,
        vocab_size=49408,
        transformer_width=512,
        transformer_heads=8,
        transformer_layers=12,
    )


def _create_niqe(mean: np.ndarray, covariance: np.ndarray) -> NIQE:
    file = io.BytesIO()
    scipy.io.savemat(file, {"mu_prisparam": mean, "cov_prisparam": covariance})
    file.seek(0)
    return NIQE(pretrained_model_path=file)


_CREATORS: dict[str, Callable[[], nn.Module]] = {
    "brisque": lambda: _create_brisque(torch.zeros(1), torch.zeros(1, NUM_NSS_FEATURES)),
    "clipiqa": lambda: OfflineClipiqa(_create_clip_rn50()),
    "cnniqa": lambda: CNNIQA(pretrained=None),
    "dbcnn": OfflineDbcnn,
    "musiq": lambda: MUSIQ(pretrained=False),
    "niqe": lambda: _create_niqe(np.zeros(NUM_NSS_FEATURES), np.eye(NUM_NSS_FEATURES)),
}


def _load_brisque(path: Path) -> BRISQUE:
    parameters = read_brisque_parameters(path)
    return _create_brisque(parameters.coefficients, parameters.vectors)


def _load_clipiqa(path: Path) -> OfflineClipiqa:
    if is_torchscript(path):
        state = torch.jit.load(path, map_location="cpu").state_dict()
    else:
        state = read_tensors(path)
    with explain_misfit(path, "CLIP RN50"):
        # pyiqa's builder rounds the weights to float16, the precision they are published in.
        return OfflineClipiqa(build_model(dict(state)).float())


def _load_niqe(path: Path) -> NIQE:
    parameters = read_niqe_parameters(path)
    return _create_niqe(parameters.mean, parameters.covariance)


def _load_state(metric: str, path: Path) -> nn.Module:
    content = read_tensors(path)
    network = create_network(metric)
    with explain_misfit(path, type(network).__name__):
        network.load_state_dict(clean_state_dict(content.get("params", content)))
    return network


_LOADERS: dict[str, Callable[[Path], nn.Module]] = {
    "brisque": _load_brisque,
    "clipiqa": _load_clipiqa,
    "cnniqa": partial(_load_state, "cnniqa"),
    "dbcnn": partial(_load_state, "dbcnn"),
    "musiq": partial(_load_state, "musiq"),
    "niqe": _load_niqe,
}


def _create_pyiqa_metric(metric: str, folder: Path) -> nn.Module:
    """Any other metric, through pyiqa unchanged, with its files below the weights directory."""
    import pyiqa
    from pyiqa.utils import get_root_logger

    get_root_logger(log_level=logging.WARNING)
    printed = io.StringIO()
    try:
        with use_pyiqa_files(folder), contextlib.redirect_stdout(printed):
            network = pyiqa.create_metric(metric, device=torch.device("cpu"))
    except StudyError:
        raise
    except (*MISFITS, ImportError, OSError) as error:
        raise StudyError(
            f"pyiqa cannot load metric '{metric}' from {folder} ({type(error).__name__}: "
            f"{str(error)[:300]}); fetch its files again with jobs/prefetch_weights.py --metrics "
            f"{metric}"
        ) from error
    logger.debug("pyiqa: %s", printed.getvalue().strip())
    return network
