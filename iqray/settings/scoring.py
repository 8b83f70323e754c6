"""How a study wants its images scored, and with what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from iqray.dataset import StudyPart


@dataclass(frozen=True)
class ScorePool:
    """A pool of scoring actors, with every setting."""

    metrics: tuple[str, ...]
    min_actors: int
    max_actors: int | None  # none for as many as fit
    num_cpus: float
    num_gpus: float


class PoolSettings(StudyPart):
    """A pool of scoring actors; what is left out is as `ScoringSettings` has it."""

    metrics: tuple[str, ...] = Field(min_length=1, description="that each actor holds")
    min_actors: int | None = Field(None, ge=1)
    max_actors: int | None = Field(None, ge=1)
    num_cpus: float | None = Field(None, gt=0)
    num_gpus: float | None = Field(None, ge=0)


class ScoringSettings(StudyPart):
    """How images are scored, and with what."""

    small_images: Literal["reject", "upscale"] = Field(
        "reject",
        description="an image below a metric's smallest side: a too_small row, or bicubic "
        "upscaling to that side, noted in its row",
    )
    shard_size: int = Field(256, ge=1, description="images scored and written together")
    pools: Literal["shared", "per_metric"] | tuple[PoolSettings, ...] = Field(
        "shared",
        description="shared: one pool of actors that hold all metrics and decode an image once; "
        "per_metric: a pool for each metric; or a list of pools. Pools run at the same time",
    )
    min_actors: int = Field(1, ge=1, description="of a pool, kept all the time")
    max_actors: int | None = Field(None, ge=1, description="of a pool; none for as many as fit")
    num_cpus: float = Field(1, gt=0, description="per actor; also its number of threads")
    num_gpus: float = Field(0, ge=0, description="per actor; fractions share a GPU")
    max_failed_share: float = Field(
        0.01, ge=0, le=1, description="a larger share of unscorable images stops the study"
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32",
        description="of networks; less than fp32 only behind the rank gate, which scores in fp32 "
        "whatever decides about a subset",
    )
    max_image_s: float = Field(
        1800,
        gt=0,
        description="an image that takes longer with a metric is recorded as crashed; reading and "
        "decoding those around it, up to 32 megapixels, counts too",
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for pool in self.list_pools(["any"]):
            if pool.max_actors is not None and pool.min_actors > pool.max_actors:
                raise ValueError(
                    f"scoring has a pool of at least {pool.min_actors} and at most "
                    f"{pool.max_actors} actors; lower min_actors or raise max_actors"
                )
            if self.precision == "tf32" and not pool.num_gpus:
                raise ValueError(
                    "scoring.precision is tf32, which only NVIDIA GPUs have, and a pool has no "
                    "GPU; give every pool num_gpus, or choose fp32 or bf16"
                )
        return self

    def list_pools(self, metrics: Sequence[str]) -> list[ScorePool]:
        """Pools for metrics, with every setting filled in."""
        if self.pools == "shared":
            pools = [PoolSettings(metrics=tuple(metrics))]
        elif self.pools == "per_metric":
            pools = [PoolSettings(metrics=(metric,)) for metric in metrics]
        else:
            pools = list(self.pools)
        return [
            ScorePool(
                metrics=pool.metrics,
                min_actors=self.min_actors if pool.min_actors is None else pool.min_actors,
                max_actors=self.max_actors if pool.max_actors is None else pool.max_actors,
                num_cpus=self.num_cpus if pool.num_cpus is None else pool.num_cpus,
                num_gpus=self.num_gpus if pool.num_gpus is None else pool.num_gpus,
            )
            for pool in pools
        ]
