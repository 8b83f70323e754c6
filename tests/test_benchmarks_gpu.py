"""The benchmarks of a GPU, run on the CPU with small images; speed is never tested."""

import itertools
import json
import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from iqray.benchmarks.arithmetic import count_flops, count_metric_flops, measure_ceiling
from iqray.benchmarks.end_to_end import ScoringPipeline, score_files, write_images
from iqray.benchmarks.gpu import (
    GPU_BENCHMARKS,
    DeviceRow,
    DeviceSuite,
    format_device_header,
    format_device_row,
    judge_all,
    judge_scores,
)
from iqray.benchmarks.harness import BenchmarkRow, write_rows
from iqray.benchmarks.pyiqa_device import EXACT_SETTINGS, MetricPeer, load_peer, score_one_by_one
from iqray.distortions import encode_jpeg
from iqray.inputs.images import decode_image
from iqray.metrics.networks import load_network
from iqray.metrics.precision import PRECISIONS
from iqray.metrics.registry import METRICS_WITH_FILES
from iqray.metrics.weights import MetricWeights, find_weights
from tests.metric_weights import draw_texture, write_random_weights

JOB = Path(__file__).parent.parent / "jobs" / "benchmark.py"
CPU = torch.device("cpu")
SHAPES = [(96, 112), (104, 96), (96, 112)]

# So far above any CPU that shares lie below 1.
CEILINGS = dict.fromkeys(PRECISIONS, 1e18)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_random_weights(folder)
    return folder


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    textures = [draw_texture(*shape, seed) for seed, shape in enumerate(SHAPES)]
    return [encode_jpeg(texture, 92, "4:2:0") for texture in textures]


def decode(images: list[bytes]) -> list[np.ndarray]:
    return [decode_image(data).pixels.copy() for data in images]


def make_suite(images: list[bytes], weights: Path, folder: Path) -> DeviceSuite:
    clock = itertools.count()  # every run takes a second
    return DeviceSuite(images, weights, folder, CPU, CEILINGS, clock=lambda: float(next(clock)))


def test_flops_of_a_convolution_are_those_counted_by_hand() -> None:
    convolution = nn.Conv2d(3, 8, 5, padding=2)
    image = torch.rand(1, 3, 10, 12)
    assert count_flops(lambda: convolution(image)) == 2 * (3 * 5 * 5) * 8 * (10 * 12)
    layer = nn.Linear(7, 9)
    assert count_flops(lambda: layer(torch.rand(4, 7))) == 2 * 7 * 9 * 4


def test_every_shape_is_computed_once_and_counts_for_all_its_images() -> None:
    shapes = []

    class Toy(nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            shapes.append(tuple(images.shape))
            return super().forward(images)

    images = [np.zeros(shape, np.uint8) for shape in [(8, 6, 3), (4, 4, 3), (8, 6, 3)]]
    found = count_metric_flops("toy", Toy(3, 2, 1), images)
    assert found == 2 * 3 * 2 * (8 * 6 * 2 + 4 * 4)
    assert sorted(shapes) == [(1, 3, 4, 4), (1, 3, 8, 6)]


def test_prompts_do_not_count(weights: Path) -> None:
    network = load_network(find_weights(weights, "clipiqa"))
    [model] = network.clip_model
    image = torch.rand(1, 3, 96, 112)
    seen = count_flops(lambda: model.encode_image(image, pos_embedding=False))
    logits = 2 * 32 * 10  # embeddings of 32 values, with ten prompts
    pixels = np.zeros((96, 112, 3), np.uint8)
    assert count_metric_flops("clipiqa", network, [pixels]) == seen + logits


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_ceiling_is_the_best_of_several_tries(precision: str) -> None:
    # The clock is asked once for the first try, which does not count, and twice for the others.
    durations = [4.0, 2.0, 8.0, 4.0, 4.0]
    moments = iter([0.0, *(moment for each in durations for moment in (0.0, each))])
    ceiling = measure_ceiling(CPU, precision, 64, lambda: next(moments))
    assert ceiling == 2 * 64**3 * 10 / 2.0


def test_a_metric_has_a_row_for_each_precision(
    images: list[bytes], weights: Path, tmp_path: Path
) -> None:
    rows = list(make_suite(images, weights, tmp_path).run(["cnniqa", "niqe"]))
    assert [row.name for row in rows] == ["cnniqa", "cnniqa_tf32", "cnniqa_bf16", "niqe"]
    assert [row.precision for row in rows] == ["fp32", "tf32", "bf16", "fp32"]
    exact, _, lower, statistics = rows
    assert exact.holds
    assert "1e-06 allowed; pyiqa's own, device to CPU: 0.0e+00" in exact.fidelity
    assert "no TF32" in exact.peer
    assert lower.fidelity.startswith("Spearman ")
    assert "as it comes" in lower.peer
    assert exact.peer_images_per_s == exact.ours_images_per_s == len(images)
    # 50 filters of 7 x 7 x 3 on all positions that they fit; layers behind them take little.
    convolution = 2 * 50 * 7 * 7 * 3 * (2 * 90 * 106 + 98 * 90)
    assert exact.gflops_per_image == pytest.approx(convolution / 3e9, rel=0.05)
    assert exact.floor_share == pytest.approx(exact.gflops_per_image * 3e9 / 1e18)
    assert 0 < exact.floor_share < 1
    assert (statistics.gflops_per_image, statistics.floor_share) == (None, None)
    assert statistics.holds
    assert "same order" in statistics.fidelity


def test_rows_have_the_keys_of_other_rows_and_more(
    images: list[bytes], weights: Path, tmp_path: Path
) -> None:
    [row] = make_suite(images, weights, tmp_path).run(["niqe"])
    write_rows(tmp_path / "rows.json", [row])
    [found] = json.loads((tmp_path / "rows.json").read_text())
    names = [field.name for field in fields(BenchmarkRow)]
    assert list(found)[: len(names)] == names
    assert DeviceRow(**found) == row
    assert len(format_device_header()) < 100
    assert format_device_row(row).split()[:7] == ["niqe", "3.0", "3.0", "1.00", "-", "-", "yes"]


def make_peer(exact: tuple[float, ...]) -> MetricPeer:
    unused = MetricWeights("musiq", "nowhere", (), (), "none")
    return MetricPeer("musiq", unused, nn.Identity(), exact, 3e-6, None)


def test_fidelity_is_judged_against_exact_scores() -> None:
    peer = make_peer((50.0, 51.0, 52.0))
    assert judge_scores(peer, "fp32", [50.0004, 51.0, 52.0]).is_kept
    judged = judge_scores(peer, "fp32", [50.0006, 51.0, 52.0])
    assert not judged.is_kept
    assert judged.words.endswith("1e-05 allowed; pyiqa's own, device to CPU: 3.0e-06")
    assert judge_scores(peer, "bf16", [40.0, 51.5, 60.0]).is_kept  # the order counts
    assert not judge_scores(peer, "bf16", [50.0, 52.0, 51.9]).is_kept
    for precision in PRECISIONS:
        assert not judge_scores(peer, precision, [50.0, math.nan, 52.0]).is_kept


def test_end_to_end_gives_the_scores_of_pyiqas_loop_over_files(
    images: list[bytes], weights: Path, tmp_path: Path
) -> None:
    pixels = decode(images)
    own = {metric: find_weights(weights, metric) for metric in METRICS_WITH_FILES}
    peers = [load_peer(each, pixels, CPU) for each in own.values()]
    paths = write_images(tmp_path / "images", images)
    theirs = score_files(peers, paths, CPU, EXACT_SETTINGS)
    for peer in peers:  # on several threads pyiqa's last digit is not the same in every run
        alone = score_one_by_one(peer.network, pixels, CPU, EXACT_SETTINGS)
        assert theirs[peer.metric] == pytest.approx(alone, rel=1e-5)
    pipeline = ScoringPipeline(tmp_path / "images", own, tmp_path / "out", "cpu", "fp32", 2)
    ours = pipeline.score()
    judged = judge_all(peers, "fp32", ours, theirs)
    assert judged.is_kept, judged.words
    assert judged.words == "all 6 metrics as on their own"
    again = pipeline.score()  # whatever an earlier run has written
    assert again.keys() == ours.keys()
    assert all(again[name] == pytest.approx(ours[name], rel=1e-5) for name in ours)
    swapped = {**ours, "niqe": ours["niqe"][::-1]}
    judged = judge_all(peers, "fp32", swapped, theirs)
    assert not judged.is_kept
    assert judged.words.startswith("niqe: ")


@pytest.mark.slow
def test_all_kinds_of_rows_are_measured(images: list[bytes], weights: Path, tmp_path: Path) -> None:
    suite = make_suite(images[:2], weights, tmp_path)
    rows = list(suite.run(["dbcnn", "brisque", "end_to_end"]))
    assert [row.name for row in rows] == [
        *("dbcnn", "dbcnn_tf32", "dbcnn_bf16", "brisque"),
        *("end_to_end", "end_to_end_tf32", "end_to_end_bf16"),
    ]
    assert all(row.holds for row in rows if row.precision == "fp32")
    assert rows[3].floor_share is None
    shares = [row.floor_share for row in rows if row.floor_share is not None]
    assert len(shares) == 6
    assert all(0 < share < 1 for share in shares)
    assert rows[-1].gflops_per_image > rows[0].gflops_per_image > 1


def run_job(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(JOB), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_job_says_so() -> None:
    done = run_job("scoring", "--gpu")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --gpu measures on an NVIDIA GPU, and torch finds none")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_the_gpus_benchmarks_have_names_of_their_own() -> None:
    done = run_job("scoring", "--gpu", "--only", "ray_tax")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: unknown benchmark 'ray_tax'; choose from {', '.join(GPU_BENCHMARKS)}\n"
    )
