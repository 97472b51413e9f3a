"""Turn a diffusers scheduler into a table by running it once on coordinates in place of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from erasediff.models.process import NoiseSchedule, build_scheduler
from erasediff.records.config import SamplerConfig, SchedulerName
from erasediff.serve.solver import SolverTable, Table


def solver_name(sampler: SamplerConfig) -> str:
    """The name of a sampler's table."""
    return f"{sampler.scheduler}-{sampler.steps}"


def solver_table(name: SchedulerName, steps: int, schedule: NoiseSchedule) -> SolverTable:
    """The table of one solver.

    A scheduler configured for models that predict the clean image is linear in its inputs. So it gets unit vectors:
    x_T is the first, and the clean image predicted at step j the (j+2)-th; what it returns are the coefficients.
    """
    solver: Any = build_scheduler(SamplerConfig(scheduler=name, steps=steps), schedule, "sample")
    solver.register_to_config(thresholding=False, clip_sample=False)  # the clean image is clipped beforehand
    solver.set_timesteps(steps)
    basis, states = torch.eye(steps + 1, dtype=torch.float64), []
    state = basis[:1]  # a batch of one
    for step, timestep in enumerate(solver.timesteps):
        state = solver.step(basis[step + 1 : step + 2], timestep, state, return_dict=False)[0]
        states.append(state[0].numpy())
    timesteps = solver.timesteps.numpy().astype(np.int64)
    signal = schedule.alphas_cumprod[timesteps].double().sqrt().numpy()
    coefficients = np.stack(states)
    start, clean, noise = coefficients[:, 0], coefficients[:, 1:], np.zeros((steps, steps))
    if name == "ddim":
        start, clean, noise = _by_noise(solver, basis, signal)
    return SolverTable(timesteps, signal, start, clean, noise, schedule.prediction_type, schedule.clipped)


def _by_noise(solver: Any, basis: torch.Tensor, signal: Table) -> tuple[Table, Table, Table]:
    """DDIM continues along the noise that the model predicted, not along its clipped version: x_k = √ᾱ·x̂ + √(1-ᾱ)·ε."""
    steps = len(signal)
    clean, noise = np.zeros((steps, steps)), np.zeros((steps, steps))
    for step, timestep in enumerate(solver.timesteps):
        of_state, of_clean = solver.step(basis[1:2, :2], timestep, basis[:1, :2], return_dict=False)[0][0].numpy()
        noise[step, step] = of_state * np.sqrt(1 - signal[step] ** 2)
        clean[step, step] = of_clean + of_state * signal[step]
    return np.zeros(steps), clean, noise
