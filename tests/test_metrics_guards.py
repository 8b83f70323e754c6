import io
import os
import pickle
import urllib.request
from pathlib import Path

import pyiqa.utils.download_util
import pytest
import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from pyiqa.archs.musiq_arch import MUSIQ

from iqray.errors import StudyError
from iqray.identity import compute_sha256
from iqray.metrics.guards import forbid_network, forbid_unpickling, use_pyiqa_files
from iqray.metrics.networks import load_network
from iqray.metrics.registry import METRICS_WITHOUT_WEIGHTS
from iqray.metrics.tensor_files import secure_file
from iqray.metrics.weights import MetricWeights, find_weights
from tests.test_metrics_tensor_files import Trap, write_clip_archive

SPAQ_FILE = "pyiqa/torch/hub/pyiqa/musiq_spaq_ckpt-358bb6af.pth"


def make_weights(directory: Path, content: object) -> MetricWeights:
    """Weights of a metric that pyiqa loads for itself, as a prefetched folder has them."""
    path = directory / SPAQ_FILE
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    return MetricWeights("musiq-spaq", str(directory), (SPAQ_FILE,), (compute_sha256(path),), "")


def test_pyiqas_own_loader_unpickles_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    state = MUSIQ(pretrained=False).state_dict()
    weights = make_weights(tmp_path / "weights", {**state, "trap": Trap(victim)})
    with pytest.raises(StudyError, match=r"musiq_spaq_ckpt-358bb6af\.pth is refused.*unpickled"):
        load_network(weights)
    assert not victim.exists()
    torch.load(weights.locate() / SPAQ_FILE, weights_only=False)  # as pyiqa asks for
    assert victim.exists()


def test_pyiqa_loads_what_was_prefetched(tmp_path: Path) -> None:
    state = MUSIQ(pretrained=False).state_dict()
    loaded = load_network(make_weights(tmp_path, state)).net.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_missing_file_is_not_downloaded(tmp_path: Path) -> None:
    weights = MetricWeights("musiq-spaq", str(tmp_path), (), (), "")
    message = r"'musiq-spaq' asks for https://\S+musiq_spaq\S+, .*prefetch_weights\.py --metrics"
    with pytest.raises(StudyError, match=message):
        load_network(weights)


def test_guards_leave_everything_as_it_was(tmp_path: Path) -> None:
    def look() -> tuple[object, ...]:
        return (
            dict(os.environ),
            torch.load,
            torch.jit.load,
            torch.hub.urlopen,
            urllib.request.urlopen,
            pyiqa.utils.download_util.DEFAULT_CACHE_DIR,
            constants.HF_HUB_CACHE,
            constants.HF_HUB_OFFLINE,
        )

    before = look()
    try:
        with forbid_network("m"), forbid_unpickling(), use_pyiqa_files(tmp_path):
            inside = look()
            assert inside[-1]  # offline, as a scorer before may have made this process for good
            pairs = list(zip(inside, before, strict=True))
            assert all(now != then for now, then in pairs[1:-1])
            raise KeyError
    except KeyError:
        assert look() == before


def test_the_hub_is_asked_for_nothing(tmp_path: Path) -> None:
    with forbid_network("m"), use_pyiqa_files(tmp_path), pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("timm/resnet50.a1_in1k", "model.safetensors")


def test_open_files_and_buffers_are_guarded_too(tmp_path: Path) -> None:
    path = tmp_path / "trap.pt"
    torch.save(Trap(tmp_path / "victim"), path)
    with forbid_unpickling(), path.open("rb") as file:
        for opened in (file, io.BytesIO(path.read_bytes())):
            with pytest.raises(StudyError, match="is refused"):
                torch.load(opened, pickle_module=pickle, weights_only=False)
    assert not (tmp_path / "victim").exists()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_converted_archive_is_read_in_the_place_of_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "RN50.pt"
    write_clip_archive(path)
    state = torch.jit.load(path).state_dict()
    assert secure_file(path, frozenset({compute_sha256(path)})) is not None
    path.write_bytes(b"no archive any more")
    with forbid_unpickling(), path.open("rb") as file:
        loaded = torch.jit.load(file, map_location="cpu").eval().state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("metric", sorted(METRICS_WITHOUT_WEIGHTS))
def test_metrics_without_weights_ask_for_nothing(tmp_path: Path, metric: str) -> None:
    load_network(find_weights(tmp_path, metric))
    assert not list(tmp_path.iterdir())
