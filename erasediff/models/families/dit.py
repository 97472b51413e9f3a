"""Diffusion transformers on latents (Peebles and Xie 2212.09748): diffusers' ``DiTTransformer2DModel`` with its ``AutoencoderKL``.

Each block of the transformer has a table of classes of its own; a row is what all of them hold. Where the network predicts a variance as
well, that half of its output is left as it comes: the solvers that measure and serve need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from erasediff.errors import BadInput
from erasediff.models.autoencoder import Autoencoder, load_autoencoder
from erasediff.models.configs import shown
from erasediff.models.denoiser import Denoiser
from erasediff.models.family import LatentModel, Shape, TabledModel
from erasediff.models.layout import network_folder, read_json
from erasediff.models.parts import build_part, read_part
from erasediff.models.process import read_scheduler
from erasediff.records.config import MAX_SIDE


@dataclass(frozen=True)
class DiTDenoiser:
    """A diffusers ``DiTTransformer2DModel``, whose class labels are the rows; of ε or v and a variance, the first is returned."""

    transformer: nn.Module

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """See :class:`erasediff.models.denoiser.Denoiser`; ``noised`` are latents."""
        predicted: Tensor = self.transformer(noised, timestep=timesteps, class_labels=labels, return_dict=False)[0]
        return predicted[:, : noised.shape[1]]


@dataclass(frozen=True)
class DiT(TabledModel, LatentModel):
    """See :mod:`erasediff.models.families.dit`; a folder is a diffusers ``DiTPipeline``."""

    kind = "DiTPipeline"

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See :class:`~erasediff.models.family.Model`."""
        transformer = build_transformer_of(*read_part(network_folder(folder)), network_folder(folder))
        scheduler = read_scheduler(read_json(folder / "scheduler/scheduler_config.json"), str(folder))
        return cls.of(transformer, scheduler, load_autoencoder(folder))

    @classmethod
    def of(cls, transformer: nn.Module, scheduler: Any, autoencoder: Autoencoder) -> Self:
        """A model of its parts.

        Raises:
            BadInput: the transformer does not denoise the autoencoder's latents.
        """
        channels, made = int(transformer.config.in_channels), autoencoder.channels  # type: ignore[arg-type, union-attr]
        if channels != made:
            raise BadInput(f"the transformer denoises latents of {channels} channels and the vae makes {made}: hand in the vae that trained it.")
        count = int(transformer.config.num_embeds_ada_norm)  # type: ignore[arg-type, union-attr]
        return cls(transformer, scheduler, count, count, autoencoder)

    def save(self, folder: Path) -> None:
        """See :class:`~erasediff.models.family.Model`."""
        self.pipeline().save_pretrained(folder, safe_serialization=True)

    def pipeline(self) -> Any:
        """The model as diffusers knows it."""
        from diffusers import DiTPipeline

        return DiTPipeline(self.network, self.autoencoder.network, self.scheduler)

    @property
    def state_shape(self) -> Shape:
        """``(C, H, W)`` of one latent."""
        return _state_of(self.network)

    def denoiser_of(self, network: nn.Module) -> Denoiser:
        """See :class:`~erasediff.models.family.Model`."""
        return DiTDenoiser(network)

    def table_names(self) -> tuple[str, ...]:
        """The class embedding of every block."""
        return tuple(f"transformer_blocks.{block}.norm1.emb.class_embedder.embedding_table" for block in range(len(self._blocks)))

    def readers(self) -> Sequence[Sequence[nn.Linear]]:
        """The modulation of every block reads that block's row, and the last layer's that of the first block."""
        own = [[block.norm1.linear] for block in self._blocks]
        own[0].append(self.network.proj_out_1)
        return own

    def fresh(self) -> nn.Module:
        """See :class:`~erasediff.models.family.Model`."""
        return without_label_dropout(super().fresh())

    @property
    def _blocks(self) -> Any:
        return self.network.transformer_blocks


def _state_of(network: Any) -> Shape:
    config = network.config
    return int(config.in_channels), int(config.sample_size), int(config.sample_size)


def build_transformer_of(config: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> nn.Module:
    """The ``DiTTransformer2DModel`` of a config with its weights; ``folder`` is where errors say they lie.

    Raises:
        BadInput: it is another model, or the weights are not its own or not finite.
    """
    from diffusers import DiTTransformer2DModel

    if config.get("_class_name") not in ("DiTTransformer2DModel", "Transformer2DModel") or not config.get("num_embeds_ada_norm"):
        raise BadInput(f"the denoiser of {folder} is not a class-conditional DiTTransformer2DModel: hand in a model with class labels.")
    channels, out = config.get("in_channels"), config.get("out_channels")
    if out not in (None, channels, 2 * channels if isinstance(channels, int) else None):
        raise BadInput(
            f"the denoiser of {folder} takes {shown(channels)} channels and returns {shown(out)}: "
            "hand in one that predicts noise, with a variance or not."
        )
    side = config.get("sample_size")
    if isinstance(side, int) and side > MAX_SIDE:
        raise BadInput(f"the denoiser of {folder} denoises latents of {side}x{side}: sides go up to {MAX_SIDE}, so hand in a smaller model.")
    return without_label_dropout(build_part(DiTTransformer2DModel, config, weights, folder, DiTDenoiser, _state_of))


def without_label_dropout(transformer: nn.Module) -> nn.Module:
    """The network without diffusers' own dropping of labels while it trains: which labels are dropped is the trainer's choice."""
    for module in transformer.modules():
        if hasattr(module, "dropout_prob"):
            setattr(module, "dropout_prob", 0.0)  # noqa: B010 - torch knows its own attributes alone
    return transformer
