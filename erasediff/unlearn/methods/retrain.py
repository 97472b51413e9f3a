"""Training from scratch without the forget set: the reference that other methods approximate."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods.base import StepReport
from erasediff.unlearn.workbench import Workbench


class Retrain:
    """Forget everything, then learn the retain set: δ = ∇L_r from θ_0 ~ the architecture's own initialisation. 1F+1B.

    Exact unlearning by definition: neither the base's weights nor the forget set enter. It follows
    no paper. It learns as much as ``erase.steps`` allows: a fair reference gets the base's own steps, batch size and rate.

    A label without images would keep its random embedding, and the network's output for it would be arbitrary:
    up to 6 % of such samples were called the forgotten digit. So forgotten labels are trained as further null
    labels: sampling one gives any retained class.
    """

    keeps_earlier: ClassVar[bool] = True

    def __init__(self, config: EraseConfig) -> None:
        """Refuse to train only a part of the weights.

        Raises:
            BadInput: the rest would keep the base's weights, or stay random.
        """
        if config.parameters != "full":
            raise BadInput(f"method 'retrain' trains every weight, erase.parameters says '{config.parameters}': choose 'full'.")

    def prepare(self, bench: Workbench) -> None:
        """Put new weights in place of the base's, drawn on the CPU from the seed.

        Raises:
            BadInput: the model has no null row.
        """
        if bench.data.null_row is None:
            raise BadInput("method 'retrain' trains forgotten labels as further null rows, and the model has none: choose another erase.method.")
        model = bench.model
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(bench.random_of("initial weights").generator.initial_seed())
            model.load_state_dict(bench.fresh().state_dict())

    def step(self, bench: Workbench, optimizer: torch.optim.Optimizer) -> StepReport:
        """See :class:`Method`."""
        batch = bench.retain_batch()
        batch = batch.under(self._names_of_null(bench, batch.labels))
        retain = bench.denoising_gradient("retain loss", batch)
        bench.leave(retain.tensors)
        return StepReport(retain_loss=retain.loss)

    @staticmethod
    def _names_of_null(bench: Workbench, labels: Tensor) -> Tensor:
        """Labels ``[B]`` in which the null label and the forgotten labels alternate in place of the null label."""
        data, null, first = bench.data, bench.data.null_row, bench.step + bench.compute.rank * bench.rows
        names = torch.tensor([null, *data.forgotten.tolist(), *data.earlier], device=labels.device)
        turn = torch.arange(first, first + len(labels), device=labels.device) % len(names)
        under_null: Tensor = torch.eq(labels, cast(int, null))  # prepare() has seen it
        return torch.where(under_null, names[turn], labels)
