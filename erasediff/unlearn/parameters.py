"""Which parameters are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from erasediff.errors import BadInput
from erasediff.records.config import ParameterGroupName


def choose_parameters(
    model: torch.nn.Module, groups: Mapping[ParameterGroupName, Callable[[str], bool]], group: ParameterGroupName
) -> list[torch.nn.Parameter]:
    """Let a gradient reach the parameters of one of a family's groups only, and return them in the model's order.

    Raises:
        BadInput: the model has no such parameters.
    """
    chosen = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(groups[group](name))
        if parameter.requires_grad:
            chosen.append(parameter)
    if not chosen:
        raise BadInput(f"the denoiser has no {group} parameters: choose erase.parameters 'full' or 'attention'.")
    return chosen
