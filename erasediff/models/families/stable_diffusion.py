"""Stable Diffusion 1 and 2: a ``UNet2DConditionModel`` on latents, conditioned on a prompt's row in a table of embeddings.

Each prompt is encoded once and not at every step, and so is each image. Nothing is unpickled and nothing is downloaded.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from erasediff.errors import BadInput
from erasediff.models.autoencoder import Autoencoder
from erasediff.models.denoiser import Denoiser
from erasediff.models.family import FreeLastRow, LatentModel, Shape
from erasediff.models.layout import INDEX, LAYOUTS, WEIGHTS, check_files, read_json
from erasediff.models.parts import load_pretrained, loaded
from erasediff.models.process import schedule_of

KIND = "StableDiffusionPipeline"
NULL_PROMPT = ""
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_CARRIED = ("safety_checker", "feature_extractor")
"""Components that the erasure does not need: they are not loaded, and are copied to the erased folder as they are."""
_BATCH = 8


class PromptTable(nn.Module):
    """A table of encoded prompts ``float32 [K,L,D]`` that is not trained."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, labels: Tensor) -> Tensor:
        """Rows ``[B,L,D]`` of labels ``[B]``."""
        return self.table[labels]


@dataclass(frozen=True)
class PromptDenoiser:
    """A diffusers ``UNet2DConditionModel`` whose labels are rows of a table of prompts."""

    unet: nn.Module
    prompts: nn.Module

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """See :class:`erasediff.models.denoiser.Denoiser`; ``noised`` are latents."""
        prediction: Tensor = self.unet(noised, timesteps, encoder_hidden_states=self.prompts(labels), return_dict=False)[0]
        return prediction


@dataclass(frozen=True)
class StableDiffusion(LatentModel):
    """See :mod:`erasediff.models.families.stable_diffusion`.

    Attributes:
        folder: where everything but the denoiser's weights is copied from when the model is saved.
        pipeline: the diffusers pipeline without its safety checker.
        prompts: the table of rows; a loaded model has none, see :meth:`asked_by`.
    """

    folder: Path
    pipeline: Any
    prompts: nn.Module

    kind = KIND

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See :class:`~erasediff.models.family.Model`; everything is in float32 and on the CPU."""
        check_files(folder, LAYOUTS[KIND].needed, f"{KIND} folder in diffusers layout")
        _check_index(folder)
        quieten()  # before the imports, which warn too
        from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        scheduler = _load_scheduler(folder)
        check_vocabulary(folder)
        tokenizer = loaded(folder, "tokenizer", lambda path: CLIPTokenizer.from_pretrained(path, local_files_only=True))
        modules = {
            "unet": load_pretrained(folder, "unet", UNet2DConditionModel),
            "vae": load_pretrained(folder, "vae", AutoencoderKL),
            "text_encoder": load_pretrained(folder, "text_encoder", CLIPTextModel),
        }
        _check_fit(folder, tokenizer=tokenizer, **modules)
        pipeline = StableDiffusionPipeline(
            **modules, tokenizer=tokenizer, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
        return cls(modules["unet"], scheduler, 0, None, Autoencoder(modules["vae"]), folder, pipeline, PromptTable(torch.empty(0)))

    def asked_by(self, rows: Tensor) -> Self:
        """The model with encoded prompts ``[K,L,D]`` to be asked by; the first is the null prompt's row."""
        return replace(self, conditions=len(rows) - 1, null_row=0, prompts=PromptTable(rows))

    def save(self, folder: Path) -> None:
        """Write the folder that the model came from, with this denoiser's weights.

        Only what ``model_index.json`` names is copied, and of ``unet/`` only the config: weights of another variant (``*.fp16.safetensors``, a
        single-file checkpoint) would be the model as it was before the erasure.
        """
        shutil.copyfile(self.folder / INDEX, folder / INDEX)
        for name in components(self.folder):
            if name != "unet":
                shutil.copytree(self.folder / name, folder / name)
        (folder / WEIGHTS).parent.mkdir()
        shutil.copyfile(self.folder / "unet/config.json", folder / "unet/config.json")
        weights = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        save_file(weights, folder / WEIGHTS, {"format": "pt"})

    @property
    def state_shape(self) -> Shape:
        """``(C, H, W)`` of one latent."""
        config: Any = self.network.config
        height, width = (config.sample_size,) * 2 if isinstance(config.sample_size, int) else config.sample_size
        return int(config.in_channels), int(height), int(width)

    def denoiser_of(self, network: nn.Module) -> Denoiser:
        """See :class:`~erasediff.models.family.Model`; the prompts' rows go to where the network is."""
        return PromptDenoiser(network, self.prompts.to(next(network.parameters()).device))

    def rows(self) -> Tensor:
        """See :class:`~erasediff.models.family.Model`; ``[K,L,D]``."""
        table: Tensor = self.prompts.table.detach()  # type: ignore[operator]
        return table

    def with_rows(self, rows: Tensor) -> Self:
        """See :class:`~erasediff.models.family.Model`."""
        return replace(self.copied(next(self.network.parameters()).device), prompts=PromptTable(rows))

    def freeing_last_row(self) -> tuple[Self, list[nn.Parameter]]:
        """See :class:`~erasediff.models.family.Model`."""
        freed = FreeLastRow(self.rows())
        return replace(self, prompts=freed), [freed.row]

    def readers(self) -> Sequence[Sequence[nn.Linear]]:
        """The keys and values of the cross-attention."""
        named = self.network.named_modules()
        return [[layer for name, layer in named if name.endswith((".attn2.to_k", ".attn2.to_v")) and isinstance(layer, nn.Linear)]]

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts as the pipeline does when it samples: ``float32 [K,L,D]`` on the CPU. Each prompt is encoded once.

        A prompt that is too long is cut, as it is when sampling; two that are equal up to there have equal rows.
        """
        device = self.pipeline.text_encoder.device
        batches = [list(prompts[start : start + _BATCH]) for start in range(0, len(prompts), _BATCH)]
        rows = [self.pipeline.encode_prompt(batch, device, num_images_per_prompt=1, do_classifier_free_guidance=False)[0] for batch in batches]
        return torch.cat(rows).float().cpu()


def quieten() -> None:
    """Turn off progress bars and warnings: diffusers' warning about a long prompt quotes the prompt."""
    from transformers.utils import logging as transformers_logging

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def components(folder: Path) -> dict[str, str]:
    """The components that ``model_index.json`` names, each with its class."""
    index = read_json(folder / INDEX)
    named = {name: value for name, value in index.items() if isinstance(value, list) and value != [None, None]}
    if index.get("_class_name") != KIND or any(len(value) != 2 or not isinstance(value[1], str) for value in named.values()):
        raise BadInput(f"{folder / INDEX} does not describe a {KIND}: hand in the folder of one.")
    return {name: value[1] for name, value in named.items()}


def _check_index(folder: Path) -> None:
    named = components(folder)
    for name in (*_CLASSES, "scheduler"):
        if name not in named:
            raise BadInput(f"{folder / INDEX} names no {name}: hand in a whole {KIND} folder.")
    for name, class_name in named.items():
        if name != "scheduler" and name not in _CARRIED and class_name not in _CLASSES.get(name, ()):
            raise BadInput(f"the component {name} of {folder}, a {class_name}, is not known: hand in a plain {KIND}.")
        if not (folder / name).is_dir():
            raise BadInput(f"the model folder {folder} lacks {name}, which its {INDEX} names: hand in the whole folder.")
    for name in ("unet", "vae"):
        if read_json(folder / name / "config.json").get("_class_name") != _CLASSES[name][0]:
            raise BadInput(f"the {name} of {folder} is not a {_CLASSES[name][0]}: hand in a plain {KIND}.")


def check_vocabulary(folder: Path, tokenizer: str = "tokenizer") -> None:
    """Refuse a tokenizer without its vocabulary: transformers would silently build an empty one."""
    if not any(all((folder / tokenizer / name).is_file() for name in names) for names in (("tokenizer.json",), ("vocab.json", "merges.txt"))):
        raise BadInput(f"the tokenizer of {folder} has neither tokenizer.json nor vocab.json and merges.txt: hand in the whole folder.")


def _load_scheduler(folder: Path) -> Any:
    import diffusers
    from diffusers import SchedulerMixin

    config = read_json(folder / "scheduler/scheduler_config.json")
    name = config.get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise BadInput(f"the scheduler {name!r} of {folder} is not known: use one of diffusers', such as DDIMScheduler.")
    scheduler: Any = loaded(folder, "scheduler", lambda _: kind.from_config(config))  # type: ignore[attr-defined]
    if not isinstance(getattr(scheduler, "alphas_cumprod", None), Tensor) or "prediction_type" not in scheduler.config:
        raise BadInput(f"the scheduler {name} of {folder} has no alphas_cumprod or no prediction type: use one such as DDIMScheduler.")
    schedule_of(scheduler)
    return scheduler


def _check_fit(folder: Path, unet: Any, vae: Any, text_encoder: Any, tokenizer: Any) -> None:
    extra = [name for name in ("addition_embed_type", "class_embed_type", "num_class_embeds", "time_cond_proj_dim") if unet.config.get(name)]
    if extra:
        raise BadInput(f"the unet of {folder} is conditioned on more than a prompt ({extra[0]}): hand in a plain {KIND}.")
    channels, width = vae.config.latent_channels, text_encoder.config.hidden_size
    if (unet.config.in_channels, unet.config.out_channels) != (channels, channels):
        raise BadInput(f"the unet of {folder} does not map the vae's {channels} channels to as many: hand in a plain {KIND}.")
    if unet.config.cross_attention_dim != width or unet.config.get("encoder_hid_dim"):
        raise BadInput(f"the unet of {folder} does not attend to embeddings of the text encoder's width {width}: hand in a plain {KIND}.")
    if tokenizer.model_max_length > text_encoder.config.max_position_embeddings or len(tokenizer) > text_encoder.config.vocab_size:
        raise BadInput(f"the tokenizer of {folder} makes longer prompts or more tokens than its text encoder takes: hand in the folder again.")
