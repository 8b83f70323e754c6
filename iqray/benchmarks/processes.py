"""Benchmarks of whole processes: jobs/score.py beside pyiqa's command-line loop, start to end.

Both read the same files, have the same weights and as many threads: pyiqa one process with all of
them, iqray an actor for each. Everything counts: imports, Ray's start, the manifest, writing.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from iqray.benchmarks.harness import Benchmark, Fidelity, build_environment, compare_scores
from iqray.benchmarks.inputs import RANDOM_WEIGHTS, provide_weights
from iqray.benchmarks.scoring import METRIC_GOALS
from iqray.errors import StudyError
from iqray.metrics.weights import write_weights_manifest
from iqray.scoring.gate import MIN_SPEARMAN, compute_spearman

SIX_METRICS, SIX_METRICS_GATED, NSS_METRICS = "six_metrics", "six_metrics_gated", "nss_metrics"

# Ratio that iqray has to reach, and files of a run. Whole processes take seconds to start, pyiqa's
# as well as iqray's; a dataset has so many images that this does not matter.
PROCESS_TARGETS = {SIX_METRICS: 1.6, SIX_METRICS_GATED: 2.5, NSS_METRICS: 12.0}
# The gate scores a sample of categories twice, which pays among many.
NUM_FILES = {SIX_METRICS: 96, SIX_METRICS_GATED: 400, NSS_METRICS: 12000}

_NUM_PER_CATEGORY = 4
_SUBSET_K = 2

# Scores of every image by metric.
Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class ProcessInputs:
    """Files that both sides read, below one temporary folder.

    Attributes:
        folder: holds `dataset/train/<category>/`, `flat/` with the same files, and `weights/`.
        metrics: to score with.
        num_threads: of both sides.
    """

    folder: Path
    metrics: tuple[str, ...]
    num_threads: int


def build_process_benchmark(
    name: str,
    images: Sequence[bytes],
    weights_folder: Path | None,
    folder: Path,
    job: Path,
    num_threads: int,
    num_files: int | None = None,
) -> Benchmark[Scores]:
    """Write what both processes read, so that only running them is left to time.

    Args:
        name: a key of `PROCESS_TARGETS`.
        images: encoded; repeated until there are enough.
        weights_folder: of the user's weight files.
        folder: empty, for everything that is written.
        job: path of jobs/score.py.
        num_threads: of both sides.
        num_files: of a run; those of `NUM_FILES` if none.
    """
    metrics = ("brisque", "niqe") if name == NSS_METRICS else tuple(METRIC_GOALS)
    inputs = ProcessInputs(folder, metrics, num_threads)
    _write_files(folder, images, num_files or NUM_FILES[name])
    provenance = _write_weights(folder, metrics, weights_folder)
    is_gated = name == SIX_METRICS_GATED
    return Benchmark(
        name=name,
        peer=f"pyiqa {version('pyiqa')}, command-line loop, {num_threads} threads ({provenance})",
        target=PROCESS_TARGETS[name],
        run_peer=partial(_run_pyiqa, inputs),
        run_ours=partial(_run_iqray, inputs, job, "bf16" if is_gated else "fp32"),
        compare=_compare_gated if is_gated else partial(_compare_all, inputs),
    )


def _write_files(folder: Path, images: Sequence[bytes], num_files: int) -> None:
    (folder / "flat").mkdir(parents=True)
    for number in range(num_files):
        category = folder / "dataset" / "train" / f"c{number // _NUM_PER_CATEGORY:04d}"
        category.mkdir(parents=True, exist_ok=True)
        file = category / f"{number:06d}.jpg"
        file.write_bytes(images[number % len(images)])
        os.link(file, folder / "flat" / file.name)


def _write_weights(folder: Path, metrics: Sequence[str], given: Path | None) -> str:
    target = folder / "weights"
    target.mkdir()
    for metric in metrics:
        weights = provide_weights(metric, given, folder / "random")
        for name in weights.names:
            shutil.copy(weights.locate() / name, target / name)
    provenance = RANDOM_WEIGHTS if given is None else f"{RANDOM_WEIGHTS} where no file was given"
    write_weights_manifest(target, provenance)
    return provenance


def _run_pyiqa(inputs: ProcessInputs) -> Scores:
    scores = inputs.folder / "pyiqa.json"
    command = [sys.executable, "-m", "iqray.benchmarks.pyiqa_loop"]
    command += [str(inputs.folder / "flat"), str(inputs.folder / "weights"), str(scores)]
    _run([*command, *inputs.metrics], inputs.num_threads)
    return {
        metric: {Path(path).name: score for path, score in rows.items()}
        for metric, rows in json.loads(scores.read_text(encoding="utf-8")).items()
    }


def _run_iqray(inputs: ProcessInputs, job: Path, precision: str) -> Scores:
    with _fresh_root(inputs.folder) as root:
        study = root.parent / "study.yaml"
        study.write_text(yaml.safe_dump(_describe_study(inputs, root, precision)))
        _run([sys.executable, str(job), "--study", str(study)], num_threads=1)
        rows = pd.read_parquet(root / "scores", columns=["metric", "path", "score", "precision"])
    if precision not in set(rows["precision"]):
        raise StudyError(f"no score was left in {precision}: there is nothing to measure")
    rows["path"] = rows["path"].str.rsplit("/", n=1).str[-1]
    return {
        str(metric): dict(zip(own["path"], own["score"], strict=True))
        for metric, own in rows.groupby("metric")
    }


@contextmanager
def _fresh_root(folder: Path) -> Iterator[Path]:
    """An output root that does not exist yet: a finished study would be done in no time."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        yield Path(temporary) / "out"


def _describe_study(inputs: ProcessInputs, root: Path, precision: str) -> dict[str, Any]:
    return {
        "name": "benchmark",
        "root": str(root),
        "datasets": [{"name": "d", "root": str(inputs.folder / "dataset"), "test": None}],
        "metrics": list(inputs.metrics),
        "subsets": {"k": _SUBSET_K},
        "recipe": "fast",  # nothing is trained
        "weights": {"directory": str(inputs.folder / "weights")},
        "scoring": {
            # Enough shards that all actors are busy to the end.
            "shard_size": max(4, sum(1 for _ in (inputs.folder / "flat").iterdir()) // 24),
            "max_actors": inputs.num_threads,
            "precision": precision,
        },
    }


def _run(command: Sequence[str], num_threads: int) -> None:
    environment = {**os.environ, **build_environment(num_threads)}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise StudyError(f"'{' '.join(command)}' failed:\n{done.stdout}{done.stderr}")


def _compare_all(inputs: ProcessInputs, ours: Scores, theirs: Scores) -> Fidelity:
    """Judge every metric by the tolerance that its scorer has.

    BRISQUE by pyiqa on one thread: with more, pyiqa splits its float32 sums otherwise and moves its
    own scores by some 1e-3.
    """
    alone = replace(inputs, metrics=("brisque",), num_threads=1)
    judged = {}
    for metric, rows in {**theirs, **_run_pyiqa(alone)}.items():
        goal = METRIC_GOALS[metric]
        names = sorted(rows)
        judged[metric] = compare_scores(
            [ours[metric][name] for name in names],
            [rows[name] for name in names],
            goal.tolerance,
            goal.same_order,
        )
    words = "; ".join(f"{metric} {fidelity.words}" for metric, fidelity in judged.items())
    return Fidelity(all(fidelity.is_kept for fidelity in judged.values()), words)


def _compare_gated(ours: Scores, theirs: Scores) -> Fidelity:
    """Judge by chosen categories, which must be the same, and by order over images."""
    correlations, num_changed = [], 0
    for metric, rows in theirs.items():
        names = sorted(rows)
        own = [ours[metric][name] for name in names]
        correlations.append(compute_spearman(own, [rows[name] for name in names]))
        num_changed += _choose(ours[metric]) != _choose(rows)
    words = f"Spearman at least {min(correlations):.5f}, subsets differ in {num_changed} metrics"
    return Fidelity(min(correlations) >= MIN_SPEARMAN and not num_changed, words)


def _choose(rows: Mapping[str, float]) -> list[set[str]]:
    """Categories of the four subsets, by a plain sort of means and ranges."""
    frame = pd.DataFrame({"name": list(rows), "score": list(rows.values())})
    scores = frame.groupby(frame["name"].str[:6].astype(int) // _NUM_PER_CATEGORY)["score"]
    statistics: list[Callable[[Any], Any]] = [lambda s: s.mean(), lambda s: s.max() - s.min()]
    chosen = []
    for statistic in statistics:
        order = scores.apply(statistic).sort_values(kind="stable").index.astype(str)
        chosen += [set(order[:_SUBSET_K]), set(order[-_SUBSET_K:])]
    return chosen
