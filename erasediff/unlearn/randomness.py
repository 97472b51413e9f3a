"""Random numbers of a joint batch, of which each process takes its own rows."""

from __future__ import annotations

import torch
from torch import Tensor

from erasediff.models.process import NoiseSchedule


class Randomness:
    """One generator for all processes.

    Every process draws the numbers of the joint batch and keeps the rows that are its own, so that a run on n processes
    sees exactly what a run on one process with the joint batch sees. Numbers are drawn on the CPU on every device.
    """

    def __init__(self, seed: int, rank: int = 0, processes: int = 1) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.rank, self.processes = rank, processes

    def _own(self, joint: Tensor) -> Tensor:
        return joint.chunk(self.processes)[self.rank] if self.processes > 1 else joint

    def integers(self, high: int, count: int) -> Tensor:
        """``int64 [count]``, uniform in 0..high-1."""
        return self._own(torch.randint(0, high, (count * self.processes,), generator=self.generator))

    def uniform(self, count: int, *shape: int) -> Tensor:
        """``float32 [count, *shape]``, uniform in [0,1)."""
        return self._own(torch.rand(count * self.processes, *shape, generator=self.generator))

    def normal(self, count: int, *shape: int) -> Tensor:
        """``float32 [count, *shape]``, standard normal."""
        return self._own(torch.randn(count * self.processes, *shape, generator=self.generator))

    def timesteps(self, schedule: NoiseSchedule, count: int) -> Tensor:
        """``int64 [count]``, see :meth:`NoiseSchedule.draw_timesteps`."""
        return self._own(schedule.draw_timesteps(count * self.processes, self.generator))

    def rows_of(self, probabilities: Tensor) -> Tensor:
        """One column index ``int64 [B]`` for each row of ``probabilities [B,K]``, by inversion."""
        drawn = self.uniform(len(probabilities), 1).to(probabilities.device)
        return (probabilities.cumsum(1) < drawn).sum(1).clamp_max(probabilities.shape[1] - 1)
