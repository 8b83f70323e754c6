"""Benchmarks of the grid as whole processes: iqray's job beside scripts that are run one by one."""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torchvision
from PIL import Image

from iqray.benchmarks.harness import Benchmark, Fidelity, find_largest_deviation
from iqray.benchmarks.small_grid import SmallGrid, prepare_grid, run_process
from iqray.training.augment import BatchStream, derive_step_seed
from iqray.training.loading import BatchPlanner
from iqray.trials import Trial

GRID_REUSE, TRIAL_OVERHEAD, RESUME = "grid_reuse", "trial_overhead", "resume"
GRID_TARGETS = {GRID_REUSE: 4.0, TRIAL_OVERHEAD: 5.0, RESUME: 50.0}

# Largest difference of two final losses on equal batches, whose pixels differ by a level here and
# there.
_LOSS_TOLERANCE = 1e-3
_MAX_TRIAL_S = 0.5  # for each trial of one step after the first

# AlexNet, as batch normalisation over small batches of small images multiplies the last digit, by
# which the sides' pixels differ, to another training: ResNet-50's losses at 32 px end 10 % apart.
_ARCHITECTURE, _INPUT_PX, _LEARNING_RATE = "alexnet", 64, 0.01

_TABLES = ("results/cells.parquet", "results/rank_counts.parquet")

# By trial: final_loss, nats, and finished_s, a time stamp.
Results = Mapping[str, Mapping[str, float]]


def build_grid_benchmark(
    name: str, images: Sequence[bytes], folder: Path, job: Path, num_threads: int
) -> Benchmark[Any]:
    """Make everything that both sides read, so that only running them is left to time.

    Args:
        name: a key of `GRID_TARGETS`.
        images: encoded; repeated until there are enough. The demo of `resume` needs none.
        folder: empty, for everything that is written.
        job: path of jobs/full_grid.py.
        num_threads: of both sides: threads and loader processes of a script, one after the other;
            trials of one thread at once.
    """
    if name == RESUME:
        return _build_resume(folder, job)
    is_overhead = name == TRIAL_OVERHEAD
    recipe = describe_recipe(epochs=3, steps=1 if is_overhead else None)
    seeds = range(4 if is_overhead else 2)  # times four subsets
    grid = prepare_grid(images, folder, job, num_threads, recipe, seeds)
    return Benchmark(
        name=name,
        peer=f"{len(grid.trials)} scripts with torchvision {torchvision.__version__}, one after "
        f"the other, each a process of {num_threads} threads and loader processes",
        target=GRID_TARGETS[name],
        run_peer=partial(_run_scripts, grid),
        run_ours=partial(_run_grid, grid),
        compare=partial(_compare_trials, grid) if is_overhead else _compare_losses,
    )


def describe_recipe(epochs: float, steps: int | None) -> dict[str, Any]:
    """The paper's recipe at sizes that take seconds.

    Images are packed at their native size, so that both sides crop the same pixels.
    """
    return {
        "base": "paper",
        "epochs": epochs,
        "batch_size": 16,
        "stored_short_side_px": "native",
        "watch_from": None,  # a restart would train other batches
        "architectures": {
            _ARCHITECTURE: {
                "input_px": _INPUT_PX,
                "learning_rate": _LEARNING_RATE,
                "steps": steps,
            }
        },
    }


def _run_scripts(grid: SmallGrid) -> Results:
    with tempfile.TemporaryDirectory(dir=grid.folder) as temporary:
        return {
            trial_id: _run_script(grid, trial, Path(temporary) / trial_id)
            for trial_id, trial in grid.trials.items()
        }


def _run_script(grid: SmallGrid, trial: Trial, folder: Path) -> dict[str, float]:
    """Train one trial's categories in a process of their own."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for category in trial.categories:
            (folder / split / category).symlink_to(grid.images / split / category)
    np.savez(folder / "plan.npz", **plan_batches(trial, folder / "train", grid.num_threads))
    names = ("plan.npz", "train", "val", "result.json")
    command = [sys.executable, "-m", "iqray.benchmarks.torchvision_script"]
    run_process([*command, *(str(folder / name) for name in names)], grid.num_threads)
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


def plan_batches(trial: Trial, folder: Path, num_workers: int) -> dict[str, Any]:
    """Everything random and scheduled of a trial, for a script that draws nothing itself."""
    files = sorted(folder.glob("*/*"))  # ImageFolder's order
    shapes = np.array([Image.open(file).size[::-1] for file in files], dtype=np.int64)
    recipe, steps = trial.recipe, range(trial.num_steps)
    stream = BatchStream(len(files), recipe.batch_size, trial.seed)
    input_px = recipe.architectures[trial.architecture].input_px
    planner = BatchPlanner(stream, shapes, recipe, input_px)
    plans = [planner.plan(step) for step in steps]
    last = stream.get_epoch(trial.num_steps - 1)
    rates = [
        recipe.compute_learning_rate(trial.architecture, step, trial.num_steps) for step in steps
    ]
    return {
        **{name: [getattr(plan, name) for plan in plans] for name in ("indices", "boxes", "flips")},
        "learning_rates": rates,
        "step_seeds": [derive_step_seed(trial.seed, step) for step in steps],
        "last_epoch": next(step for step in steps if stream.get_epoch(step) == last),
        "architecture": trial.architecture,
        "input_px": input_px,
        "seed": trial.seed,
        "num_workers": num_workers,
    }


def _run_grid(grid: SmallGrid, num_concurrent: int | None = None) -> Results:
    with grid.open_root() as root:
        grid.train(root, num_concurrent)
        files = {trial_id: root / "trials" / trial_id / "result.json" for trial_id in grid.trials}
        return {
            trial_id: {
                "final_loss": float(json.loads(file.read_text(encoding="utf-8"))["final_loss"]),
                "finished_s": file.stat().st_mtime,
            }
            for trial_id, file in files.items()
        }


def _compare_losses(ours: Results, theirs: Results) -> Fidelity:
    names = sorted(theirs)
    losses = [[side[name]["final_loss"] for name in names] for side in (ours, theirs)]
    largest = find_largest_deviation(*losses)
    words = f"final losses {largest:.1e} relative, {_LOSS_TOLERANCE:g} allowed"
    return Fidelity(largest <= _LOSS_TOLERANCE, words)


def _compare_trials(grid: SmallGrid, ours: Results, theirs: Results) -> Fidelity:
    """Judge by the scripts' trials, and by a run in another order."""
    return judge_trials(ours, theirs, alone=_run_grid(grid, num_concurrent=1))


def judge_trials(ours: Results, theirs: Results, alone: Results) -> Fidelity:
    """Judge losses, their independence of what ran before, and the time between trials.

    Args:
        ours: of the run that was timed.
        theirs: of the scripts.
        alone: of a run with one trial at a time.
    """
    agreement = _compare_losses(ours, theirs)
    is_same = all(alone[name]["final_loss"] == ours[name]["final_loss"] for name in ours)
    times = sorted(result["finished_s"] for result in ours.values())
    trial_s = (times[-1] - times[0]) / (len(times) - 1)
    return Fidelity(
        agreement.is_kept and is_same and trial_s <= _MAX_TRIAL_S,
        f"{agreement.words}; {'equal' if is_same else 'OTHER'} numbers in another order; "
        f"{trial_s:.2f} s per trial after the first, {_MAX_TRIAL_S:g} allowed",
    )


def _build_resume(folder: Path, job: Path) -> Benchmark[list[pd.DataFrame]]:
    """The demo from nothing, and the same command again."""

    def run(*, is_first: bool) -> list[pd.DataFrame]:
        root = folder / "out"
        if is_first:
            shutil.rmtree(folder, ignore_errors=True)
        run_process(
            [sys.executable, str(job), "--root", str(root)],
            1,
            {"IQRAY_CACHE": str(folder / "cache")},
        )
        return [pd.read_parquet(root / table) for table in _TABLES]

    return Benchmark(
        name=RESUME,
        peer="the first run of the demo's 192 cells, from nothing",
        target=GRID_TARGETS[RESUME],
        run_peer=partial(run, is_first=True),
        run_ours=partial(run, is_first=False),
        compare=_compare_tables,
    )


def _compare_tables(ours: Sequence[pd.DataFrame], theirs: Sequence[pd.DataFrame]) -> Fidelity:
    is_equal = all(map(pd.DataFrame.equals, ours, theirs))
    num_rows = sum(map(len, theirs))
    return Fidelity(is_equal, f"{num_rows} rows of results {'equal' if is_equal else 'DIFFER'}")
