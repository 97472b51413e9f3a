"""A denoiser of two parameters and a workbench whose batches are given: gradients that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from erasediff.models.noised import NoisedBatch
from erasediff.models.process import NoiseSchedule
from erasediff.records.config import EraseConfig
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.randomness import Randomness
from erasediff.unlearn.workbench import ErasureData, Workbench


class Line:
    """eps(x) = a x + b. For one pixel x and a goal g: r = a x + b - g, grad = 2 r (x, 1)."""

    def __init__(self, a: float = 1.0, b: float = 0.0) -> None:
        self.parameters = [torch.nn.Parameter(torch.tensor(a)), torch.nn.Parameter(torch.tensor(b))]

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        return self.parameters[0] * noised + self.parameters[1]


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def given(x: float | Tensor, goal: float | Tensor = 0.0, label: int = 0, clean: Tensor | None = None) -> NoisedBatch:
    """One-pixel states x with goals, at timestep 0."""
    x = x if isinstance(x, Tensor) else pixels(x)
    goal = goal if isinstance(goal, Tensor) else torch.full_like(x, goal)
    return NoisedBatch(x if clean is None else clean, x, goal, torch.zeros(len(x), dtype=torch.int64), torch.full((len(x),), label))


class Bench(Workbench):
    """A workbench whose batches, target and uniform numbers are given; ``noised`` adds no noise and asks for 0."""

    def __init__(self, line: Line, retain: NoisedBatch, forget: NoisedBatch, visited: NoisedBatch | None = None, target: float = 0.0, **settings):
        self.parameters, self.denoiser, self.compute = line.parameters, line, Compute()
        self.config = EraseConfig.model_validate({"batch_size": len(retain.labels), "steps": 20} | settings)
        self.retain, self.forget, self.visited, self.goal = retain, forget, visited, target
        self.data = ErasureData(forget.clean, forget.labels, retain.clean, retain.labels, null_row=10)
        self.schedule = NoiseSchedule(torch.tensor([0.5]))
        self.random, self.seed, self.step = Ones(0), 0, 0

    def retain_batch(self, random: Randomness | None = None) -> NoisedBatch:
        return self.retain

    def held_batch(self, random: Randomness | None = None) -> Callable[[], NoisedBatch]:
        return lambda: self.retain

    def forget_batch(self, random: Randomness | None = None) -> NoisedBatch:
        return self.forget

    def visited_batch(self, random: Randomness | None = None) -> NoisedBatch:
        return self.visited

    def target_of(self, batch: NoisedBatch, random: Randomness | None = None) -> Tensor:
        return torch.full_like(batch.goal, self.goal)

    def noised(self, images: Tensor, labels: Tensor, random: Randomness | None = None) -> NoisedBatch:
        return NoisedBatch(images, images, torch.zeros_like(images), torch.zeros_like(labels), labels)


class Ones(Randomness):
    """Uniform numbers at the end of their range."""

    def uniform(self, count: int, *shape: int) -> Tensor:
        return torch.ones(count, *shape)


def direction(method, bench: Bench, rate: float = 0.0) -> list[float]:
    """What a method leaves to the optimiser in its first step."""
    method.prepare(bench)
    return stepped(method, bench, rate)


def stepped(method, bench: Bench, rate: float = 0.0) -> list[float]:
    """What a method that is prepared leaves to the optimiser; it is taken away again, as the loop does."""
    optimizer = torch.optim.SGD(bench.parameters, lr=rate)
    method.step(bench, optimizer)
    left = [float(parameter.grad) for parameter in bench.parameters]
    optimizer.zero_grad()
    return left
