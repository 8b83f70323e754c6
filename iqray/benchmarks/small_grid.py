"""A small grid on real files, ready to be trained: what benchmarks of trials start from.

Everything before the trials (manifest, scores, subsets) is done once; a run copies it to an output
root of its own, trains there with jobs/full_grid.py, and packs its images anew.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from iqray.benchmarks.harness import build_environment
from iqray.benchmarks.inputs import write_random_weights
from iqray.cluster import Cluster
from iqray.errors import StudyError
from iqray.run import Run
from iqray.stages.manifest import make_manifests
from iqray.stages.scores import make_scores
from iqray.stages.subsets import make_subsets
from iqray.stages.trials import plan_grid
from iqray.storage import Storage
from iqray.study_file import parse_study
from iqray.trials import Trial

NUM_CATEGORIES, NUM_TRAIN, NUM_TEST = 12, 20, 4
NUM_SUBSETS = 4

_METRIC = "brisque"
_SUBSET_K = 3


@dataclass(frozen=True)
class SmallGrid:
    """A study whose trials can be run again and again.

    Attributes:
        folder: holds everything.
        job: path of jobs/full_grid.py.
        trials: distinct ones, by id.
        num_threads: CPUs for trials, one each.
    """

    folder: Path
    job: Path
    trials: dict[str, Trial]
    num_threads: int

    @property
    def images(self) -> Path:
        """Holds `train/<category>/` and `val/<category>/`."""
        return self.folder / "images"

    @contextmanager
    def open_root(self) -> Iterator[Path]:
        """An output root in which everything but the trials is done."""
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            root = Path(temporary) / "out"
            shutil.copytree(self.folder / "prepared", root)
            yield root

    def train(self, root: Path, num_concurrent: int | None = None) -> None:
        """Train all trials with jobs/full_grid.py, whose node cache lies beside the output root.

        Args:
            root: of the output.
            num_concurrent: trials at once; as many as threads if none.

        Raises:
            StudyError: it fails.
        """
        content = yaml.safe_load((self.folder / "study.yaml").read_text(encoding="utf-8"))
        content["root"] = str(root)
        content["training"]["num_concurrent"] = num_concurrent or self.num_threads
        study = root.parent / "study.yaml"
        study.write_text(yaml.safe_dump(content), encoding="utf-8")
        command = [sys.executable, str(self.job), "--study", str(study), "--only", "trials"]
        run_process(command, 1, {"IQRAY_CACHE": str(root.parent / "cache")})


def prepare_grid(
    images: Sequence[bytes],
    folder: Path,
    job: Path,
    num_threads: int,
    recipe: dict[str, Any],
    seeds: Sequence[int] = (0,),
) -> SmallGrid:
    """Write images and a study, and run its stages up to the subsets.

    Args:
        images: encoded; repeated until there are enough.
        folder: empty, for everything that is written.
        job: path of jobs/full_grid.py.
        num_threads: CPUs for trials, one each.
        recipe: of the study; its architectures are the study's.
        seeds: of the study.

    Raises:
        StudyError: the cells need fewer distinct trials than there are.
    """
    _write_images(folder / "images", images)
    (folder / "weights").mkdir()
    write_random_weights(folder / "weights", _METRIC)
    content = {
        "name": "benchmark",
        "root": str(folder / "prepared"),
        "datasets": [{"name": "d", "root": str(folder / "images")}],
        "metrics": [_METRIC],
        "architectures": list(recipe["architectures"]),
        "subsets": {"k": _SUBSET_K},
        "recipe": recipe,
        "seeds": list(seeds),
        "weights": {"directory": str(folder / "weights")},
        "training": {"save_models": False},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    study = parse_study(content)
    with Cluster() as cluster:
        run = Run(study, Storage(study.root), cluster)
        for stage in (make_manifests, make_scores, make_subsets):
            stage(run)
        _, trials = plan_grid(run)
    num_cells = NUM_SUBSETS * len(recipe["architectures"]) * len(seeds)
    if len(trials) < num_cells:
        raise StudyError(
            f"{num_cells} cells need only {len(trials)} distinct trials with these images, which "
            "would be no fair comparison; take other images"
        )
    return SmallGrid(folder, job, trials, num_threads)


def run_process(
    command: Sequence[str], num_threads: int, changes: dict[str, str] | None = None
) -> None:
    """Run a process to its end, with so many threads for each of its libraries.

    Raises:
        StudyError: it fails; with its output.
    """
    environment = {**os.environ, **build_environment(num_threads), **(changes or {})}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise StudyError(f"'{' '.join(command)}' failed:\n{done.stdout}{done.stderr}")


def _write_images(root: Path, images: Sequence[bytes]) -> None:
    number = 0
    for category in range(NUM_CATEGORIES):
        for split, count in (("train", NUM_TRAIN), ("val", NUM_TEST)):
            folder = root / split / f"c{category:02d}"
            folder.mkdir(parents=True)
            for place in range(count):
                (folder / f"{place:04d}.jpg").write_bytes(images[number % len(images)])
                number += 1
