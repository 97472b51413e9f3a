"""SFR-on (Huang et al., arXiv 2409.19732): a fast masked ascent on the forget set, then a slow step that repairs the retain set."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from erasediff.errors import NonFinite
from erasediff.models.noised import NoisedBatch
from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods.base import StepReport
from erasediff.unlearn.methods.prelude import fisher_diagonal
from erasediff.unlearn.workbench import Workbench

TEMPERATURE = 0.5
"""λ of the adaptive coefficients: the authors' setting for CIFAR-10."""
THRESHOLD = 1.0
"""γ of the mask: the authors' setting for CIFAR-10."""
ASCENT = 0.1
"""How far an ascent moves a masked weight at most (root mean square), in units of the optimiser's rate α_t.

Not tuned. One run each of 150 steps on digits with a 45,000-parameter UNet: 0.05 and 0.1 hardly raise the forget loss, 0.2 raises the
retain loss nearly as much, 1 destroys the model.
"""


class SFRon:
    """Ascend the forget loss by a step of its own, and leave the retain gradient found *there* to the optimiser. 2F+2B.

        m = 1[ F_f / F_r ≥ γ ],   F the diagonal of the Fisher information at the base
        θ^f = θ + β_t · m ⊙ ∇ mean_i ε̃_i ℓ_i^f(θ),   ε̃_i = [ℓ_i^f(θ)]^-λ without a gradient
        δ = ∇L_r(θ^f),  taken from θ^f

    Source: 2409.19732, §4: sample-wise adaptive coefficients, forget-remain balanced weight saliency, and the fast-slow
    update that stands for a step along (∇²L_r)^-1 m ⊙ ∇L_f. ε̃ keeps the ascent bounded: a forgotten sample counts less.

    Deviations: one repair step an ascent, as in the authors' runs on CIFAR-10. The Fisher information is estimated from batches
    (:func:`fisher_diagonal`), which leaves the ratio as it is, and from random batches, not from a pass over the data. The
    ascent is a gradient step without an optimiser's state, as a resume would have to restore a second Adam. It is put on
    the optimiser's scale, and clipped as the authors' is (otherwise it feeds on its own growth):
    β_t = α_t √|m| / max(‖m ⊙ ∇‖, its length at the base). It falls with the learning rate, as the authors' does. The
    curve ``forget_loss`` is the mean of ε̃_i ℓ_i.
    """

    keeps_earlier: ClassVar[bool] = False

    def __init__(self, config: EraseConfig) -> None:
        self._ascent = ASCENT if config.balance is None else config.balance
        self._mask: list[Tensor] = []
        self._reach = self._base_norm = 0.0

    def prepare(self, bench: Workbench) -> None:
        """Find the mask and the length of the ascent at the base."""
        forget, loss = fisher_diagonal(bench, "forget Fisher information", bench.forget_batch)
        retain, _ = fisher_diagonal(bench, "retain Fisher information", bench.retain_batch)
        self._mask = [(f > 0) & (f >= THRESHOLD * r) for f, r in zip(forget, retain, strict=True)]
        total = sum(float((f * mask).sum()) for f, mask in zip(forget, self._mask, strict=True))
        self._reach = self._ascent * math.sqrt(sum(int(mask.sum()) for mask in self._mask))
        self._base_norm = math.sqrt(total) / loss**TEMPERATURE if self._reach > 0 else math.inf  # an empty mask moves nothing
        if math.isnan(self._base_norm):
            raise NonFinite("the Fisher information is not finite")

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """See :class:`Method`; the parameters are put back if the step fails after the ascent."""
        forget = bench.gradient("forget loss", lambda part: adaptive_loss(bench, part), bench.forget_batch())
        torch._foreach_mul_(forget.tensors, self._mask)
        norm = float(torch.stack(torch._foreach_norm(forget.tensors)).norm())
        if not math.isfinite(norm):
            raise NonFinite("β is not finite")
        length = optimizer.param_groups[0]["lr"] * self._reach / max(norm, self._base_norm)
        parameters: list[Tensor] = list(bench.parameters)
        before = [parameter.detach().clone() for parameter in parameters]
        try:
            with torch.no_grad():
                torch._foreach_add_(parameters, forget.tensors, alpha=length)
            retain = bench.denoising_gradient("retain loss", bench.retain_batch())
        except Exception:
            with torch.no_grad():
                torch._foreach_copy_(parameters, before)
            raise
        bench.leave(retain.tensors)
        return StepReport(retain.loss, forget.loss, length)


def adaptive_loss(bench: Workbench, batch: NoisedBatch) -> Tensor:
    """Mean of ε̃_i ℓ_i over a batch; ℓ_i is one sample's mean square error."""
    prediction = bench.denoiser(batch.noised, batch.timesteps, batch.labels).float()
    losses = (prediction - batch.goal).square().flatten(1).mean(1)
    return (losses * losses.detach().clamp_min(torch.finfo(losses.dtype).tiny).pow(-TEMPERATURE)).mean()
