"""How a model is noised and sampled: the noise schedule that it was trained with, and the solvers that sample on it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import diffusers
import torch
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.models.configs import check_config, problem, shown
from erasediff.models.parts import UNLOADABLE
from erasediff.records.config import MAX_TIMESTEPS, SamplerConfig

PredictionType = Literal["epsilon", "v_prediction"]
SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
)
"""The schedulers of diffusers whose noise schedule is read from a model folder."""
_SOLVERS = ("DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
"""Those of them that :func:`build_scheduler` makes."""
_ALMOST_NOISE = 2**-24
"""What most of diffusers' solvers take for the last ᾱ = 0 of a zero terminal SNR; by linear betas it is above the one before it."""
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
"""The names of betas that all of diffusers' schedulers know."""
_OF_THE_SCHEDULE = ("beta_schedule", "beta_start", "beta_end", "trained_betas", "rescale_betas_zero_snr")


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process x_t = √ā_t·x_0 + √(1-ā_t)·ε (Ho et al. 2020, eq. 4).

    Attributes:
        alphas_cumprod: ā ``[T]``.
        prediction_type: what the denoiser predicts.
        settings: the same schedule as a diffusers scheduler is configured with it.
        clipped: whether a predicted clean state lies in -1..1, as images do and latents do not.
    """

    alphas_cumprod: Tensor
    prediction_type: PredictionType = "epsilon"
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    clipped: bool = True

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


def squared_cosine(train_timesteps: int, prediction: PredictionType = "epsilon") -> NoiseSchedule:
    """The schedule of the models that are trained here (Nichol and Dhariwal 2021)."""
    made = diffusers.DDIMScheduler(num_train_timesteps=train_timesteps, beta_schedule="squaredcos_cap_v2", prediction_type=prediction)
    return schedule_of(made)


def schedule_of(scheduler: Any) -> NoiseSchedule:
    """The forward process that a diffusers scheduler assumes.

    Raises:
        BadInput: it predicts something other than ε or v, or its schedule is not one that a denoiser of this kind can be sampled on.
    """
    config = scheduler.config
    prediction = config.get("prediction_type")
    if prediction not in get_args(PredictionType):
        raise BadInput(f"prediction type {shown(prediction)} is not known: hand in a model that predicts {' or '.join(get_args(PredictionType))}.")
    kept, count = scheduler.alphas_cumprod, config.get("num_train_timesteps")
    if len(kept) < 2 or len(kept) != count:
        raise BadInput(
            f"the scheduler has {len(kept)} betas for {count} training timesteps: give it a beta for each of them (trained_betas), and at least 2."
        )
    named = config.get("beta_schedule")
    if config.get("trained_betas") is None and named not in _BETAS:
        raise BadInput(f"the scheduler's beta_schedule {shown(named)} is not known: use {', '.join(_BETAS)}, or give the betas as trained_betas.")
    if config.get("rescale_betas_zero_snr") and kept[-1] == _ALMOST_NOISE:
        kept = torch.cat([kept[:-1], torch.zeros(1)])
    falls = bool(torch.isfinite(kept).all() and (kept <= 1).all() and (kept >= 0).all() and (kept.diff() < 0).all())
    if not falls:
        raise BadInput("the scheduler's betas are no noise schedule: they must lie between 0 and 1, so that the noise grows with every timestep.")
    if prediction == "epsilon" and (config.get("rescale_betas_zero_snr") or kept[-1] == 0):
        raise BadInput(
            "the scheduler ends in pure noise (zero terminal SNR), of which a model that predicts epsilon learns nothing about the image: "
            "set rescale_betas_zero_snr to false, or hand in a model that predicts v_prediction."
        )
    settings = {name: value for name in _OF_THE_SCHEDULE if (value := config.get(name)) is not None and value is not False}
    return NoiseSchedule(kept, prediction, settings)


def build_scheduler(sampler: SamplerConfig, schedule: NoiseSchedule, prediction: Literal["sample"] | None = None) -> Any:
    """The diffusers scheduler that samples on a schedule.

    Args:
        sampler: names the solver.
        schedule: the model's.
        prediction: ``sample`` for a model that predicts the clean image; else what the schedule says.
    """
    if not schedule.settings:
        raise ValueError("a schedule without settings cannot be given to a scheduler: make it by schedule_of")
    shared = {
        "num_train_timesteps": schedule.timesteps,
        "timestep_spacing": "trailing",
        "prediction_type": prediction or schedule.prediction_type,
        **schedule.settings,
    }
    if sampler.scheduler == "ddim":
        return diffusers.DDIMScheduler(clip_sample=schedule.clipped, set_alpha_to_one=True, **shared)
    bounds = {"thresholding": True, "sample_max_value": 1.0} if schedule.clipped else {}
    multistep = {**bounds, "solver_order": 2, "final_sigmas_type": "zero", "lower_order_final": True}
    if sampler.scheduler == "unipc":
        return diffusers.UniPCMultistepScheduler(predict_x0=True, **multistep, **shared)
    return diffusers.DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", **multistep, **shared)


def deterministic(scheduler: Any, schedule: NoiseSchedule) -> Any:
    """A scheduler that samples without fresh noise: this one if :func:`build_scheduler` makes its kind, else the default solver on its schedule."""
    return scheduler if type(scheduler).__name__ in _SOLVERS else build_scheduler(SamplerConfig(), schedule)


def read_scheduler(config: Mapping[str, Any], source: str) -> Any:
    """The scheduler that a model folder's ``scheduler_config.json`` describes.

    Args:
        config: the document.
        source: what errors call the folder.

    Raises:
        BadInput: it is not one of :data:`SCHEDULERS`, or its settings do not fit together.
    """
    name = config.get("_class_name")
    if name not in SCHEDULERS:
        raise BadInput(f"the scheduler {shown(name)} of {source} is not known: use one of {', '.join(SCHEDULERS)}.")
    try:
        kind = getattr(diffusers, name)
        check_config(kind, config)
        if (count := config.get("num_train_timesteps", MAX_TIMESTEPS)) > MAX_TIMESTEPS:
            raise ValueError(f"num_train_timesteps is {count}, and goes up to {MAX_TIMESTEPS}")
        scheduler = kind.from_config(dict(config))
        if name in _SOLVERS:  # it may sample as it is
            copy.deepcopy(scheduler).set_timesteps(1)
    except UNLOADABLE as error:
        raise BadInput(f"the scheduler of {source} cannot be made ({problem(error)}): correct its scheduler_config.json.") from None
    schedule_of(scheduler)
    return scheduler
