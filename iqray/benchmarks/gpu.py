"""Benchmarks of scoring on a GPU: every metric at batch 1 through pyiqa beside iqray's batches.

Takes a torch device, so that everything but the speed can be had on a CPU as well. In fp32, both
sides compute without TF32 and the scores must agree. In tf32 and bf16, pyiqa runs as it comes, with
TF32 in its convolutions, and iqray must sort images as exact scores do.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from iqray.benchmarks.arithmetic import measure_ceiling, synchronize
from iqray.benchmarks.end_to_end import Scores, ScoringPipeline, score_files, write_images
from iqray.benchmarks.harness import (
    MIN_REPEATS,
    Benchmark,
    BenchmarkRow,
    Fidelity,
    Result,
    compare_scores,
    measure,
)
from iqray.benchmarks.inputs import provide_weights
from iqray.benchmarks.pyiqa_device import (
    EXACT_SETTINGS,
    PYIQA_SETTINGS,
    MetricPeer,
    Settings,
    load_peer,
    score_one_by_one,
)
from iqray.benchmarks.scoring import METRIC_GOALS, decode_pixels
from iqray.errors import StudyError
from iqray.metrics.precision import PRECISIONS
from iqray.metrics.registry import METRICS_WITH_PRECISIONS
from iqray.metrics.scorer import Scorer
from iqray.scoring.gate import MIN_SPEARMAN, compute_spearman

END_TO_END = "end_to_end"
GPU_BENCHMARKS = (*METRIC_GOALS, END_TO_END)

# No ratio has been measured on a GPU yet, so none is promised: iqray must not be slower.
_TARGET = 1.0

_COLUMNS = "{:<16} {:>10} {:>10} {:>8} {:>9} {:>7}  {:<6} {}"


@dataclass(frozen=True)
class DeviceRow(BenchmarkRow):
    """A row of a benchmark on a device.

    Attributes:
        precision: of iqray's side.
        peer_images_per_s: images a second, over the median of the peer's times.
        ours_images_per_s: likewise.
        gflops_per_image: that pyiqa's networks need, on average; None where none is counted.
        floor_share: of the shortest time in which the device could do these operations, in ours;
            1 is the speed of a large matrix product in the same precision.
    """

    precision: str
    peer_images_per_s: float
    ours_images_per_s: float
    gflops_per_image: float | None
    floor_share: float | None


def check_gpu() -> torch.device:
    """The GPU to measure.

    Raises:
        StudyError: there is none.
    """
    if not torch.cuda.is_available():
        raise StudyError(
            "--gpu measures on an NVIDIA GPU, and torch finds none on this machine; leave --gpu "
            "out to measure on the CPU"
        )
    return torch.device("cuda")


def measure_ceilings(device: torch.device) -> dict[str, float]:
    """Operations a second that a device reaches in each precision."""
    return {precision: measure_ceiling(device, precision) for precision in PRECISIONS}


@dataclass(frozen=True)
class DeviceSuite:
    """What all benchmarks on a device share.

    Attributes:
        images: encoded.
        weights_folder: of the user's weight files.
        folder: empty, for everything that is written.
        device: to be measured.
        ceilings: operations a second in each precision, from `measure_ceilings`.
        num_threads: that decode end to end.
        num_repeats: pairs to time.
        clock: seconds from any start.
    """

    images: Sequence[bytes] = field(repr=False)
    weights_folder: Path | None
    folder: Path
    device: torch.device
    ceilings: Mapping[str, float]
    num_threads: int = 1
    num_repeats: int = MIN_REPEATS
    clock: Callable[[], float] = time.perf_counter

    def run(self, names: Sequence[str]) -> Iterator[DeviceRow]:
        """Measure one benchmark after another, in each precision that it has.

        Args:
            names: of `GPU_BENCHMARKS`.
        """
        # Copies, since torch warns about arrays that cannot be written, as Pillow's are.
        pixels = [decode_pixels(data).copy() for data in self.images]
        load = cache(partial(self._load, pixels=pixels))  # end to end takes them once more
        for name in names:
            if name == END_TO_END:
                yield from self._measure_end_to_end([load(metric) for metric in METRIC_GOALS])
            else:
                yield from self._measure_metric(load(name), pixels)

    def _load(self, metric: str, pixels: Sequence[np.ndarray]) -> MetricPeer:
        weights = provide_weights(metric, self.weights_folder, self.folder / "weights")
        return load_peer(weights, pixels, self.device)

    def _measure_metric(
        self, peer: MetricPeer, pixels: Sequence[np.ndarray]
    ) -> Iterator[DeviceRow]:
        for precision in PRECISIONS if peer.metric in METRICS_WITH_PRECISIONS else ("fp32",):
            scorer = Scorer(peer.weights, self.device.type, precision)
            settings = _choose_settings(precision)
            benchmark = Benchmark(
                name=_name_row(peer.metric, precision),
                peer=self._describe_peer(precision, peer.weights.provenance),
                target=_TARGET,
                run_peer=partial(score_one_by_one, peer.network, pixels, self.device, settings),
                run_ours=partial(_score_ours, scorer, pixels, self.device),
                compare=partial(judge_scores, peer, precision),
            )
            yield self._measure(benchmark, precision, peer.num_flops)

    def _measure_end_to_end(self, peers: Sequence[MetricPeer]) -> Iterator[DeviceRow]:
        paths = write_images(self.folder / "images", self.images)
        weights = {peer.metric: peer.weights for peer in peers}
        num_flops = sum(peer.num_flops or 0 for peer in peers)
        for precision in PRECISIONS:
            root = self.folder / f"out-{precision}"
            pipeline = ScoringPipeline(
                *(self.folder / "images", weights, root),
                *(self.device.type, precision, self.num_threads),
            )
            benchmark = Benchmark(
                name=_name_row(END_TO_END, precision),
                peer=f"{self._describe_peer(precision, peers[0].weights.provenance)}, from files",
                target=_TARGET,
                run_peer=partial(
                    score_files, peers, paths, self.device, _choose_settings(precision)
                ),
                run_ours=pipeline.score,
                compare=partial(judge_all, peers, precision),
            )
            yield self._measure(benchmark, precision, num_flops)

    def _measure(
        self, benchmark: Benchmark[Result], precision: str, num_flops: int | None
    ) -> DeviceRow:
        row = measure(benchmark, self.num_repeats, self.clock)
        num_images = len(self.images)
        share = num_flops / row.ours_s / self.ceilings[precision] if num_flops else None
        return DeviceRow(
            **asdict(row),
            precision=precision,
            peer_images_per_s=num_images / row.peer_s,
            ours_images_per_s=num_images / row.ours_s,
            gflops_per_image=num_flops / num_images / 1e9 if num_flops else None,
            floor_share=share,
        )

    def _describe_peer(self, precision: str, provenance: str) -> str:
        tf32 = "no TF32" if precision == "fp32" else "as it comes"
        return f"pyiqa {version('pyiqa')} on {self.device.type}, batch 1, {tf32} ({provenance})"


def format_device_header() -> str:
    """Heading of the table of rows."""
    return _COLUMNS.format(
        "name", "pyiqa im/s", "ours im/s", "ratio", "GF/image", "floor", "holds", "fidelity"
    )


def format_device_row(row: DeviceRow) -> str:
    """One line of the table of rows."""
    return _COLUMNS.format(
        row.name,
        f"{row.peer_images_per_s:.1f}",
        f"{row.ours_images_per_s:.1f}",
        f"{row.ratio:.2f}",
        "-" if row.gflops_per_image is None else f"{row.gflops_per_image:.1f}",
        "-" if row.floor_share is None else f"{row.floor_share:.1%}",
        "yes" if row.holds else "NO",
        row.fidelity,
    )


def judge_scores(
    peer: MetricPeer, precision: str, ours: Sequence[float], theirs: object = None
) -> Fidelity:
    """Hold scores against pyiqa's exact ones; in lower precision only their order.

    Args:
        peer: holds pyiqa's exact scores.
        precision: of our scores.
        ours: one score per image; NaN where there is none.
        theirs: of the run that was timed; not looked at, since they may be less exact.
    """
    del theirs
    if precision != "fp32":
        spearman = compute_spearman(ours, peer.exact)
        words = f"Spearman {spearman:.5f}, {MIN_SPEARMAN:g} needed"
        return Fidelity(spearman >= MIN_SPEARMAN, words)
    goal = METRIC_GOALS[peer.metric]
    judged = compare_scores(ours, peer.exact, goal.tolerance, goal.same_order)
    words = f"{judged.words}; pyiqa's own, device to CPU: {peer.own_deviation:.1e}"
    return Fidelity(judged.is_kept, words)


def judge_all(
    peers: Sequence[MetricPeer], precision: str, ours: Scores, theirs: Scores
) -> Fidelity:
    """Hold all metrics' scores against pyiqa's; names those that miss."""
    judged = {
        peer.metric: judge_scores(peer, precision, ours[peer.metric], theirs[peer.metric])
        for peer in peers
    }
    missed = [f"{metric}: {each.words}" for metric, each in judged.items() if not each.is_kept]
    words = "; ".join(missed) or f"all {len(judged)} metrics as on their own"
    return Fidelity(not missed, words)


def _name_row(name: str, precision: str) -> str:
    return name if precision == "fp32" else f"{name}_{precision}"


def _choose_settings(precision: str) -> Settings:
    return EXACT_SETTINGS if precision == "fp32" else PYIQA_SETTINGS


def _score_ours(scorer: Scorer, images: Sequence[np.ndarray], device: torch.device) -> list[float]:
    results = scorer.score(images)
    synchronize(device)
    return [math.nan if result.score is None else result.score for result in results]
