"""How a study wants its trials run, and what each may use."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from iqray.dataset import StudyPart
from iqray.recipes import Recipe

Engine = Literal["ray_train", "in_trial"]


class TrainingSettings(StudyPart):
    """How trials are run, what each may use, and how many run at once."""

    engine: Literal["auto", "ray_train", "in_trial"] = Field(
        "auto",
        description="ray_train: Ray Train's workers, started for each trial; in_trial: one process "
        "that runs trial after trial; auto: ray_train with GPUs or several workers, else in_trial",
    )
    num_workers: int = Field(
        1, ge=1, description="processes that share each batch of a trial; changes its numbers"
    )
    num_concurrent: int | None = Field(None, ge=1, description="none for as many as fit")
    num_cpus: float = Field(1, gt=0, description="per worker; also its number of threads")
    num_gpus: float | dict[str, float] = Field(
        0.0, description="per worker, or for each architecture; trials share a GPU by fractions"
    )
    save_models: bool = Field(True, description="false drops the weights after evaluation")
    pack_cache_gib: float | None = Field(
        None,
        gt=0,
        description="disk space of each node for decoded images; none for half of what is free",
    )
    max_retries: int = Field(
        3, ge=0, description="of a trial whose process or node is lost; from its last checkpoint"
    )
    checkpoint_s: float = Field(
        300, ge=0, description="seconds between a trial's checkpoints; 0: after every step"
    )

    @model_validator(mode="after")
    def _check_gpus(self) -> Self:
        shares = self._list_gpu_shares()
        if min(shares, default=0) < 0 or (isinstance(self.num_gpus, dict) and 0 in shares):
            raise ValueError(
                f"training.num_gpus is {self.num_gpus}; give a number from 0 on for all "
                "architectures, or a number above 0 for each: trials are all on GPUs or none"
            )
        return self

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if self.num_workers == 1:
            return self
        if self.engine == "in_trial":
            raise ValueError(
                f"training.num_workers is {self.num_workers}, but engine in_trial trains in one "
                "process; take engine ray_train or auto, or one worker"
            )
        for share in self._list_gpu_shares():
            if share != int(share):
                raise ValueError(
                    f"training.num_gpus is {share:g} with {self.num_workers} workers; workers of a "
                    "trial cannot share a GPU: give each whole ones, or take one worker"
                )
        return self

    @property
    def uses_gpus(self) -> bool:
        """Whether trials train on GPUs."""
        return any(self._list_gpu_shares())

    def choose_engine(self) -> Engine:
        """The engine that `auto` stands for, or the one that is named."""
        if self.engine != "auto":
            return self.engine
        return "ray_train" if self.uses_gpus or self.num_workers > 1 else "in_trial"

    def get_num_gpus(self, architecture: str) -> float:
        """GPUs of each worker of a trial."""
        if isinstance(self.num_gpus, dict):
            return self.num_gpus[architecture]
        return self.num_gpus

    def _list_gpu_shares(self) -> list[float]:
        if isinstance(self.num_gpus, dict):
            return list(self.num_gpus.values())
        return [self.num_gpus]


def check_training(
    training: TrainingSettings, architectures: Sequence[str], recipe: Recipe
) -> None:
    """Hold the settings against the rest of the study.

    Raises:
        ValueError: workers cannot share a batch equally, or an architecture has no number of GPUs.
    """
    if recipe.batch_size % training.num_workers:
        raise ValueError(
            f"recipe.batch_size is {recipe.batch_size}, which {training.num_workers} workers "
            "cannot share equally; change it or training.num_workers"
        )
    if not isinstance(training.num_gpus, dict):
        return
    lost = sorted(set(architectures) ^ set(training.num_gpus))
    if lost:
        raise ValueError(
            f"training.num_gpus and architectures differ in {', '.join(lost)}; name every "
            "architecture of the study, or give one number for all"
        )
