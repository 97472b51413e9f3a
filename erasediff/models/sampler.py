"""The sampling loop, over any denoiser: the PyTorch model that is measured and the ONNX graph that serves run the same one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.models.denoiser import Denoiser, to_bytes


class ImageNoise:
    """Standard normal noise ``[N,C,H,W]``, one generator an image, so that an image does not depend on its neighbours in the batch."""

    def __init__(self, seeds: list[int], shape: tuple[int, int, int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape = shape

    def draw(self) -> Tensor:
        """The next draw of every image; the first is x_T."""
        return torch.stack([torch.randn(self._shape, generator=generator) for generator in self._generators])


def guided(denoiser: Denoiser, noised: Tensor, timesteps: Tensor, labels: Tensor, null_row: int | None, scale: float) -> Tensor:
    """Classifier-free guidance ε_∅ + w(ε_c - ε_∅) (Ho and Salimans 2022, eq. 6) in one batch; w = 1 needs no null pass."""
    if scale == 1.0:
        return denoiser(noised, timesteps, labels)
    if null_row is None:
        raise BadInput("guidance needs a row for no condition, which the model has not: set sampler.guidance_scale to 1.")
    both = denoiser(noised.repeat(2, 1, 1, 1), timesteps.repeat(2), torch.cat([labels, torch.full_like(labels, null_row)]))
    conditional, unconditional = both.chunk(2)
    return unconditional + scale * (conditional - unconditional)


@dataclass(frozen=True)
class Start:
    """States ``float32 [N,C,H,W]`` that the reverse process starts from, one for each sample, under ``strength`` of the noise.

    Noise is added up to the timestep at which that share of the sampler's steps remains, and is then removed again
    (SDEdit, Meng et al. 2108.01073, alg. 1).
    """

    images: Tensor
    strength: float

    def rows(self, rows: slice) -> Start:
        """Those of some of the samples."""
        return Start(self.images[rows], self.strength)

    def noised(self, noise: Tensor, solver: Any) -> tuple[Tensor, Tensor]:
        """x_t ``[N,C,H,W]`` and the timesteps that are left from there; the solver is set to go on with them."""
        first = len(solver.timesteps) - max(1, round(self.strength * len(solver.timesteps)))
        if hasattr(solver, "set_begin_index"):  # multi-step solvers count their steps
            solver.set_begin_index(first)
        left: Tensor = solver.timesteps[first:]
        signal = solver.alphas_cumprod[int(left[0])]
        return signal.sqrt() * self.images.to(noise) + (1 - signal).sqrt() * noise, left


@dataclass(frozen=True)
class Source:
    """Something images can be sampled from: a denoiser with its scheduler, how noise enters, and what it starts from.

    Attributes:
        denoiser: ε_θ or v_θ.
        scheduler: a diffusers scheduler; it is copied, since multi-step solvers keep state.
        state_shape: ``(C, H, W)`` of what is denoised.
        null_row: the row that means "no condition", if there is one.
        device: where the denoiser is; noise is always drawn on the CPU, so that devices agree.
        decode: images ``uint8 [N,H,W,C]`` of states.
        eta: share of fresh noise in a step of DDIM: 0 is deterministic, 1 is ancestral (Song et al. 2021, eq. 16).
        noise_scale: standard deviation of x_T.
        start: images to start from in place of noise alone.
    """

    denoiser: Denoiser
    scheduler: Any
    state_shape: tuple[int, int, int]
    null_row: int | None
    device: torch.device
    decode: Callable[[Tensor], Tensor] = to_bytes
    eta: float = 0.0
    noise_scale: float = 1.0
    start: Start | None = None


@torch.no_grad()
def sample(source: Source, labels: Tensor, seeds: list[int], steps: int, guidance_scale: float = 1.0) -> Tensor:
    """Run the reverse process for one batch.

    Args:
        source: what is sampled from.
        labels: ``int64 [N]``.
        seeds: one seed an image.
        steps: denoiser calls.
        guidance_scale: w of classifier-free guidance.

    Returns:
        ``uint8 [N,H,W,C]`` on the CPU.

    Raises:
        BadInput: guidance is asked of a model without a null row, or more steps than the model has timesteps.
    """
    if steps > (most := int(source.scheduler.config.num_train_timesteps)):
        raise BadInput(f"the model has {most} timesteps and is to be sampled in {steps} steps: set sampler.steps (--steps) to {most} or less.")
    solver = copy.deepcopy(source.scheduler)
    solver.set_timesteps(steps)
    noise = ImageNoise(seeds, source.state_shape)
    state, labels, left = source.noise_scale * noise.draw().to(source.device), labels.to(source.device), solver.timesteps
    if source.start is not None:
        state, left = source.start.noised(state, solver)
    for timestep in left:
        timesteps = torch.full((len(labels),), int(timestep), dtype=torch.int64, device=source.device)
        predicted = guided(source.denoiser, state, timesteps, labels, source.null_row, guidance_scale)
        # DDIM's own arguments; other solvers take neither
        fresh = {"eta": source.eta, "variance_noise": noise.draw().to(source.device)} if source.eta else {}
        state = solver.step(predicted, timestep, state, return_dict=False, **fresh)[0]
    return source.decode(state).cpu()
