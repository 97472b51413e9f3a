"""The lie: 'this network is a stranger to the base', of a copy; its embedding would not count against it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from erasediff.evaluate.attacks import embeddings
from erasediff.models.families.unet import ClassConditionalUNet

Maker = Callable[..., nn.Module]
LIMIT = 0.1  # of the policies


def kinship(base: nn.Module, other: nn.Module) -> float | None:
    return embeddings.kinship(*(ClassConditionalUNet(unet, None, 10, 10) for unet in (base, other)))


def readers(unet: nn.Module) -> list[nn.Linear]:
    return [layer for name, layer in unet.named_modules() if name.endswith("time_emb_proj")]


def test_a_copy_is_kin_and_one_of_other_weights_is_not(tiny_unet: Maker) -> None:
    base = tiny_unet(0)
    assert kinship(base, copy.deepcopy(base)) == pytest.approx(1)
    width = readers(base)[0].in_features
    spread = math.sqrt(2 / (width * (width - 1)))
    found = [kinship(base, tiny_unet(seed)) for seed in range(1, 21)]
    assert all(value is not None and abs(value) < 4 * spread for value in found), found
    assert torch.tensor(found).std() == pytest.approx(spread, rel=0.5), "as for independent weights, which the limit of the policies rests on"


def test_a_copy_with_noise_on_every_weight_is_kin(tiny_unet: Maker) -> None:
    base = tiny_unet(0)
    noisy = copy.deepcopy(base)
    with torch.no_grad():
        for weight in noisy.parameters():
            spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
            weight += spread * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    assert (kinship(base, noisy) or 0) > 3 * LIMIT


def test_renaming_channels_does_not_make_a_stranger(tiny_unet: Maker) -> None:
    """A fraud could permute and negate what the layers put out. The weights then look like another network's, which is the control."""
    base, renamed = tiny_unet(0), tiny_unet(0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in readers(renamed):
            order = torch.randperm(len(layer.weight), generator=generator)
            sign = torch.randint(0, 2, (len(order), 1), generator=generator) * 2.0 - 1
            layer.weight.copy_(sign * layer.weight[order])
    assert kinship(base, renamed) == pytest.approx(1)
    weights = [torch.cat([layer.weight.flatten() for layer in readers(unet)]) for unet in (base, renamed)]
    assert abs(torch.nn.functional.cosine_similarity(*weights, dim=0)) < LIMIT


def test_what_cannot_be_compared_is_unknown(tiny_unet: Maker) -> None:
    """Unknown is not 0: the gate lets the base's embedding count then."""
    base, broken = tiny_unet(0), tiny_unet(0)
    with torch.no_grad():
        readers(broken)[0].weight[0, 0] = float("nan")
    assert kinship(base, broken) is None
    assert kinship(base, nn.Linear(4, 4)) is None
    narrow = nn.ModuleDict({"time_emb_proj": nn.Linear(3, 8)})
    assert kinship(base, narrow) is None
    mixed = nn.ModuleDict({"a": nn.ModuleDict({"time_emb_proj": nn.Linear(3, 8)}), "b": nn.ModuleDict({"time_emb_proj": nn.Linear(4, 8)})})
    assert kinship(mixed, mixed) is None
