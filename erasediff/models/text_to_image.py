"""Latent text-to-image models: a ``StableDiffusionPipeline`` folder, conditioned on a prompt's row in a table of embeddings.

The engine's condition is an ``int64`` label. Here a label is a row of ``embeddings [K,L,D]``, so that each prompt is encoded
once and not at every step, and images are encoded to latents once. Nothing is unpickled and nothing is downloaded.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.files import publish_folder
from erasediff.models.denoiser import to_unit
from erasediff.models.layout import WEIGHTS, check_files, read_json
from erasediff.models.process import NoiseSchedule, schedule_of

KIND = "StableDiffusionPipeline"
_INDEX = "model_index.json"
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_CARRIED = ("safety_checker", "feature_extractor")
"""Components that the erasure does not need: they are not loaded, and are copied to the erased folder as they are."""
_LAYOUT = frozenset(
    {
        _INDEX,
        "unet/config.json",
        WEIGHTS.as_posix(),
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    }
)
UNLOADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError, ZeroDivisionError, SafetensorError)
_BATCH = 8


@dataclass(frozen=True)
class PromptDenoiser:
    """A diffusers ``UNet2DConditionModel`` whose labels are rows of ``embeddings [K,L,D]``."""

    unet: torch.nn.Module
    embeddings: Tensor

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """See :class:`erasediff.models.denoiser.Denoiser`; ``noised`` are latents."""
        prediction: Tensor = self.unet(noised, timesteps, encoder_hidden_states=self.embeddings[labels], return_dict=False)[0]
        return prediction


@dataclass(frozen=True)
class TextToImage:
    """A loaded folder: the diffusers pipeline without its safety checker, and where it came from."""

    folder: Path
    pipeline: Any

    @property
    def schedule(self) -> NoiseSchedule:
        """The forward process the model was trained with."""
        return schedule_of(self.pipeline.scheduler)

    @property
    def image_size(self) -> tuple[int, int]:
        """``(H, W)`` of one image."""
        size, factor = self.pipeline.unet.config.sample_size, self.pipeline.vae_scale_factor
        height, width = (size, size) if isinstance(size, int) else size
        return int(height) * factor, int(width) * factor


def load_text_to_image(folder: Path) -> TextToImage:
    """Load a ``StableDiffusionPipeline`` folder in float32 on the CPU after checking it.

    Raises:
        BadInput: a file is missing or a pickle, a component is not a known one, or the components do not fit together.
    """
    check_files(folder, _LAYOUT, f"{KIND} folder in diffusers layout")
    _check_index(folder)
    quieten()  # before the imports, which warn too
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    scheduler = _load_scheduler(folder)
    check_vocabulary(folder)
    tokenizer = _loaded(folder, "tokenizer", lambda path: CLIPTokenizer.from_pretrained(path, local_files_only=True))
    modules = {
        "unet": _load_module(folder, "unet", UNet2DConditionModel),
        "vae": _load_module(folder, "vae", AutoencoderKL),
        "text_encoder": _load_module(folder, "text_encoder", CLIPTextModel),
    }
    _check_fit(folder, tokenizer=tokenizer, **modules)
    pipeline = StableDiffusionPipeline(
        **modules, tokenizer=tokenizer, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    return TextToImage(folder, pipeline)


def quieten() -> None:
    """Turn off progress bars and warnings: diffusers' warning about a long prompt quotes the prompt."""
    from transformers.utils import logging as transformers_logging

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def components(folder: Path) -> dict[str, str]:
    """The components that ``model_index.json`` names, each with its class."""
    index = read_json(folder / _INDEX)
    named = {name: value for name, value in index.items() if isinstance(value, list) and value != [None, None]}
    if index.get("_class_name") != KIND or any(len(value) != 2 or not isinstance(value[1], str) for value in named.values()):
        raise BadInput(f"{folder / _INDEX} does not describe a {KIND}: hand in the folder of one.")
    return {name: value[1] for name, value in named.items()}


def _check_index(folder: Path) -> None:
    named = components(folder)
    for name in (*_CLASSES, "scheduler"):
        if name not in named:
            raise BadInput(f"{folder / _INDEX} names no {name}: hand in a whole {KIND} folder.")
    for name, class_name in named.items():
        if name != "scheduler" and name not in _CARRIED and class_name not in _CLASSES.get(name, ()):
            raise BadInput(f"the component {name} of {folder}, a {class_name}, is not known: hand in a plain {KIND}.")
        if not (folder / name).is_dir():
            raise BadInput(f"the model folder {folder} lacks {name}, which its {_INDEX} names: hand in the whole folder.")
    for name in ("unet", "vae"):
        if read_json(folder / name / "config.json").get("_class_name") != _CLASSES[name][0]:
            raise BadInput(f"the {name} of {folder} is not a {_CLASSES[name][0]}: hand in a plain {KIND}.")


def check_vocabulary(folder: Path, tokenizer: str = "tokenizer") -> None:
    """Refuse a tokenizer without its vocabulary: transformers would silently build an empty one."""
    if not any(all((folder / tokenizer / name).is_file() for name in names) for names in (("tokenizer.json",), ("vocab.json", "merges.txt"))):
        raise BadInput(f"the tokenizer of {folder} has neither tokenizer.json nor vocab.json and merges.txt: hand in the whole folder.")


def _loaded(folder: Path, name: str, load: Callable[[Path], Any]) -> Any:
    try:
        return load(folder / name)
    except UNLOADABLE as error:
        problem = str(error).strip().partition("\n")[0][:200]
        raise BadInput(f"the {name} of {folder} cannot be loaded ({type(error).__name__}: {problem}): hand in the folder again.") from None


def _load_module(folder: Path, name: str, kind: Any) -> torch.nn.Module:
    """Load weights into a model that has exactly their names and shapes; the libraries would fill a gap with random numbers."""
    module, info = _loaded(
        folder, name, lambda path: kind.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True)
    )
    odd = sorted(str(key) for part in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[part])
    if odd:
        raise BadInput(
            f"the tensors of the {name} of {folder} do not match its config ({odd[0]} and {len(odd) - 1} more differ): hand in the folder again."
        )
    loaded: torch.nn.Module = module.float().eval().requires_grad_(False)
    return loaded


def _load_scheduler(folder: Path) -> Any:
    import diffusers
    from diffusers import SchedulerMixin

    config = read_json(folder / "scheduler/scheduler_config.json")
    name = config.get("_class_name")
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise BadInput(f"the scheduler {name!r} of {folder} is not known: use one of diffusers', such as DDIMScheduler.")
    scheduler: Any = _loaded(folder, "scheduler", lambda _: kind.from_config(config))  # type: ignore[attr-defined]
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


@torch.no_grad()
def encode_prompts(pipeline: Any, prompts: list[str]) -> Tensor:
    """Encode prompts as the pipeline does when it samples: ``float32 [K,L,D]`` on the CPU. Each prompt is encoded once.

    A prompt that is too long is cut, as it is when sampling; two that are equal up to there have equal rows.
    """
    device = pipeline.text_encoder.device
    batches = [prompts[start : start + _BATCH] for start in range(0, len(prompts), _BATCH)]
    rows = [pipeline.encode_prompt(batch, device, num_images_per_prompt=1, do_classifier_free_guidance=False)[0] for batch in batches]
    return torch.cat(rows).float().cpu()


@torch.no_grad()
def encode_images(pipeline: Any, images: Tensor, done: Callable[[int], None] = lambda count: None) -> Tensor:
    """Encode ``uint8 [N,H,W,3]`` to latents ``float32 [N,C,h,w]`` on the CPU: the posterior's mean, so nothing is random.

    Args:
        pipeline: its VAE encodes, in small batches.
        images: of the model's size.
        done: called with the number of images done.
    """
    vae, latents = pipeline.vae, []
    for start in range(0, len(images), _BATCH):
        batch = to_unit(images[start : start + _BATCH]).to(vae.device)
        latents.append(vae.encode(batch).latent_dist.mean.float().cpu())
        done(min(start + _BATCH, len(images)))
    # A convolution may hand over channels last, and torch 2.13 crashes in the backward pass of a group norm over such an input.
    return (torch.cat(latents) * float(vae.config.scaling_factor)).contiguous()


def save_text_to_image(model: TextToImage, unet: torch.nn.Module, out: Path, finish: Callable[[Path], object]) -> None:
    """Publish ``out``: the folder that the model came from, with other weights in its UNet. It appears complete or not at all.

    Only what ``model_index.json`` names is copied, and of ``unet/`` only the config: weights of another variant
    (``*.fp16.safetensors``, a single-file checkpoint) would be the model as it was before the erasure.

    Args:
        model: where everything but the UNet's weights is copied from.
        unet: the erased UNet.
        out: the new folder.
        finish: adds what else belongs into the folder before it gets its name.
    """

    def fill(folder: Path) -> str:
        shutil.copyfile(model.folder / _INDEX, folder / _INDEX)
        for name in components(model.folder):
            if name != "unet":
                shutil.copytree(model.folder / name, folder / name)
        (folder / WEIGHTS).parent.mkdir()
        shutil.copyfile(model.folder / "unet/config.json", folder / "unet/config.json")
        weights = {name: value.detach().cpu().contiguous() for name, value in unet.state_dict().items()}
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        finish(folder)
        return out.name

    publish_folder(out.parent, fill)
