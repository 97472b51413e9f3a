"""What the base predicts for the mixture of the retained classes, in closed form from its null label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from erasediff.models.denoiser import Denoiser
from erasediff.models.noised import NoisedBatch
from erasediff.unlearn.objective import Repulsion, Target, named_among
from erasediff.unlearn.posterior import ClassPosterior
from erasediff.unlearn.randomness import Randomness

MAX_FORGOTTEN_POSTERIOR = 0.5
"""The closed form divides by 1 - p(f | x_t), and so divides the base's error too. Above this sum, a drawn retained label takes its place."""


@dataclass(frozen=True)
class RetainedMixture:
    """The mixture of all classes, which is what the null label stands for, without the forgotten ones.

        ε_mix(x_t) = (ε(x_t | ∅) - Σ_f p(f | x_t)·ε(x_t | f)) / (1 - Σ_f p(f | x_t))

    Attributes:
        posterior: p(c | x_t) over **all** classes, the forgotten ones too.
        forgotten: ``int64 [K]``, the labels to take out.
        null_row: the row that stands for all classes; the base must have been trained on it.
        repulsion: ρ(t), how far the mixture is pushed away from a forgotten label, as by
            :func:`~erasediff.unlearn.objective.repelled`; it costs no extra pass, as the forgotten labels are predicted anyway.
    """

    posterior: ClassPosterior
    forgotten: Tensor
    null_row: int
    repulsion: Repulsion

    def target(self) -> Target:
        """The forget target. Where x_t is more likely of a forgotten class than not, a label is drawn from the retained ones."""

        @torch.no_grad()
        def target(batch: NoisedBatch, teacher: Denoiser, random: Randomness) -> Tensor:
            logs = self.posterior.log_densities(batch.noised, batch.timesteps)
            shares, beyond = self._shares(logs)
            rest = teacher(batch.noised, batch.timesteps, torch.where(beyond, self._drawn(logs, random), self.null_row))
            own = torch.stack([teacher(batch.noised, batch.timesteps, torch.full_like(batch.labels, int(f))) for f in self.forgotten])
            goal = _without(rest, shares, own)
            return self._repelled(goal, own, batch)

        return target

    @torch.no_grad()
    def held(self, batch: NoisedBatch, dropped: Tensor, base: Denoiser) -> Tensor:
        """The goal for retain images, ``[B,C,H,W]``: the base's prediction under each image's own label, or this mixture.

        It is one call of the base, on ``B + K·dropped`` rows. Where x_t is more likely of a forgotten class than not, the
        image's own label stands for the mixture: it is a draw from it. The mixture is repelled here as it is in the target,
        so that sampling without a label does not give the forgotten class either.

        Args:
            batch: noised retain images under their own labels.
            dropped: ``bool [B]``, the rows that are shown under the null label.
            base: the frozen denoiser.
        """
        rows = dropped.nonzero().flatten()
        shares, beyond = self._shares(self.posterior.log_densities(batch.noised[rows], batch.timesteps[rows]))
        labels = batch.labels.clone()
        labels[rows] = torch.where(beyond, labels[rows], self.null_row)
        again = torch.cat([torch.arange(len(labels), device=labels.device), rows.repeat(len(self.forgotten))])
        predicted = base(batch.noised[again], batch.timesteps[again], torch.cat([labels, self.forgotten.repeat_interleave(len(rows))]))
        goal, own = predicted[: len(labels)], predicted[len(labels) :]
        own = own.view(len(self.forgotten), len(rows), *own.shape[1:])
        goal[rows] = self._repelled(_without(goal[rows], shares, own), own, batch.only(rows))
        return goal

    def _repelled(self, goal: Tensor, own: Tensor, batch: NoisedBatch) -> Tensor:
        """``goal [B,C,H,W]`` pushed away from ``own [K,B,C,H,W]``: a row's own forgotten label, or one of them in turn."""
        named = torch.searchsorted(self.forgotten, named_among(self.forgotten, batch.labels))
        return goal + self.repulsion(batch.timesteps) * (goal - own[named, torch.arange(len(goal), device=goal.device)])

    def _shares(self, logs: Tensor) -> tuple[Tensor, Tensor]:
        """p(f | x_t) ``[B,K]``, or 0 in the rows ``bool [B]`` where they sum to too much."""
        shares = logs.softmax(dim=1)[:, torch.isin(self.posterior.classes, self.forgotten)]
        beyond = shares.sum(dim=1) > MAX_FORGOTTEN_POSTERIOR
        return torch.where(beyond.unsqueeze(1), 0.0, shares), beyond

    def _drawn(self, logs: Tensor, random: Randomness) -> Tensor:
        """A label ``[B]`` from p(c | x_t, c retained)."""
        retained = ~torch.isin(self.posterior.classes, self.forgotten)
        drawn: Tensor = self.posterior.classes[retained][random.rows_of(logs[:, retained].softmax(dim=1))]
        return drawn


def _without(rest: Tensor, shares: Tensor, own: Tensor) -> Tensor:
    """``rest [B,C,H,W]`` less ``shares [B,K]`` of ``own [K,B,C,H,W]``, over what is left of the shares."""
    return (rest - torch.einsum("bk,kbchw->bchw", shares, own)) / (1 - shares.sum(dim=1)).view(-1, 1, 1, 1)
