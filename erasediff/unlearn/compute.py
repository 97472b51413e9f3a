"""The device and processes of an erasure (through accelerate) and its precision (through torch's autocast).

accelerate's mixed precision is not used: it is set once per process, and a process may run several erasures.

A method needs the retain and the forget gradient *apart* before λ is known. So the model is not wrapped in
``DistributedDataParallel``, which would reduce one gradient behind a backward pass: the two are reduced here, tensor by
tensor and in place. For the same reason ``GradScaler``, which unscales one optimiser's ``.grad``, is replaced by
:class:`LossScale`: gradients are unscaled where they are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from accelerate import PartialState
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.models.denoiser import resolve_device
from erasediff.records.config import DeviceName, PrecisionName

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class LossScale:
    """Dynamic loss scaling for fp16 (Micikevicius et al. 2018, §3.2): halve on an overflow, double after calm steps."""

    scale: float = 1.0
    calm_steps: int = 0
    growth_interval: int = 200

    @property
    def active(self) -> bool:
        """Whether occasional overflows are normal; at scale 1 an overflow is a failure."""
        return self.scale > 1.0

    def overflowed(self) -> None:
        """A gradient was not finite."""
        self.scale, self.calm_steps = max(1.0, self.scale / 2), 0

    def stepped(self) -> None:
        """A step was taken."""
        self.calm_steps += 1
        if self.active and self.calm_steps % self.growth_interval == 0:
            self.scale *= 2


class Compute:
    """The device and the processes of this run; reads torchrun's environment."""

    def __init__(self, device: DeviceName = "cpu", precision: PrecisionName = "fp32") -> None:
        """Join the other processes, if there are any.

        Raises:
            BadInput: the config names CUDA and there is none, or fp16 without a GPU.
        """
        cpu = resolve_device(device).type == "cpu"
        if precision == "fp16" and cpu:
            raise BadInput("erase.precision 'fp16' needs a GPU: use 'fp32' or 'bf16' here.")
        self._state = PartialState(cpu=cpu)
        self.device: torch.device = torch.device("cpu") if cpu else self._state.device
        self.rank: int = self._state.process_index
        self.processes: int = self._state.num_processes
        self._half = _HALF.get(precision)
        self.loss_scale = LossScale(2.0**16 if precision == "fp16" else 1.0)

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a forward pass runs."""
        return torch.autocast(self.device.type, self._half, enabled=self._half is not None)

    def mean_(self, gradient: Sequence[Tensor]) -> None:
        """Average a gradient over the processes, in place."""
        if self.processes == 1:
            return
        waiting = [torch.distributed.all_reduce(tensor, async_op=True) for tensor in gradient]
        for work in waiting:
            work.wait()
        torch._foreach_div_(list(gradient), self.processes)

    def mean_of(self, value: Tensor) -> float:
        """The average of a scalar over the processes."""
        value = value.detach().float().clone()
        self.mean_([value])
        return value.item()

    def main_first(self) -> AbstractContextManager[object]:
        """The context that the first process enters alone, before the others."""
        context: AbstractContextManager[object] = self._state.main_process_first()
        return context

    def wait(self) -> None:
        """Wait until every process is here."""
        self._state.wait_for_everyone()

    def agreed(self, value: bool) -> bool:
        """The first process's value, broadcast to every process."""
        if self.processes > 1:
            shared = torch.tensor(int(value), device=self.device)
            torch.distributed.broadcast(shared, src=0)
            return bool(shared.item())
        return value
