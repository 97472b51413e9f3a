"""Solvers as tables of coefficients, extracted from diffusers schedulers, so that serving needs neither diffusers nor torch.

Between two calls of the denoiser a deterministic solver is linear. With x̂_j the clean image predicted at step j, clipped to [-1, 1], and
ε_j the predicted noise,

    x_{k+1} = start_k · x_T + Σ_{j≤k} clean_{kj} · x̂_j + Σ_{j≤k} noise_{kj} · ε_j

for DDIM (Song et al. 2021, eq. 12), DPM-Solver++ (Lu et al. 2211.01095, alg. 2) and UniPC (Zhao et al. 2302.04867) alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from erasediff.errors import IntegrityError

Array = NDArray[np.float32]
Table = NDArray[np.float64]


@dataclass(frozen=True)
class SolverTable:
    """The coefficients of K steps.

    Attributes:
        timesteps: ``int64 [K]``, the denoiser's timesteps.
        signal: √ᾱ of each timestep ``[K]``.
        start: of x_T ``[K]``.
        clean: of the predicted clean images ``[K,K]``.
        noise: of the predicted noise ``[K,K]``.
        prediction: what the denoiser predicts: ``epsilon`` or ``v_prediction``.
        clipped: whether the predicted clean states are clipped to -1..1, as images are and latents are not.
    """

    timesteps: NDArray[np.int64]
    signal: Table
    start: Table
    clean: Table
    noise: Table
    prediction: str
    clipped: bool = True

    @property
    def steps(self) -> int:
        """Denoiser calls per image."""
        return len(self.timesteps)

    def predicted(self, step: int, state: Array, output: Array) -> tuple[Array, Array]:
        """The clean state and the noise of a denoiser output, both in the state's shape (Salimans and Ho 2022)."""
        signal = np.float32(self.signal[step])
        sigma = np.float32(np.sqrt(1 - self.signal[step] ** 2))
        if self.prediction == "epsilon":
            clean, noise = (state - sigma * output) / signal, output
        else:
            clean, noise = signal * state - sigma * output, signal * output + sigma * state
        kept: Array = np.asarray(np.clip(clean, -1, 1) if self.clipped else clean, dtype=np.float32)
        return kept, noise

    def state_after(self, step: int, start: Array, clean: Sequence[Array], noise: Sequence[Array]) -> Array:
        """x_{k+1} from x_T and all predictions up to ``step``."""
        state = np.float32(self.start[step]) * start
        for coefficients, past in ((self.clean[step], clean), (self.noise[step], noise)):
            for coefficient, one in zip(coefficients, past, strict=False):
                if coefficient:
                    state = state + np.float32(coefficient) * one
        return state


Decoder = Callable[[Array], Array]
"""Images ``float32 [N,C,H,W]`` in -1..1 of latents ``[N,C,h,w]``."""


class Graph(Protocol):
    """The exported denoiser on numpy arrays."""

    def __call__(self, noised: Array, timesteps: NDArray[np.int64], labels: NDArray[np.int64]) -> Array:
        """ε or v ``float32 [B,C,H,W]`` of states ``[B,C,H,W]`` at timesteps ``[B]`` under labels ``[B]``."""
        ...


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Array:
    """x_T ``float32 [N,C,H,W]``; an image's noise depends only on its seed (Philox, the same on every machine)."""
    return np.stack([np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32) for seed in seeds])


def sample(
    graph: Graph,
    table: SolverTable,
    start: Array,
    labels: NDArray[np.int64],
    null_row: int | None,
    guidance: NDArray[np.float32],
    decoder: Decoder | None = None,
) -> NDArray[np.uint8]:
    """Images from noise; guidance ε_∅ + w(ε_c - ε_∅) takes one call of a doubled batch (Ho and Salimans 2022, eq. 6).

    Args:
        graph: the denoiser.
        table: the solver.
        start: x_T ``[N,C,H,W]``.
        labels: ``int64 [N]``.
        null_row: the row that means "no condition"; a model without one is asked with w = 1 alone.
        guidance: w of each image ``[N]``; images with w = 1 skip the null row.
        decoder: of a latent model.

    Returns:
        ``uint8 [N,H,W,C]``.
    """
    state, clean, noise = start, list[Array](), list[Array]()
    for step in range(table.steps):
        output = _guided(graph, state, int(table.timesteps[step]), labels, null_row, guidance)
        kept, predicted = table.predicted(step, state, output)
        clean.append(kept)
        noise.append(predicted)
        state = table.state_after(step, start, clean, noise)
    images = state if decoder is None else decoder(state)
    pixels = np.rint((np.clip(images, -1, 1) + 1) * np.float32(127.5)).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _guided(graph: Graph, state: Array, timestep: int, labels: NDArray[np.int64], null_row: int | None, guidance: NDArray[np.float32]) -> Array:
    asked = np.flatnonzero(guidance != 1)
    states, conditions = state, labels
    if len(asked):
        assert null_row is not None, "the caller checks that a model without a null row is asked without guidance"
        states = np.concatenate([state, state[asked]])
        conditions = np.concatenate([labels, np.full(len(asked), null_row, dtype=np.int64)])
    both = graph(states, np.full(len(states), timestep, dtype=np.int64), conditions)
    output, null = both[: len(state)], both[len(state) :]
    if len(asked):
        output = output.copy()
        scale = guidance[asked].reshape(-1, 1, 1, 1)
        output[asked] = null + scale * (output[asked] - null)
    return output


_CLIPPED = "clipped"
"""A table that was exported before there were latent models does not say it."""


def save_table(name: str, table: SolverTable, path: Path) -> None:
    """Write a table into an ``.npz`` without pickles."""
    arrays = {f"{name}|{part.name}": np.asarray(getattr(table, part.name)) for part in fields(table)}
    with path.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)


def load_table(path: Path, name: str) -> SolverTable:
    """Read a table by name; the file may hold several.

    Raises:
        IntegrityError: the table is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {part.name: stored[key] for part in fields(SolverTable) if (key := f"{name}|{part.name}") in stored or part.name != _CLIPPED}
    except KeyError:
        raise IntegrityError(f"{path} has no table of the measured solver {name}: export the model again.") from None
    return SolverTable(**{**found, "prediction": str(found["prediction"]), _CLIPPED: bool(found.get(_CLIPPED, True))})
