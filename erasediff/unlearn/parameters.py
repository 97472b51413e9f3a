"""Which parameters are trained."""

from __future__ import annotations

from collections.abc import Callable

import torch

from erasediff.errors import BadInput
from erasediff.records.config import ParameterGroupName


def _is_cross_attention(name: str) -> bool:
    return ".attn2." in name  # diffusers: attn1 attends to the image, attn2 to the prompt


def _is_attention(name: str) -> bool:
    return ".attn1." in name or _is_cross_attention(name) or (".attentions." in name and ".transformer_blocks." not in name)


_BELONGS: dict[ParameterGroupName, Callable[[str], bool]] = {
    "full": lambda name: True,
    "attention": _is_attention,
    "cross-attention": _is_cross_attention,
    "no-cross-attention": lambda name: not _is_cross_attention(name),
}


def choose_parameters(model: torch.nn.Module, group: ParameterGroupName) -> list[torch.nn.Parameter]:
    """Let a gradient reach the chosen parameters only, and return them in the model's order.

    ``full`` and ``attention`` exist everywhere; ``cross-attention`` and its complement are those of a text-conditional
    UNet (the parameter groups of Gandikota et al. 2303.07345, §4.1).

    Raises:
        BadInput: the model has no such parameters.
    """
    chosen = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_BELONGS[group](name))
        if parameter.requires_grad:
            chosen.append(parameter)
    if not chosen:
        raise BadInput(f"the denoiser has no {group} parameters: choose erase.parameters 'full' or 'attention'.")
    return chosen
