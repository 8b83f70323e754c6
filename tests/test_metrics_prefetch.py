import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import scipy.io
import torch

from iqray.errors import StudyError
from iqray.identity import compute_sha256
from iqray.metrics import published
from iqray.metrics.prefetch import PREFETCHED_WEIGHTS, PrefetchedFile, prefetch_weights
from iqray.metrics.scorer import Scorer
from iqray.metrics.weights import find_weights, write_weights_manifest
from tests.local_server import serving
from tests.metric_weights import draw_texture, write_random_weights
from tests.test_metrics_tensor_files import Trap, write_clip_archive
from tests.weight_server import WeightServer

BRISQUE = "brisque_svm_weights.pth"
NIQE = "niqe_modelparameters.mat"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror's folder: random weights of three of the six, RN50 as a TorchScript archive."""
    folder = tmp_path_factory.mktemp("source")
    write_random_weights(folder)
    for name in [path.name for path in folder.iterdir() if path.name not in (BRISQUE, NIQE)]:
        (folder / name).unlink()
    write_clip_archive(folder / "RN50.pt")
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(20, 36, generator=generator, dtype=torch.float64).numpy()
    svm = {"sv": vectors, "sv_coef": vectors[:, :1], "rho": 0.0, "gamma": 0.05}
    scipy.io.savemat(folder / "brisque_matlab.mat", svm)
    return folder


@pytest.fixture(autouse=True)
def settings(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IQRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(published._SHA256S, "RN50.pt", compute_sha256(source / "RN50.pt"))


@pytest.fixture
def server(source: Path) -> Iterator[WeightServer]:
    with serving(WeightServer()) as server:
        server.files = {path.name: path.read_bytes() for path in source.iterdir()}
        yield server


def prefetch(directory: Path | str, metrics: list[str], source: Path | str) -> list[PrefetchedFile]:
    files: list[PrefetchedFile] = []
    prefetch_weights(str(directory), metrics, str(source), files.append)
    return files


def score(directory: Path | str, metric: str) -> list[float | None]:
    images = [draw_texture(128, 112, seed) for seed in range(2)]
    return [result.score for result in Scorer(find_weights(directory, metric)).score(images)]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_directory_is_filled_and_scores_as_its_source(
    source: Path, server: WeightServer, tmp_path: Path, scheme: str
) -> None:
    directory = f"{scheme}{tmp_path}/weights"
    files = prefetch(directory, ["brisque", "clipiqa", "niqe", "piqe"], server.url)
    assert [(file.name, file.check) for file in files] == [
        (BRISQUE, "no published sum"),
        ("RN50.pt", "sum checked"),
        ("RN50.safetensors", "made from RN50.pt"),
        (NIQE, "no published sum"),
        ("", "no weights needed"),
    ]
    manifest = json.loads((tmp_path / "weights/weights.json").read_text())
    for name, listed in manifest["files"].items():
        assert listed["sha256"] == compute_sha256(tmp_path / "weights" / name)
    for metric in ("brisque", "clipiqa", "niqe"):
        assert find_weights(directory, metric).provenance == PREFETCHED_WEIGHTS
        assert score(directory, metric) == score(source, metric)
    assert find_weights(directory, "clipiqa").names == ("RN50.safetensors",)


def test_what_is_there_is_not_fetched_again(server: WeightServer, tmp_path: Path) -> None:
    first = prefetch(tmp_path / "weights", ["brisque", "brisque_matlab"], server.url)
    assert [file.was_there for file in first] == [False, False]
    again = prefetch(tmp_path / "weights", ["brisque", "brisque_matlab", "niqe"], server.url)
    assert [file.was_there for file in again] == [True, True, False]
    assert again[0] == replace(first[0], check="sum checked", was_there=True)
    assert set(server.requests.values()) == {1}


def test_an_interrupted_run_goes_on_where_it_was(server: WeightServer, tmp_path: Path) -> None:
    server.cut.add(NIQE)
    with pytest.raises(StudyError, match=rf"{NIQE} cannot be fetched .* server sent"):
        prefetch(tmp_path / "weights", ["brisque", "niqe"], server.url)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [BRISQUE]
    server.cut.clear()
    files = prefetch(tmp_path / "weights", ["brisque", "niqe"], server.url)
    assert [file.was_there for file in files] == [True, False]
    assert server.requests == {BRISQUE: 1, NIQE: 2}


def test_a_changed_file_is_an_error(source: Path, tmp_path: Path) -> None:
    prefetch(tmp_path / "weights", ["niqe"], source)
    (tmp_path / "weights" / NIQE).write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(StudyError, match=rf"{NIQE} has a wrong .*expected \w{{64}}, found {found}"):
        prefetch(tmp_path / "weights", ["niqe"], source)


def test_a_page_in_place_of_a_file_is_refused(server: WeightServer, tmp_path: Path) -> None:
    server.files[NIQE] = b"<html>not found</html>"
    with pytest.raises(StudyError, match=rf"{NIQE} does not hold the weights of NIQE"):
        prefetch(tmp_path / "weights", ["niqe"], server.url)
    assert not (tmp_path / "weights").exists()


def test_a_file_that_needs_unpickling_is_refused_and_does_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    torch.save((torch.ones(2), Trap(tmp_path / "victim")), folder / BRISQUE)
    with pytest.raises(StudyError, match=rf"{BRISQUE} is refused.*unpickled"):
        prefetch(tmp_path / "weights", ["brisque"], folder)
    assert not (tmp_path / "victim").exists()
    assert not (tmp_path / "weights").exists()


def test_weights_of_another_origin_do_not_mix(source: Path, tmp_path: Path) -> None:
    write_random_weights(tmp_path)
    write_weights_manifest(tmp_path, "demo weights")
    with pytest.raises(StudyError, match=r"'demo weights'; .*choose another directory"):
        prefetch(tmp_path, ["niqe"], source)


def test_a_directory_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match=r"file/weights.* cannot be"):
        prefetch(tmp_path / "file" / "weights", ["niqe"], source)


def test_an_unknown_metric_stops_before_anything_is_fetched(
    server: WeightServer, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=r"unknown metric 'niqee'"):
        prefetch(tmp_path / "weights", ["niqe", "niqee"], server.url)
    assert not server.requests


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_files_of_other_metrics_come_through_pyiqa_and_key_their_scores(
    server: WeightServer, tmp_path: Path, scheme: str
) -> None:
    directory = f"{scheme}{tmp_path}/weights"
    [file] = prefetch(directory, ["brisque_matlab"], server.url)
    assert file.name == "pyiqa/torch/hub/pyiqa/brisque_matlab.mat"
    assert not (tmp_path / "cache/prefetch/brisque_matlab").exists()
    weights = find_weights(directory, "brisque_matlab")
    content = server.files["brisque_matlab.mat"]
    assert weights.sha256s == (hashlib.sha256(content).hexdigest(),)
    assert None not in score(directory, "brisque_matlab")


def test_files_of_other_metrics_are_held_against_the_sum_in_their_name(
    server: WeightServer, tmp_path: Path
) -> None:
    server.files["musiq_spaq_ckpt-358bb6af.pth"] = b"something else"
    found = hashlib.sha256(b"something else").hexdigest()
    message = rf"'musiq-spaq' cannot be fetched: .*expected 358bb6af\.\.\. .* found {found}"
    with pytest.raises(StudyError, match=message):
        prefetch(tmp_path / "weights", ["musiq-spaq"], server.url)
    assert not (tmp_path / "weights").exists()


def test_a_metric_that_was_not_prefetched_names_the_job(source: Path, tmp_path: Path) -> None:
    prefetch(tmp_path, ["niqe"], source)
    with pytest.raises(StudyError, match=r"'topiq_nr' .*prefetch_weights\.py --metrics topiq_nr"):
        find_weights(tmp_path, "topiq_nr")


def test_a_uri_without_a_manifest_is_refused(tmp_path: Path) -> None:
    write_random_weights(tmp_path)
    with pytest.raises(StudyError, match=rf"no weights\.json in {tmp_path}.*prefetch_weights\.py"):
        find_weights(tmp_path.as_uri(), "niqe")
