"""Fits the demo's CLIP-IQA: a seeded CLIP ResNet-50 whose text side is solved in closed form.

Writes `RN50.pt`, a state dict as pyiqa reads it. The image tower has the published sizes. The text
tower is narrow (64 instead of 512 wide, 1 block instead of 12): it reads ten fixed prompts.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pyiqa.archs.clip_model import CLIP

from iqray.demo.backbones import (
    draw_filters,
    pass_channels,
    round_to_half,
    seed_torch,
    to_tensor,
)
from iqray.demo.fit_images import draw_fit_images
from iqray.demo.solvers import solve_ridge
from iqray.demo.weight_files import halve, write_weight_file
from iqray.distortions import Pixels
from iqray.metrics.networks import OfflineClipiqa

NUM_CLIPIQA_IMAGES = 80
EMBEDDING_DIM = 1024  # of the published RN50
TEXT_WIDTH = 64
# Deviation over the fit images of the logit between a good and a bad prompt: large enough to use
# the range of the score, small enough that sigmoids of 3 deviations do not all round to 1.
LOGIT_SD = 1.5


@torch.no_grad()
def fit_clipiqa(directory: Path, seed: int) -> None:
    """Fit CLIP-IQA: prompts of a pair lie on either side along the direction of quality.

    Embeddings of the fit images are centred (by the bias of the last projection) and regressed on
    quality, which gives a direction. The text projection is then solved so that the good prompt
    of each pair embeds as `c + direction`, and the bad one as `c - direction`, with c at right
    angles to it. The score is a mean of probabilities, higher is better.

    Args:
        directory: where the file goes.
        seed: of the backbone and the fit images.
    """
    fit = draw_fit_images(NUM_CLIPIQA_IMAGES, seed)
    with seed_torch(seed):
        model = _create_clip()
        round_to_half(model)
        network = OfflineClipiqa(model).eval()
        embeddings = _embed_images(network, fit.images)
        direction = _find_direction(embeddings, fit.quality)
        _solve_text(network, direction)
    # Good minus bad prompt, both of length 1, is sqrt(2) x direction.
    spread = 2**0.5 * (embeddings @ direction).std()
    model.logit_scale.fill_(float(np.log(LOGIT_SD / spread)))
    state = halve(model.state_dict())
    write_weight_file(directory, "clipiqa", lambda file: torch.save(state, file))


def _create_clip() -> CLIP:
    model = CLIP(
        embed_dim=EMBEDDING_DIM,
        image_resolution=224,
        vision_layers=(3, 4, 6, 3),
        vision_width=64,
        vision_patch_size=None,
        context_length=77,
        vocab_size=49408,
        transformer_width=TEXT_WIDTH,
        transformer_heads=1,
        transformer_layers=1,
    )
    # Wide enough that prompts of different words differ after one block.
    torch.nn.init.normal_(model.token_embedding.weight)
    tower = model.visual
    draw_filters(tower.conv1)
    pass_channels(tower.conv2)
    pass_channels(tower.conv3)
    # CLIP starts the residual branches at zero, so a stage is its first block's shortcut.
    for stage in (tower.layer1, tower.layer2, tower.layer3, tower.layer4):
        (shortcut,) = [layer for layer in stage[0].downsample if isinstance(layer, torch.nn.Conv2d)]
        pass_channels(shortcut)
    return model.eval()


def _embed_images(network: OfflineClipiqa, images: tuple[Pixels, ...]) -> npt.NDArray[np.float64]:
    """Centre the embeddings over the images, and return them at length 1.

    Returns:
        (num_images, EMBEDDING_DIM) float64.
    """
    tower = network.clip_model[0].visual
    mean, deviation = network.default_mean, network.default_std
    tower.attnpool.c_proj.bias.zero_()
    raw = torch.cat([tower((to_tensor(image) - mean) / deviation) for image in images])
    # Rounded as it is read back; the last projection adds it after everything else.
    bias = -raw.mean(0).half().float()
    tower.attnpool.c_proj.bias.copy_(bias)
    return torch.nn.functional.normalize((raw + bias).double()).numpy()


def _find_direction(
    embeddings: npt.NDArray[np.float64], quality: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Direction of length 1 along which embeddings of higher quality lie further."""
    weights, _ = solve_ridge(embeddings, quality)
    return weights / np.linalg.norm(weights)


def _solve_text(network: OfflineClipiqa, direction: npt.NDArray[np.float64]) -> None:
    """Set the text projection so that the ten prompts embed as wanted (least norm, exact)."""
    model = network.clip_model[0]
    prompts = network.prompt_pairs
    outputs: list[torch.Tensor] = []
    hook = model.ln_final.register_forward_hook(lambda _, __, output: outputs.append(output))
    model.encode_text(prompts)
    hook.remove()
    # CLIP reads a prompt at its end-of-text token, the one with the highest number.
    at_end = outputs[0][torch.arange(len(prompts)), prompts.argmax(dim=-1)].double()
    along = torch.from_numpy(direction)
    common = torch.randn(len(prompts) // 2, EMBEDDING_DIM, dtype=torch.float64)
    common = common - (common @ along)[:, None] * along
    common = torch.nn.functional.normalize(common)
    wanted = torch.stack([common + along, common - along], dim=1).flatten(0, 1)
    model.text_projection.copy_(torch.linalg.pinv(at_end) @ wanted)
