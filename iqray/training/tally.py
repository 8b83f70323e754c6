"""What an epoch has come to so far: losses, right answers, time."""

import time
from dataclasses import dataclass, field

import torch


@dataclass
class EpochTally:
    """Losses and right answers of the open epoch, on the device.

    They stay there until the epoch ends, so that no step waits for the host.

    Attributes:
        losses: by step, scalars.
        num_correct: by step, scalars.
        num_restored: steps that ran before an interruption, outside this clock.
        began: when the epoch, or what is left of it, began: `time.perf_counter`.
    """

    losses: list[torch.Tensor] = field(default_factory=list)
    num_correct: list[torch.Tensor] = field(default_factory=list)
    num_restored: int = 0
    began: float = field(default_factory=time.perf_counter)

    def add(self, loss: torch.Tensor, num_correct: torch.Tensor) -> None:
        """Count a step: its mean loss and its number of right answers, scalars."""
        self.losses.append(loss)
        self.num_correct.append(num_correct)

    def summarise(self, batch_size: int) -> dict[str, float]:
        """Mean loss, share of right answers, speed and seconds; waits for the device.

        Args:
            batch_size: images of a step, of all processes that share it.
        """
        loss = float(stack(self.losses).double().mean())
        seconds = time.perf_counter() - self.began
        num_timed = (len(self.losses) - self.num_restored) * batch_size
        return {
            "loss": loss,
            "top1": int(stack(self.num_correct).sum()) / (len(self.losses) * batch_size),
            "images_per_s": num_timed / seconds,
            "seconds": seconds,
        }


def stack(values: list[torch.Tensor]) -> torch.Tensor:
    """Scalars as one tensor, (num_values,); empty for none."""
    return torch.stack(values) if values else torch.zeros(0)
