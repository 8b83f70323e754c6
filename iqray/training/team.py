"""The processes that train one model together, each on an equal part of every batch.

What a team of several does is defined so that it differs from one process in two things only:

- Batch normalisation takes its statistics over a process's own part of the batch, as torch's
  DistributedDataParallel does; the running averages that are kept are those of rank 0.
- Dropout is drawn for each part from a seed of its own. Rank 0's is that of a process alone.

The loss that is minimised is the mean over the whole batch. Crops, flips and order belong to the
images, not to the processes. The number of processes is part of a trial's content for this reason.
"""

from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Team:
    """One process's place among those that train a model; `size` above 1 needs torch.distributed.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this process writes what the team leaves."""
        return self.rank == 0

    def join(self, model: nn.Module) -> nn.Module:
        """The model to call in training: gradients become means over the team."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def combine(
        self, loss: torch.Tensor, num_correct: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and right answers of the whole batch from those of equal parts; no host waits."""
        if self.size == 1:
            return loss, num_correct
        both = torch.stack([loss.double() / self.size, num_correct.double()])
        distributed.all_reduce(both)
        return both[0].to(loss.dtype), both[1].to(num_correct.dtype)

    def check_agreed(self, what: str, value: object) -> None:
        """Check that all processes have the same value, such as the step they continue from.

        Raises:
            RuntimeError: they differ; trying again is safe, going on is not.
        """
        if self.size == 1:
            return
        values: list[object] = [None] * self.size
        distributed.all_gather_object(values, value)
        if any(other != value for other in values):
            raise RuntimeError(f"the processes of a trial differ in {what}: {values}")


ALONE = Team()
