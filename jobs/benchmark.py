"""How fast iqray scores beside pyiqa, and trains beside torchvision, at equal results.

    uv run jobs/benchmark.py scoring
    uv run jobs/benchmark.py scoring --images photos --weights weights --json scoring.json
    uv run jobs/benchmark.py scoring --only niqe brisque decode_once
    uv run jobs/benchmark.py scoring --gpu
    uv run jobs/benchmark.py training --images photos
    uv run jobs/benchmark.py training --gpu
    uv run jobs/benchmark.py memory --num-images 10000 100000
    uv run jobs/benchmark.py report

Each metric's scorer of iqray runs in turn with pyiqa's own network, which has the same weights and
is called on one image at a time; both start from decoded pixels. decode_once sets one decode of
each image against one per metric. six_metrics, six_metrics_gated (in bf16 behind the rank gate) and
nss_metrics (BRISQUE and NIQE) run jobs/score.py and pyiqa's command-line loop as whole processes on
all CPUs; ray_tax runs the same worker in Ray's actors and in a plain pool of processes. A ratio is
the median of pairs of wall-clock times measured back to back. A row holds when the scores agree and
the ratio reaches the target; exit code 1 says that one does not.

On two cores one metric takes up to two minutes, six_metrics 27, nss_metrics an hour and a half.

--gpu sets pyiqa's networks on an NVIDIA GPU, one image a call, against iqray's scorers there
(BRISQUE and NIQE: on the CPU), and end_to_end all six from files to rows in the worker of a GPU
pool. In fp32 neither side has TF32 and scores must agree; in tf32 and bf16 pyiqa runs as it comes,
and Spearman's correlation with exact scores must be at least 0.999. `floor` is how fast pyiqa's
operations (without CLIP-IQA's prompts) are done, as a share of the speed of a large matrix product
in the same precision, measured first. It has not run on a GPU yet: how long it takes is unknown.

training makes batches of 224 px, with the same crops and flips on both sides. loader sets iqray's
loader against torchvision's ImageFolder, RandomResizedCrop with antialias, flip and normalisation
in a DataLoader; loader_crop does so with a random crop. The DataLoader has as many worker processes
as iqray has threads, and decodes the image files each time; iqray reads them from packs, which a
node makes once. How long that took stands in the JSON rows; it is in no ratio. Packs are of native
size, so that both sides start from the same pixels. step sets iqray's training loop, which makes
its batches, against a plain loop of PyTorch on batches made before.

Of training, three are whole processes. grid_reuse trains the eight cells of a small study for three
epochs, with jobs/full_grid.py and with scripts in torchvision's style, one after the other, which
get iqray's crops, flips and order from a file. trial_overhead does so with sixteen trials of one
step; more than 0.5 s per trial after the first is too slow whatever the ratio. resume runs the demo
of 192 cells from nothing, and then again. On two cores a minute each for the first three, 12 and 20
minutes for the next two, 35 for resume.

training --gpu times every architecture in bf16 at batch 256 with images in the GPU's memory, beside
torchvision's reference loop and beside a loop on one batch, says how long the first step takes, and
from that the GPU-hours of the paper's study. It has not run on a GPU yet.

memory scores small generated images with jobs/score.py, once for each number of images, and prints
the peaks of its processes' memory. It holds when the largest worker and the object store take at
most 1.25 times as much for the most images as for the fewest (for the object store also: less than
64 bytes more an image, which task descriptions take) and the driver grows by less than 1 KiB an
image. Linux only; 2 minutes and 0.5 GB of disk for 10,000 and 100,000 images on 2 free cores.

report writes an invented finished study of the paper's size (192 cells, three seeds, manifests of
2 million rows) and makes its report by jobs/report.py, as often as --repeats says. It holds when no
report takes more than a minute.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from iqray.benchmarks.harness import (
    MIN_REPEATS,
    Benchmark,
    BenchmarkRow,
    build_environment,
    ensure_environment,
    format_header,
    format_row,
    measure,
    write_rows,
)
from iqray.cli import run_job
from iqray.cluster import Cluster
from iqray.errors import StudyError
from iqray.recipes import ARCHITECTURES

# Names stand here as well, so that --help and mistakes need no torch; a test compares them.
KERNEL_NAMES = ("niqe", "brisque", "clipiqa", "cnniqa", "musiq", "dbcnn", "decode_once")
GPU_NAMES = (*KERNEL_NAMES[:-1], "end_to_end")
RAY_TAX = "ray_tax"
LOADER_NAMES = ("loader", "loader_crop")
STEP = "step"
GRID_NAMES = ("grid_reuse", "trial_overhead", "resume")
TRAINING_NAMES = (*LOADER_NAMES, STEP, *GRID_NAMES)
PROCESS_NAMES = ("six_metrics", "six_metrics_gated", "nss_metrics", RAY_TAX)

# Images in a run of one metric, the same on a GPU, and in a run of training.
NUM_SCORED, NUM_SCORED_ON_GPU, NUM_LOADED = 8, 64, 256

# torchvision's DataLoader gets as many workers.
NUM_LOADER_THREADS = 2

# Distinct images of the benchmarks that take more files than there are images.
NUM_PROCESS_IMAGES = 240

EXIT_MISSED = 1  # a benchmark does not hold


def main(argv: Sequence[str] | None = None) -> None:
    """Run benchmarks, print a row for each, and say by the exit code whether all hold."""
    arguments = build_parser().parse_args(argv)
    whole_jobs = {"memory": run_memory, "report": run_reports}
    if arguments.suite in whole_jobs:  # in the user's environment, as the jobs run in
        if arguments.gpu:
            raise StudyError(
                f"--gpu is for scoring and training; {arguments.suite} does not use it: leave it "
                "out"
            )
        sys.exit(0 if whole_jobs[arguments.suite](arguments) else EXIT_MISSED)
    if arguments.threads is None:
        arguments.threads = choose_threads(arguments)
    ensure_environment(build_environment(arguments.threads))
    if arguments.gpu and arguments.suite == "training":
        sys.exit(0 if run_training_on_gpu(arguments) else EXIT_MISSED)
    rows = run_scoring_on_gpu(arguments) if arguments.gpu else run_suite(arguments)
    if arguments.json is not None:
        write_rows(arguments.json, rows)
    if not all(row.holds for row in rows):
        sys.exit(EXIT_MISSED)


def choose_threads(arguments: argparse.Namespace) -> int:
    """Threads of both sides, where the user names none."""
    if arguments.suite == "training" and not arguments.gpu:
        return NUM_LOADER_THREADS
    return (os.cpu_count() or 1) if arguments.gpu else 1


def build_parser() -> argparse.ArgumentParser:
    """Parser of this job's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "suite", choices=["scoring", "training", "memory", "report"], help="which benchmarks"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of photographs (default: generated images in common sizes of ImageNet)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="folder of pyiqa's weight files; a metric without one gets seeded random weights",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"of scoring: {', '.join((*KERNEL_NAMES, *PROCESS_NAMES))}; of training: "
        f"{', '.join(TRAINING_NAMES)} (default: all)",
    )
    parser.add_argument(
        "--repeats", type=int, default=MIN_REPEATS, help="pairs to time (default: %(default)s)"
    )
    parser.add_argument(
        "--num-images",
        type=int,
        nargs="+",
        metavar="N",
        help=f"images in a run of one metric (default: {NUM_SCORED}, with --gpu "
        f"{NUM_SCORED_ON_GPU}) or of training (default: {NUM_LOADED}); files of whole processes "
        "(default: 96, 400 and 12000 for the three); of memory, several (default: 10000 100000)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the rows")
    parser.add_argument(
        "--threads",
        type=int,
        help="of both sides for one metric (default: 1; with --gpu all CPUs), and of training "
        f"(default: {NUM_LOADER_THREADS}); whole processes use all CPUs",
    )
    parser.add_argument(
        "--gpu",
        action="store_true",
        help="on an NVIDIA GPU: scoring (--only: metrics, end_to_end), training (--only: "
        "architectures)",
    )
    return parser


def run_suite(arguments: argparse.Namespace) -> list[BenchmarkRow]:
    """Run benchmarks of scoring or training one after another, each loaded for its own turn."""
    # Imported here, as torch takes seconds and the process may have to start anew before.
    import torch

    is_scoring = arguments.suite == "scoring"
    known = (*KERNEL_NAMES, *PROCESS_NAMES) if is_scoring else TRAINING_NAMES
    names = arguments.only or known
    choose_num_images(arguments)
    check_names(names, known)
    torch.set_num_threads(arguments.threads)
    print(f"threads: {arguments.threads}, repeats: {arguments.repeats}")
    print(format_header())
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            build = build_scoring if is_scoring else build_training
            benchmark = build(name, arguments, Path(folder))
            warms_up = name not in (*PROCESS_NAMES, *GRID_NAMES)
            report = None if warms_up else show_pair
            rows.append(measure(benchmark, arguments.repeats, warms_up=warms_up, report=report))
        print(format_row(rows[-1]), flush=True)
    return rows


def show_pair(peer_s: float, ours_s: float) -> None:
    """A pair of whole processes takes minutes: what is known of it is shown at once."""
    print(f"  pair: {peer_s:.1f} s, {ours_s:.1f} s, ratio {peer_s / ours_s:.2f}", flush=True)


def run_scoring_on_gpu(arguments: argparse.Namespace) -> list[BenchmarkRow]:
    """Run benchmarks of scoring on this machine's GPU."""
    names = arguments.only or GPU_NAMES
    check_names(names, GPU_NAMES)
    number = choose_num_images(arguments)
    import torch

    from iqray.benchmarks import gpu

    device = gpu.check_gpu()
    torch.set_num_threads(arguments.threads)
    ceilings = gpu.measure_ceilings(device)
    print(f"{torch.cuda.get_device_name(device)}, {describe_ceilings(ceilings)}")
    print(f"threads: {arguments.threads}, repeats: {arguments.repeats}, images: {number}")
    print(gpu.format_device_header())
    rows: list[BenchmarkRow] = []
    with tempfile.TemporaryDirectory() as folder:
        suite = gpu.DeviceSuite(
            *(load_images(arguments, number), arguments.weights, Path(folder), device, ceilings),
            *(arguments.threads, arguments.repeats),
        )
        for row in suite.run(names):
            print(gpu.format_device_row(row), flush=True)
            rows.append(row)
    return rows


def run_training_on_gpu(arguments: argparse.Namespace) -> bool:
    """Time every architecture on this machine's GPU, and tell whether none misses its target."""
    names = arguments.only or ARCHITECTURES
    check_names(names, ARCHITECTURES)
    images = load_images(arguments, choose_num_images(arguments))
    import torch

    from iqray.benchmarks import gpu, training_gpu

    device = gpu.check_gpu()
    print(f"{torch.cuda.get_device_name(device)}, bf16, batch {training_gpu.BATCH_SIZE}; images/s:")
    print(training_gpu.format_speed_header())
    speeds: list[training_gpu.TrainingSpeed] = []
    with tempfile.TemporaryDirectory() as folder:
        suite = training_gpu.TrainingSuite(images, Path(folder), device, arguments.threads)
        for speed in suite.run(names):
            print(training_gpu.format_speed(speed), flush=True)
            speeds.append(speed)
    if len(speeds) == len(ARCHITECTURES):
        hours = training_gpu.count_study_hours(speeds)
        print(f"the paper's 192 trainings at these speeds: {hours:,.0f} GPU-hours")
    if arguments.json is not None:
        write_rows(arguments.json, speeds)
    return not any(speed.holds is False for speed in speeds)


def describe_ceilings(ceilings: Mapping[str, float]) -> str:
    """What the device's matrix products reach, in words."""
    parts = [f"{precision} {flops / 1e12:.1f}" for precision, flops in ceilings.items()]
    return f"TFLOP/s of a matrix product: {', '.join(parts)}"


def check_names(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse benchmarks that do not exist."""
    for name in names:
        if name not in known:
            raise StudyError(f"unknown benchmark '{name}'; choose from {', '.join(known)}")


def load_images(arguments: argparse.Namespace, number: int) -> list[bytes]:
    """The user's images, or generated ones; encoded."""
    from iqray.benchmarks.inputs import generate_images, read_images

    if arguments.images is None:
        return generate_images(number)
    return read_images(arguments.images, number)


def build_scoring(name: str, arguments: argparse.Namespace, folder: Path) -> Benchmark[Any]:
    """Load one benchmark of scoring."""
    from iqray.benchmarks.processes import build_process_benchmark
    from iqray.benchmarks.ray_tax import build_ray_tax
    from iqray.benchmarks.scoring import build_benchmark

    number = choose_num_images(arguments) if name in KERNEL_NAMES else NUM_PROCESS_IMAGES
    images = load_images(arguments, number)
    if name in KERNEL_NAMES:
        return build_benchmark(name, images, arguments.weights, folder)
    num_processes = os.cpu_count() or 1
    if name == RAY_TAX:
        Cluster().connect()
        return build_ray_tax(images, arguments.weights, folder, num_processes)
    job = Path(__file__).parent / "score.py"
    num_files = choose_num_images(arguments) if arguments.num_images else None
    return build_process_benchmark(
        name, images, arguments.weights, folder, job, num_processes, num_files
    )


def build_training(name: str, arguments: argparse.Namespace, folder: Path) -> Benchmark[Any]:
    """Load one benchmark of training."""
    from iqray.benchmarks.grids import build_grid_benchmark
    from iqray.benchmarks.loaders import build_loader_benchmark
    from iqray.benchmarks.steps import build_step_benchmark

    images = load_images(arguments, choose_num_images(arguments))
    if name in LOADER_NAMES:
        return build_loader_benchmark(name, images, folder, arguments.threads)
    if name == STEP:
        return build_step_benchmark(images)
    job = Path(__file__).with_name("full_grid.py")
    return build_grid_benchmark(name, images, folder, job, arguments.threads)


def choose_num_images(arguments: argparse.Namespace) -> int:
    """How many images benchmarks of scoring or training take."""
    default = NUM_SCORED_ON_GPU if arguments.gpu else NUM_SCORED
    if arguments.suite == "training":
        default = NUM_LOADED
    numbers = arguments.num_images or [default]
    if len(numbers) > 1 or numbers[0] < 2:
        raise StudyError(
            f"num-images is {' '.join(map(str, numbers))}; {arguments.suite} takes one number, and "
            "an order needs at least 2"
        )
    return int(numbers[0])


def run_memory(arguments: argparse.Namespace) -> bool:
    """Score ever more images, print the peaks of memory, and tell whether they stay flat."""
    from iqray.benchmarks import memory

    job = Path(__file__).with_name("score.py")
    numbers = memory.check_numbers(arguments.num_images or memory.NUM_IMAGES)
    print(memory.format_run_header())
    runs: list[memory.MemoryRun] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for start, stop in pairwise([0, *numbers]):
            memory.add_images(folder / "images", start, stop)
            study = memory.write_memory_study(folder, stop)
            runs.append(memory.run_scoring_job(job, study, stop))
            print(memory.format_run(runs[-1]), flush=True)
    rows = memory.judge_growth(runs)
    print("\n".join(map(memory.format_growth, rows)))
    if arguments.json is not None:
        memory.write_memory_report(arguments.json, runs, rows)
    return all(row.holds for row in rows)


def run_reports(arguments: argparse.Namespace) -> bool:
    """Make reports of an invented study of the paper's size, and tell whether all are in time."""
    from iqray.benchmarks import reports
    from iqray.benchmarks.report_roots import RootSize

    job = Path(__file__).with_name("report.py")
    with tempfile.TemporaryDirectory() as name:
        num_rows = reports.write_study(Path(name), RootSize())
        print(reports.format_report_header())
        runs: list[reports.ReportRun] = []
        for _ in range(arguments.repeats):
            runs.append(reports.run_report(job, Path(name), num_rows))
            print(reports.format_report(runs[-1]), flush=True)
    if arguments.json is not None:
        write_rows(arguments.json, runs)
    return all(run.holds for run in runs)


if __name__ == "__main__":
    run_job(main)
