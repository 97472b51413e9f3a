"""SISS (Alberti et al., arXiv 2503.01034): keep and forget from one forward pass, by importance sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from erasediff.errors import NonFinite
from erasediff.models.noised import NoisedBatch
from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods.base import StepReport
from erasediff.unlearn.multiplier import gradient_dots
from erasediff.unlearn.workbench import Workbench

SHARE = 0.1
"""The forget term's gradient is scaled to this share of the keep term's: the authors' recommendation."""


@dataclass(frozen=True)
class MixedStates:
    """States m_t ``[B,C,H,W]`` of the mixture of a retain image x and a forget image a, seen from each of the two.

    The goals ``[B,C,H,W]`` are what a perfect denoiser would predict if m_t had come from x, or from a; the weights ``[B]``
    are q(m_t | x) / q_λ(m_t | x, a) and q(m_t | a) / q_λ(m_t | x, a).
    """

    noised: Tensor
    timesteps: Tensor
    labels: Tensor
    keep_goal: Tensor
    forget_goal: Tensor
    keep_weight: Tensor
    forget_weight: Tensor


class SISS:
    """Descend the importance-weighted loss of a retain image, ascend that of a forget image, both at the same m_t. 1F+2B.

        ℓ(θ) = E_{m_t ~ q_λ} [ q(m_t|x)/q_λ · ‖(m_t - γ_t x)/σ_t - ε_θ(m_t)‖² - s · q(m_t|a)/q_λ · ‖(m_t - γ_t a)/σ_t - ε_θ(m_t)‖² ]
        q_λ = (1-λ) q(m_t|x) + λ q(m_t|a),  λ = 1/2,  γ_t = √ā_t,  σ_t = √(1-ā_t),  x ~ D_r, a ~ D_f
        δ = ∇(first term) - s ∇(second term),   s such that its length is a tenth of the first's

    Source: 2503.01034, §4, the SISS objective with the defensive mixture q_λ, and the scaling of the second gradient.

    Deviations: the paper draws x from X = D_r ∪ D_f and corrects by n/(n-k) and (1+s)·k/(n-k); here x comes from D_r, so the
    first term is the deletion loss itself, and what is left of the second is the superfactor's part, whose scale is set as above.
    The mixture's component alternates by row: no random number, and exactly half of each. The paper's denoiser has no
    condition or the one of the prompt; here x and a have different labels, while one forward pass has one condition a
    pair. Half of the pairs go under a's label, which the model then fills with x instead of a; the other half go under
    x's own label (or the null label, by label dropout), where the first term is the ordinary loss that keeps the model.
    """

    keeps_earlier: ClassVar[bool] = False

    def __init__(self, config: EraseConfig) -> None:
        self._share = SHARE if config.balance is None else config.balance

    def prepare(self, bench: Workbench) -> None:
        """Nothing to prepare."""

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """See :class:`Method`."""
        pairs = paired(bench, bench.retain_batch(), bench.forget_batch())

        def losses(part: MixedStates) -> list[tuple[str, Tensor]]:
            prediction = bench.denoiser(part.noised, part.timesteps, part.labels).float()
            return [
                ("keep loss", weighted(prediction, part.keep_goal, part.keep_weight)),
                ("forget loss", weighted(prediction, part.forget_goal, part.forget_weight)),
            ]

        keep, forget = bench.gradients(losses, pairs)
        dots = gradient_dots(keep.tensors, forget.tensors)
        scale = self._share * math.sqrt(dots.retain_retain / dots.forget_forget) if dots.forget_forget > 0 else 0.0
        if not (math.isfinite(scale) and math.isfinite(dots.forget_forget)):
            raise NonFinite("s is not finite")
        torch._foreach_add_(keep.tensors, forget.tensors, alpha=-scale)
        bench.leave(keep.tensors)
        return StepReport(keep.loss, forget.loss, -scale, dots.cosine)


def paired(bench: Workbench, keep: NoisedBatch, forget: NoisedBatch) -> MixedStates:
    """Join a retain and a forget batch row by row: component and label of a pair follow from its row in the joint batch."""
    count, device = len(keep.labels), keep.labels.device
    row = torch.arange(bench.compute.rank * count, (bench.compute.rank + 1) * count, device=device)
    from_forget, under_forget = row % 2 == 1, row // 2 % 2 == 0
    timesteps = torch.where(from_forget, forget.timesteps, keep.timesteps)
    noised = torch.where(_wide(from_forget), forget.noised, keep.noised)
    signal = _wide(bench.schedule.alphas_cumprod.to(device)[timesteps])
    off_keep, off_forget = (noised - signal.sqrt() * clean for clean in (keep.clean, forget.clean))
    variance = 1 - signal
    # log q(m_t|x) - log q(m_t|a): a ratio of densities would be 0/0 at small t
    log_ratio = ((off_forget.square() - off_keep.square()) / (2 * variance)).flatten(1).sum(1)
    return MixedStates(
        noised,
        timesteps,
        torch.where(under_forget, forget.labels, keep.labels),
        bench.schedule.goal(keep.clean, off_keep / variance.sqrt(), timesteps),
        bench.schedule.goal(forget.clean, off_forget / variance.sqrt(), timesteps),
        2 * torch.sigmoid(log_ratio),
        2 * torch.sigmoid(-log_ratio),
    )


def weighted(prediction: Tensor, goal: Tensor, weight: Tensor) -> Tensor:
    """Mean over samples of a weight times the sample's mean square error."""
    return (weight * (prediction - goal).square().flatten(1).mean(1)).mean()


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
