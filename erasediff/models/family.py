"""The interface of a family of models. Engine, sampling, attacks, gate, export and serving ask it, and never the class of a model.

A condition is a row, an ``int64`` number: a class, or a prompt that was encoded once. What the network denoises is a state: an image in
-1..1, or a latent that an autoencoder makes of one.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from erasediff.models.autoencoder import Autoencoder
from erasediff.models.denoiser import Denoiser, to_bytes, to_unit
from erasediff.models.process import NoiseSchedule, build_scheduler, deterministic, schedule_of
from erasediff.models.sampler import Source, sample
from erasediff.records.config import ParameterGroupName, SamplerConfig

Shape = tuple[int, int, int]


def _is_cross_attention(name: str) -> bool:
    return ".attn2." in name  # diffusers: attn1 attends to the image, attn2 to the prompt


def _is_attention(name: str) -> bool:
    return ".attn1." in name or _is_cross_attention(name) or (".attentions." in name and ".transformer_blocks." not in name)


@dataclass(frozen=True)
class Model(ABC):
    """A loaded model.

    Attributes:
        network: the denoiser's weights, in evaluation mode; they alone are trained.
        scheduler: the diffusers scheduler that the model came with, or the one that serves it.
        conditions: how many rows may be asked for: classes or prompts, without the null row.
        null_row: the row that stands for no condition; ``None`` if the model was trained without one.
    """

    network: nn.Module
    scheduler: Any
    conditions: int
    null_row: int | None

    kind: ClassVar[str]
    """The ``_class_name`` of its ``model_index.json``, by which the family is chosen."""
    latent: ClassVar[bool] = False
    """Whether states are latents; else they are images, and what is predicted of them is clipped to -1..1."""
    trainable: ClassVar[Mapping[ParameterGroupName, Callable[[str], bool]]] = {
        "full": lambda name: True,
        "attention": _is_attention,
        "cross-attention": _is_cross_attention,
        "no-cross-attention": lambda name: not _is_cross_attention(name),
    }
    """The groups of parameters that may be trained (Gandikota et al. 2303.07345, §4.1), by their names in the network."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read a checked folder in diffusers' layout, in float32.

        Raises:
            BadInput: a component is not of the family, damaged, or does not fit the others.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the folder that :meth:`load` and diffusers read."""

    @property
    @abstractmethod
    def state_shape(self) -> Shape:
        """``(C, H, W)`` of one state."""

    @property
    @abstractmethod
    def image_shape(self) -> Shape:
        """``(C, H, W)`` of one image."""

    @abstractmethod
    def denoiser_of(self, network: nn.Module) -> Denoiser:
        """ε_θ or v_θ of a network with this one's architecture."""

    @abstractmethod
    def rows(self) -> Tensor:
        """What each row asks the network by, the null row's included: ``float32 [K,…]``."""

    @abstractmethod
    def with_rows(self, rows: Tensor) -> Self:
        """A copy that has ``rows [R,…]`` in place of its own, as many or more; the network is copied too."""

    @abstractmethod
    def freeing_last_row(self) -> tuple[Self, list[nn.Parameter]]:
        """This model with its last row as parameters that can be trained, and these; it shares its network's other weights."""

    @abstractmethod
    def readers(self) -> Sequence[Sequence[nn.Linear]]:
        """The layers that read a row, in groups: those of a group read the same vector."""

    def encode(self, images: Tensor) -> Tensor:
        """States ``float32 [N,C,H,W]`` of images ``uint8 [N,H,W,C]``."""
        return to_unit(images)

    def decode(self, states: Tensor) -> Tensor:
        """Images ``uint8 [N,H,W,C]`` of states ``float32 [N,C,H,W]``."""
        return to_bytes(states)

    def decoder(self) -> nn.Module | None:
        """The network that makes images in -1..1 of states, as it is exported; ``None`` where a state is an image."""
        return None

    def fresh(self) -> nn.Module:
        """A network of the same architecture with its own initial weights, drawn by torch's global generator."""
        made: nn.Module = type(self.network).from_config(self.network.config)  # type: ignore[attr-defined]
        return made

    @property
    def denoiser(self) -> Denoiser:
        """ε_θ or v_θ, see :class:`erasediff.models.denoiser.Denoiser`."""
        return self.denoiser_of(self.network)

    @property
    def schedule(self) -> NoiseSchedule:
        """The forward process the model was trained with."""
        return replace(schedule_of(self.scheduler), clipped=not self.latent)

    def to(self, device: torch.device) -> Self:
        """The same model, moved."""
        self.network.to(device)
        return self

    def with_network(self, network: nn.Module) -> Self:
        """The same model with other weights."""
        return replace(self, network=network)

    def copied(self, device: torch.device) -> Self:
        """A model with a network of its own."""
        return self.with_network(copy.deepcopy(self.network).to(device))

    def sampled_by(self, sampler: SamplerConfig) -> Self:
        """The same model with the scheduler that a run measures, saves and serves it with."""
        return replace(self, scheduler=build_scheduler(sampler, self.schedule))

    def source(self, device: torch.device) -> Source:
        """What is sampled from."""
        self.to(device)
        return Source(self.denoiser, deterministic(self.scheduler, self.schedule), self.state_shape, self.null_row, device, self.decode)

    def sample(self, labels: Tensor, seeds: list[int], steps: int = 25, guidance_scale: float = 1.0) -> Tensor:
        """One image ``uint8 [H,W,C]`` for each row of ``labels [N]`` and its seed; see :func:`erasediff.models.sampler.sample`."""
        return sample(self.source(next(self.network.parameters()).device), labels, seeds, steps, guidance_scale)


@dataclass(frozen=True)
class LatentModel(Model):
    """A model whose states are the latents of an autoencoder, which is never trained."""

    autoencoder: Autoencoder

    latent = True

    @property
    def image_shape(self) -> Shape:
        """See :class:`Model`."""
        return self.autoencoder.image_shape(self.state_shape)

    def encode(self, images: Tensor) -> Tensor:
        """See :class:`Model`."""
        return self.autoencoder.encode(images)

    def decode(self, states: Tensor) -> Tensor:
        """See :class:`Model`."""
        return self.autoencoder.decode(states)

    def decoder(self) -> nn.Module:
        """See :class:`Model`."""
        return self.autoencoder.decoder()

    def to(self, device: torch.device) -> Self:
        """See :class:`Model`."""
        self.autoencoder.network.to(device)
        return super().to(device)


@dataclass(frozen=True)
class TabledModel(Model):
    """A model whose rows lie in tables of its network: one, or one for each block, of which a row is then the concatenation."""

    @abstractmethod
    def table_names(self) -> tuple[str, ...]:
        """The names of the tables among the network's modules."""

    def rows(self) -> Tensor:
        """See :class:`Model`; ``[K,E]``, E summed over the tables."""
        return torch.cat([_weight(self.network, name) for name in self.table_names()], dim=1)

    def with_rows(self, rows: Tensor) -> Self:
        """See :class:`Model`."""
        network, first = copy.deepcopy(self.network), 0
        for name in self.table_names():
            width = _weight(network, name).shape[1]
            part = rows[:, first : first + width].to(_weight(network, name)).clone()
            network.set_submodule(name, nn.Embedding(len(part), width, _weight=part))
            first += width
        return self.with_network(network)

    def freeing_last_row(self) -> tuple[Self, list[nn.Parameter]]:
        """See :class:`Model`."""
        freed = [FreeLastRow(_weight(self.network, name)) for name in self.table_names()]
        for name, table in zip(self.table_names(), freed, strict=True):
            self.network.set_submodule(name, table)
        return self, [table.row for table in freed]


class FreeLastRow(nn.Module):
    """A table of embeddings ``[K,…]`` whose last row alone is trained."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table.detach().clone())
        self.row = nn.Parameter(table[-1].detach().clone())

    def forward(self, labels: Tensor) -> Tensor:
        """Rows ``[…,E]`` of labels ``[…]``."""
        last = (labels == len(self.table) - 1).view(*labels.shape, *(1,) * self.row.dim())
        return torch.where(last, self.row, self.table[labels])


def _weight(network: nn.Module, name: str) -> Tensor:
    weight: Tensor = network.get_submodule(name).weight.detach()  # type: ignore[operator]
    return weight
