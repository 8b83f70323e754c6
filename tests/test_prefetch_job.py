import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import scipy.io
import timm
import torch
from pyiqa.archs.topiq_arch import CFANet
from safetensors.torch import save_file

from iqray.identity import compute_sha256
from iqray.metrics.pyiqa_files import list_kept_files
from iqray.metrics.weights import find_weights
from iqray.metrics.weights_manifest import (
    ListedFile,
    WeightsManifest,
    save_weights_manifest,
)
from iqray.storage import Storage
from tests.local_server import serving
from tests.metric_weights import write_random_weights
from tests.weight_server import WeightServer

ROOT = Path(__file__).parent.parent
JOB = [sys.executable, "jobs/prefetch_weights.py"]

# Ends the process at any attempt to reach a network or unpickle in C, then scores from a pickle.
OFFLINE_SCRIPT = """
import os, pickle, sys

NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")

def watch(event, arguments):
    if event in NETWORK:
        print("network:", event, arguments, flush=True)
        os._exit(7)

weights = pickle.load(open(sys.argv[1], "rb"))
sys.addaudithook(watch)
from iqray.metrics.offline import go_offline
go_offline()
import numpy as np
from iqray.metrics.scorer import Scorer
image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
for each in weights:
    [result] = Scorer(each).score([image])
    print(each.metric, result.status, flush=True)
"""


@pytest.fixture
def server() -> Iterator[WeightServer]:
    with serving(WeightServer()) as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "IQRAY_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}


def run_job(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*JOB, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_it_prints_a_line_per_file_and_fails_in_one_line(
    server: WeightServer, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    write_random_weights(tmp_path / "source")
    name = "niqe_modelparameters.mat"
    server.files[name] = (tmp_path / "source" / name).read_bytes()
    target = str(tmp_path / "weights")
    arguments = ["--directory", target, "--source", server.url, "--metrics", "niqe"]
    done = run_job(environment, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"niqe       {name}" in done.stdout
    assert "MB  no published sum\n" in done.stdout

    failed = run_job(environment, *arguments, "brisque")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: brisque_svm_weights.pth cannot be fetched from http://")
    assert failed.stderr.count("\n") == 1


def test_a_study_says_what_to_fetch_and_where(environment: dict[str, str], tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        f"name: s\nroot: {tmp_path}\nrecipe: demo\nmetrics: [piqe, entropy]\n"
        f"datasets: [{{name: d, root: {tmp_path}}}]\nweights: {{directory: {tmp_path}/w}}\n"
    )
    done = run_job(environment, "--study", str(study))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"weights of piqe, entropy are in {tmp_path}/w\n")
    failed = run_job(environment, "--metrics", "niqe")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: there is no weights directory to fill")


@pytest.mark.slow
def test_a_killed_run_goes_on_with_what_it_has(
    server: WeightServer, environment: dict[str, str], tmp_path: Path
) -> None:
    vectors = torch.randn(20, 36, dtype=torch.float64).numpy()
    scipy.io.savemat(tmp_path / "a.mat", {"sv": vectors, "sv_coef": vectors[:, :1]})
    scipy.io.savemat(
        tmp_path / "b.mat", {"mu_prisparam": vectors[:1], "cov_prisparam": vectors.T @ vectors}
    )
    names = {"brisque_matlab": "brisque_matlab.mat", "niqe_matlab": "niqe_matlab_params.mat"}
    server.files[names["brisque_matlab"]] = (tmp_path / "a.mat").read_bytes()
    server.files[names["niqe_matlab"]] = (tmp_path / "b.mat").read_bytes()
    server.stalled.add(names["niqe_matlab"])
    arguments = ["--metrics", *names, "--directory", str(tmp_path / "w"), "--source", server.url]
    job = subprocess.Popen([*JOB, *arguments], cwd=ROOT, env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while not server.requests[names["niqe_matlab"]] and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    assert not (tmp_path / "w/weights.json").exists()

    server.stalled.clear()
    done = run_job(environment, *arguments)
    assert done.returncode == 0, done.stderr
    assert server.requests == {names["brisque_matlab"]: 1, names["niqe_matlab"]: 2}
    kept = [path.name for path in (tmp_path / "w").rglob("*") if path.is_file()]
    assert sorted(kept) == sorted([*names.values(), "weights.json"])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_another_node_loads_and_scores_without_a_network(
    environment: dict[str, str], tmp_path: Path, scheme: str
) -> None:
    directory = tmp_path / "weights"
    directory.mkdir()
    write_random_weights(directory)
    write_topiq_files(directory)
    list_all_files(directory, "topiq_nr")
    metrics = ("brisque", "clipiqa", "niqe", "piqe", "topiq_nr")
    weights = [find_weights(f"{scheme}{directory}", metric) for metric in metrics]
    (tmp_path / "weights.pickle").write_bytes(pickle.dumps(weights))
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE_SCRIPT, str(tmp_path / "weights.pickle")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"{metric} ok" for metric in metrics]
    assert (tmp_path / "cache/weights").exists() == bool(scheme)


def write_topiq_files(directory: Path) -> None:
    """Random weights of topiq_nr, as pyiqa and the Hugging Face hub lay them out."""
    network = timm.create_model("resnet50", pretrained=False)
    repository = network.pretrained_cfg["hf_hub_id"].replace("/", "--")
    folder = directory / "pyiqa/huggingface/hub" / f"models--{repository}"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("a" * 40)
    save_file(network.state_dict(), snapshot / "model.safetensors")
    topiq = CFANet(
        model_name="cfanet_nr_koniq_res50",
        use_ref=False,
        pretrained=False,
        semantic_model_name="resnet50",
        backbone_pretrain=False,
    )
    hub = directory / "pyiqa/torch/hub/pyiqa"
    hub.mkdir(parents=True)
    torch.save({"params": topiq.state_dict()}, hub / "cfanet_nr_koniq_res50-9a73138b.pth")


def list_all_files(directory: Path, pyiqa_metric: str) -> None:
    """Write a manifest of everything in a folder."""
    own = [path.name for path in directory.iterdir() if path.is_file()]
    theirs = [path.as_posix() for path in list_kept_files(directory)]
    files = {
        name: ListedFile(sha256=compute_sha256(directory / name), metric="any")
        for name in [*own, *theirs]
    }
    manifest = WeightsManifest(
        provenance="random", files=files, pyiqa_metrics={pyiqa_metric: theirs}
    )
    save_weights_manifest(Storage(str(directory)), manifest)
