"""The released code's inner loop, to be compared with: EraseDiff as its authors published it, not as this package runs it."""

from __future__ import annotations

from typing import ClassVar

import torch

from erasediff.unlearn.methods import StepReport
from erasediff.unlearn.methods.erasediff import EraseDiff
from erasediff.unlearn.workbench import Workbench

SETTINGS: dict[str, object] = {
    "target": "relabel",
    "teacher": "current",
    "truth_share": 1.0,
    "visited_share": 0.0,
    "repulsion": 0.0,
    "starting_point_decay": 0.0,
    "multiplier": "fixed",
    "eta": 0.1,
    "eta_decay_fraction": 0.0,
    "decay_fraction": 0.0,
}
"""The ``erase`` settings that the released algorithm has besides its inner loop."""


class Released(EraseDiff):
    """EraseDiff with an estimate of min_φ L_f(φ) before each step: steps on the forget loss, after which the weights are put back.

    What they leave behind is nothing, unless the optimiser is shared: then its moments have seen the forget gradients and bend the outer
    step. Their batches come from a generator of their own, so that the outer step sees the same numbers with them and without them.
    """

    inner_steps: ClassVar[int] = 2
    shares_optimizer: ClassVar[bool] = True

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """See :class:`~erasediff.unlearn.methods.Method`."""
        random = bench.random_of(f"inner loop {bench.step}")
        before = [parameter.detach().clone() for parameter in bench.parameters]
        inner = optimizer if self.shares_optimizer else type(optimizer)(list(bench.parameters), **optimizer.defaults)
        for _ in range(self.inner_steps):
            forget = bench.denoising_gradient("forget loss of the inner loop", bench.aimed_batch(random))
            bench.leave(forget.tensors)
            torch.nn.utils.clip_grad_norm_(bench.parameters, bench.config.max_gradient_norm)
            inner.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_copy_(list(bench.parameters), before)
        return super().step(bench, optimizer)
