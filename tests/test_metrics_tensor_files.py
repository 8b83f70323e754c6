import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from iqray.errors import StudyError
from iqray.identity import compute_sha256
from iqray.metrics.scorer import Scorer
from iqray.metrics.tensor_files import read_tensors, secure_file
from iqray.metrics.weights import find_weights
from tests.metric_weights import build_small_clip, draw_texture


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return partial(Path.touch, self.path), ()


class Settings:
    """A Python object such as training scripts leave in their checkpoints."""

    rate = 0.1


def test_tensors_need_no_conversion(tmp_path: Path) -> None:
    torch.save({"params": {"a.weight": torch.ones(2)}}, tmp_path / "net.pth")
    (tmp_path / "gaussian.mat").write_bytes(b"not looked into")
    assert secure_file(tmp_path / "net.pth", frozenset()) is None
    assert secure_file(tmp_path / "gaussian.mat", frozenset()) is None


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickle_that_nothing_vouches_for_is_refused_and_does_not_run(
    tmp_path: Path, old_format: bool
) -> None:
    path = tmp_path / "net.pth"
    content = {"params": {"a": torch.ones(2)}, "trap": Trap(tmp_path / "victim")}
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(StudyError, match=r"net\.pth is refused.*unpickled"):
        secure_file(path, frozenset({"0" * 64}))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["net.pth"]


def test_a_trusted_pickle_is_converted_once_and_reads_as_before(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    shared = torch.arange(6.0)
    state = {"a.weight": shared.view(2, 3), "a.bias": shared[:3], "half": torch.ones(2).half()}
    content = {"params": state, "settings": Settings(), "scale": np.float64(2) * np.ones(3)}
    torch.save(content, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    converted = secure_file(path, frozenset({compute_sha256(path)}))
    assert converted == tmp_path / "net.safetensors"
    read = read_tensors(converted)
    assert set(read) == {"params", "scale"}
    assert set(read["params"]) == set(state)
    for name, tensor in state.items():
        assert read["params"][name].dtype == tensor.dtype
        assert torch.equal(read["params"][name], tensor)


def test_a_pair_of_tensors_comes_back_as_a_pair(tmp_path: Path) -> None:
    path = tmp_path / "svm.pth"
    torch.save((torch.ones(3), torch.zeros(3, 36), Settings()), path)
    converted = secure_file(path, frozenset({compute_sha256(path)}))
    assert converted is not None
    coefficients, vectors = read_tensors(converted)
    assert (coefficients.shape, vectors.shape) == ((3,), (3, 36))


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404</html>")
    with pytest.raises(StudyError, match=name):
        read_tensors(tmp_path / name)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_converted_clip_scores_exactly_as_its_archive(tmp_path: Path) -> None:
    path = tmp_path / "archive" / "RN50.pt"
    write_clip_archive(path)
    (tmp_path / "converted").mkdir()
    images = [draw_texture(96, 64, seed) for seed in range(3)]
    before = Scorer(find_weights(path.parent, "clipiqa")).score(images)

    converted = secure_file(path, frozenset({compute_sha256(path)}))
    assert converted is not None
    converted.rename(tmp_path / "converted" / "RN50.safetensors")
    path.unlink()
    weights = find_weights(tmp_path / "converted", "clipiqa")
    assert weights.names == ("RN50.safetensors",)
    assert Scorer(weights).score(images) == before


def test_an_archive_that_nothing_vouches_for_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "regressor.pth"
    torch.jit.script(torch.nn.Linear(2, 1)).save(path)
    assert secure_file(path, frozenset()) is None


def write_clip_archive(path: Path) -> None:
    """Write a small CLIP as the published RN50.pt is: float32 here, as CPUs trace no float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    example = (torch.rand(1, 3, 64, 64), torch.zeros(10, 77, dtype=torch.int64))
    torch.jit.trace(build_small_clip(), example, check_trace=False).save(path)
