import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from pyiqa.archs.clipiqa_arch import CLIPIQA

from iqray.errors import StudyError
from iqray.metrics.networks import create_network, load_network
from iqray.metrics.registry import METRICS_WITH_FILES, find_metric
from iqray.metrics.scorer import Scorer
from iqray.metrics.weights import find_weights
from tests.metric_weights import build_small_clip, draw_texture, write_random_weights


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")
    write_random_weights(path)
    return path


@pytest.mark.parametrize("metric", METRICS_WITH_FILES)
def test_a_loaded_network_is_frozen_float32_and_in_eval_mode(directory, metric):
    network = load_network(find_weights(directory, metric))
    tensors = [*network.parameters(), *network.buffers()]
    assert not network.training
    assert not any(tensor.requires_grad for tensor in tensors)
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} <= {torch.float32}


@pytest.mark.parametrize("metric", ["cnniqa", "dbcnn", "musiq"])
def test_a_state_dict_loads_bare_and_under_params(tmp_path, metric):
    state = create_network(metric).state_dict()
    path = tmp_path / find_metric(metric).weight_files[0]
    for content in (state, {"params": state}):
        torch.save(content, path)
        loaded = load_network(find_weights(tmp_path, metric)).state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_seeded_networks_are_equal_and_full_size():
    with torch.random.fork_rng():
        networks = []
        for _ in range(2):
            torch.manual_seed(7)
            networks.append(create_network("clipiqa").clip_model[0])
    first, second = (network.state_dict() for network in networks)
    assert first["visual.attnpool.positional_embedding"].shape == (50, 2048)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_torchscript_clip_scores_as_in_pyiqas_own_network(tmp_path):
    # The published RN50.pt is such an archive. pyiqa's constructor brings its own prompts.
    model = build_small_clip()
    example = (torch.rand(1, 3, 64, 64), torch.zeros(10, 77, dtype=torch.int64))
    torch.jit.trace(model, example, check_trace=False).save(tmp_path / "RN50.pt")
    image = draw_texture(96, 64, seed=1)
    [ours] = Scorer(find_weights(tmp_path, "clipiqa")).score([image])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    theirs = CLIPIQA(backbone=str(tmp_path / "RN50.pt"))(pixels).item()
    assert ours.score == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("metric", ["brisque", "clipiqa", "cnniqa", "dbcnn", "musiq"])
def test_a_file_that_runs_code_when_unpickled_is_refused_and_does_not_run(tmp_path, metric):
    victim = tmp_path / "victim"
    payload = {"params": _Trap(victim)}
    torch.save(payload, tmp_path / find_metric(metric).weight_files[0])
    with pytest.raises(StudyError, match="unpickled"):
        load_network(find_weights(tmp_path, metric))
    assert not victim.exists()


class _Trap:
    """Creates a file when it is unpickled, as torch.load(weights_only=False) would."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return partial(Path.touch, self.path), ()


def test_the_trap_springs_where_pickle_is_trusted(tmp_path):
    pickle.loads(pickle.dumps(_Trap(tmp_path / "victim")))  # noqa: S301
    assert (tmp_path / "victim").exists()


@pytest.mark.parametrize("metric", METRICS_WITH_FILES)
def test_a_damaged_file_is_named(tmp_path, metric):
    [name] = find_metric(metric).weight_files
    (tmp_path / name).write_bytes(b"<html>404</html>")
    with pytest.raises(StudyError, match=name):
        load_network(find_weights(tmp_path, metric))


@pytest.mark.parametrize("metric", ["brisque", "clipiqa", "cnniqa", "dbcnn", "musiq"])
def test_weights_of_another_network_are_refused(tmp_path, metric):
    [name] = find_metric(metric).weight_files
    torch.save({"params": {"weight": torch.zeros(3)}}, tmp_path / name)
    with pytest.raises(StudyError, match=f"{name} does not hold the weights of"):
        load_network(find_weights(tmp_path, metric))
