"""The interface of a model: it predicts noise, has a null condition and a noise schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.records.config import DenoiserConfig, SamplerConfig

PredictionType = Literal["epsilon", "v_prediction"]


class Denoiser(Protocol):
    """ε_θ(x_t, t, c): anything that predicts the noise in a batch, or its velocity.

    The condition c is an ``int64`` label: a class, or the row of a prompt in a table of embeddings.
    """

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict ``[B,C,H,W]`` for ``noised [B,C,H,W]``, ``timesteps [B]`` and ``labels [B]``."""
        ...


@dataclass(frozen=True)
class UNetDenoiser:
    """A diffusers ``UNet2DModel`` with one class embedding more than there are classes: the last is the null label."""

    unet: torch.nn.Module

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """See :class:`Denoiser`."""
        prediction: Tensor = self.unet(noised, timesteps, class_labels=labels, return_dict=False)[0]
        return prediction


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process x_t = √ā_t·x_0 + √(1-ā_t)·ε (Ho et al. 2020, eq. 4)."""

    alphas_cumprod: Tensor
    prediction_type: PredictionType = "epsilon"

    @property
    def timesteps(self) -> int:
        """T, the number of training timesteps."""
        return len(self.alphas_cumprod)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t for ``clean [B,C,H,W]``, ``noise`` of the same shape and ``timesteps [B]``."""
        signal = self.alphas_cumprod.to(clean.device)[timesteps].view(-1, 1, 1, 1)
        return signal.sqrt() * clean + (1 - signal).sqrt() * noise

    def goal(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a perfect denoiser predicts: ε, or v = √ā_t·ε - √(1-ā_t)·x_0 (Salimans and Ho 2022, eq. 12)."""
        if self.prediction_type == "epsilon":
            return noise
        signal = self.alphas_cumprod.to(clean.device)[timesteps].view(-1, 1, 1, 1)
        return signal.sqrt() * noise - (1 - signal).sqrt() * clean

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` timesteps in antithetic pairs (t, T-1-t): uniform, with less variance than independent draws."""
        half = torch.randint(0, self.timesteps, ((count + 1) // 2,), generator=generator)
        return torch.cat([half, self.timesteps - 1 - half])[:count]


def build_unet(config: DenoiserConfig, channels: int, size: int, classes: int) -> torch.nn.Module:
    """A class-conditional UNet for images ``[channels, size, size]`` with self-attention at its coarsest level."""
    from diffusers import UNet2DModel

    plain = len(config.block_out_channels) - 1
    unet: torch.nn.Module = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        num_class_embeds=classes + 1,
        resnet_time_scale_shift="scale_shift" if config.conditioning == "scale-shift" else "default",
    )
    return unet


def build_scheduler(sampler: SamplerConfig, train_timesteps: int, prediction: PredictionType | Literal["sample"] = "epsilon") -> object:
    """The diffusers scheduler that samples, on a squared-cosine schedule (Nichol and Dhariwal 2021)."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

    shared = {
        "num_train_timesteps": train_timesteps,
        "beta_schedule": "squaredcos_cap_v2",
        "timestep_spacing": "trailing",
        "prediction_type": prediction,
    }
    if sampler.scheduler == "ddim":
        return DDIMScheduler(clip_sample=True, set_alpha_to_one=True, **shared)
    multistep = {"thresholding": True, "sample_max_value": 1.0, "solver_order": 2, "final_sigmas_type": "zero", "lower_order_final": True}
    if sampler.scheduler == "unipc":
        return UniPCMultistepScheduler(predict_x0=True, **multistep, **shared)
    return DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", **multistep, **shared)


def schedule_of(scheduler: object) -> NoiseSchedule:
    """The forward process that a diffusers scheduler assumes.

    Raises:
        BadInput: the model predicts something other than ε or v.
    """
    prediction_type: Any = getattr(getattr(scheduler, "config", None), "prediction_type", None)
    if prediction_type not in get_args(PredictionType):
        raise BadInput(f"prediction type {prediction_type!r} is not known: hand in a model that predicts {' or '.join(get_args(PredictionType))}.")
    return NoiseSchedule(scheduler.alphas_cumprod, prediction_type)  # type: ignore[attr-defined]


def to_unit(images: Tensor) -> Tensor:
    """``uint8 [N,H,W,C]`` in 0..255 to ``float32 [N,C,H,W]`` in -1..1."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


def to_bytes(images: Tensor) -> Tensor:
    """``float32 [N,C,H,W]`` in -1..1 to ``uint8 [N,H,W,C]`` in 0..255."""
    return images.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        BadInput: the config names CUDA and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("device is 'cuda' but torch sees no GPU: use device 'auto' or 'cpu', or install a CUDA build.")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
