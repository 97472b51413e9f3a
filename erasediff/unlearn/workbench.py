"""What a method works with: parameters, denoisers, batches, targets and gradients. It knows no optimiser and no step count."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from erasediff.errors import BadInput, NonFinite
from erasediff.models.denoiser import Denoiser
from erasediff.models.noised import NoisedBatch, denoising_loss
from erasediff.models.optimisation import gradient_of, side_by_side
from erasediff.models.process import NoiseSchedule
from erasediff.records.config import EraseConfig
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.mixture import RetainedMixture
from erasediff.unlearn.objective import Target, chunks
from erasediff.unlearn.randomness import Randomness

B = TypeVar("B")


@dataclass(frozen=True)
class ErasureData:
    """The images or latents of an erasure, ``float32 [N,C,H,W]``, with ``int64 [N]`` labels.

    Several labels may be forgotten at once. ``earlier`` are labels forgotten before: there are no images of them, but their condition is kept on
    the target. ``anchors`` are labels without images that target ``anchor`` may name. Where ``null_row`` is ``None``, no label is dropped.
    """

    forget: Tensor
    forget_labels: Tensor
    retain: Tensor
    retain_labels: Tensor
    null_row: int | None
    earlier: tuple[int, ...] = ()
    anchors: tuple[int, ...] = ()

    @property
    def forgotten(self) -> Tensor:
        """The labels to forget now, ``int64 [K]``, sorted."""
        labels: Tensor = torch.unique(self.forget_labels)
        return labels

    def to(self, device: torch.device) -> ErasureData:
        """The data on a device, contiguous in memory: torch's GroupNorm crashes on some channels-last batches on a CPU."""
        moved = {name: getattr(self, name).to(device).contiguous() for name in ("forget", "forget_labels", "retain", "retain_labels")}
        return replace(self, **moved)


class Overflow(Exception):
    """A scaled gradient was not finite: skip the step and halve the loss scale."""


@dataclass
class Workbench:
    """The tools that a method uses in one process of an erasure.

    ``denoiser`` carries the gradient of ``parameters``; ``base`` is the frozen model that the erasure started from, and
    ``model`` the module in training; ``fresh`` makes an untrained one. ``step`` is the number of steps done.
    """

    model: torch.nn.Module
    fresh: Callable[[], torch.nn.Module]
    parameters: Sequence[torch.nn.Parameter]
    denoiser: Denoiser
    base: Denoiser
    teacher: Denoiser
    target: Target
    mixture: RetainedMixture | None
    data: ErasureData
    schedule: NoiseSchedule
    config: EraseConfig
    compute: Compute
    seed: int
    random: Randomness = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        self.random = Randomness(self.seed, self.compute.rank, self.compute.processes)

    def random_of(self, purpose: str) -> Randomness:
        """Random numbers apart from those of the steps: a function of the seed and a purpose."""
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {purpose}".encode()).digest()[:8], "big") >> 1
        return Randomness(seed, self.compute.rank, self.compute.processes)

    @property
    def rows(self) -> int:
        """This process's rows of a batch."""
        return self.config.batch_size // self.compute.processes

    def noised(self, images: Tensor, labels: Tensor, random: Randomness | None = None) -> NoisedBatch:
        """Images ``[B,C,H,W]`` on the forward process, with ε as the goal (or v, for a model that predicts it)."""
        random, device = random or self.random, images.device
        timesteps = random.timesteps(self.schedule, len(images)).to(device)
        noise = random.normal(len(images), *images.shape[1:]).to(device)
        return NoisedBatch.of(self.schedule, images, noise, timesteps, labels)

    def retain_batch(self, random: Randomness | None = None) -> NoisedBatch:
        """Retain images under their own labels, some of them under the null label so that guidance keeps its anchor."""
        own = self._retained(random)
        return self._with_dropped_labels(own, self._dropped(random))

    def held_batch(self, random: Randomness | None = None) -> Callable[[], NoisedBatch]:
        """A retain batch that is to be predicted as the base predicts it, up to ``erase.truth_share`` of the truth.

        The batch is drawn now; the base predicts when the returned function is called.

        A smaller share of the truth puts less of the noise's variance into the goal, and leaves less room to improve on the base.
        The base's null label also makes the class to be forgotten. So the goal under the null label is the retained mixture, as
        in target ``mixture``: in closed form, or what the base predicts under the image's own label, a draw from it.
        """
        return partial(self._goal_from_base, self._retained(random), self._dropped(random))

    def _goal_from_base(self, own: NoisedBatch, dropped: Tensor) -> NoisedBatch:
        if self.config.truth_share == 1:
            return self._with_dropped_labels(own, dropped)
        with torch.no_grad(), self.compute.autocast():
            predict = partial(self._predict, self.base)
            goal = self.mixture.held(own, dropped, predict) if self.mixture else predict(own.noised, own.timesteps, own.labels)
        return self._with_dropped_labels(own, dropped).aimed_at(goal.lerp(own.goal, self.config.truth_share))

    def _retained(self, random: Randomness | None) -> NoisedBatch:
        random = random or self.random
        picked = random.integers(len(self.data.retain), self.rows).to(self.compute.device)
        return self.noised(self.data.retain[picked], self.data.retain_labels[picked], random)

    def _dropped(self, random: Randomness | None) -> Tensor:
        return ((random or self.random).uniform(self.rows) < self.config.label_dropout).to(self.compute.device)

    def _with_dropped_labels(self, own: NoisedBatch, dropped: Tensor) -> NoisedBatch:
        return own if self.data.null_row is None else own.under(torch.where(dropped, self.data.null_row, own.labels))

    def forget_batch(self, random: Randomness | None = None) -> NoisedBatch:
        """Noised forget images under their own labels."""
        random = random or self.random
        picked = random.integers(len(self.data.forget), self.rows).to(self.compute.device)
        return self.noised(self.data.forget[picked], self.data.forget_labels[picked], random)

    def visited_batch(self, random: Randomness | None = None) -> NoisedBatch:
        """States under a forgotten label: noised forget images, and noised retain images for ``visited_share`` of them.

        After the erasure the sampler of a forgotten label walks through states of retained images, which no forget image
        reaches. Labels forgotten earlier have no images left, so half of those states carry their labels.
        """
        random, device = random or self.random, self.compute.device
        row = torch.arange(self.compute.rank * self.rows, (self.compute.rank + 1) * self.rows)
        turn = (row * self.config.visited_share).floor()  # rises by one at every visited row, whichever process has it
        visited = (((row + 1) * self.config.visited_share).floor() > turn).to(device)
        own = random.integers(len(self.data.forget), self.rows).to(device)
        other = random.integers(len(self.data.retain), self.rows).to(device)
        labels = self._drawn(self.data.forgotten, random)
        if self.data.earlier:
            earlier = self._drawn(torch.tensor(self.data.earlier, device=device), random)
            labels = torch.where((turn % 2 == 1).to(device), earlier, labels)
        images = torch.where(visited.view(-1, 1, 1, 1), self.data.retain[other], self.data.forget[own])
        return self.noised(images, torch.where(visited, labels, self.data.forget_labels[own]), random)

    def _drawn(self, labels: Tensor, random: Randomness) -> Tensor:
        return labels[random.integers(len(labels), self.rows).to(labels.device)]

    def target_of(self, batch: NoisedBatch, random: Randomness | None = None) -> Tensor:
        """ε_f ``[B,C,H,W]`` of a forget batch; it carries no gradient."""
        with torch.no_grad(), self.compute.autocast():
            return self.target(batch, self._teacher_prediction, random or self.random).float()

    def aimed_batch(self, random: Randomness | None = None) -> NoisedBatch:
        """States under a forgotten label with ε_f as the goal: the batch of the forget loss."""
        batch = self.visited_batch(random)
        return batch.aimed_at(self.target_of(batch, random))

    def _teacher_prediction(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        return self._predict(self.teacher, noised, timesteps, labels)

    def _predict(self, denoiser: Denoiser, *batch: Tensor) -> Tensor:
        """A prediction, computed in the parts into which a batch is split."""
        parts = zip(*(tensor.chunk(self.config.accumulation) for tensor in batch), strict=True)
        return torch.cat([denoiser(*part).float() for part in parts])

    def gradients(self, losses: Callable[[B], Sequence[tuple[str, Tensor]]], batch: B) -> list[Gradient]:
        """The gradient of each of several named losses of one batch, averaged over all processes.

        A batch is taken in ``accumulation`` parts; each part has one forward pass for all losses and one backward pass a
        loss. Gradients gather in the parameters' ``.grad`` only while a single loss is computed: at its end there is one
        tensor a parameter and loss, and nothing flattened.

        Args:
            losses: means over a batch, each with the name that an error will call it by.
            batch: this process's rows, a dataclass of tensors ``[B,…]``.

        Raises:
            NonFinite: a loss is NaN or infinite on any process; no gradient is left behind.
            Overflow: under a loss scale, a gradient is.
        """
        names: list[str] = []
        values: list[float] = []
        sums: list[list[Tensor]] = []
        scale, parts = self.compute.loss_scale.scale, self.config.accumulation
        for part in chunks(batch, parts):
            with self.compute.autocast():
                named = list(losses(part))
            for index, (name, loss) in enumerate(named):
                value = self.compute.mean_of(loss)
                if not math.isfinite(value):
                    raise NonFinite(f"the {name} is not finite")
                if index == len(sums):
                    names.append(name)
                    values.append(0.0)
                    sums.append([])
                values[index] += value / parts
                sums[index] = self._accumulated(sums[index], loss * (scale / parts), keep_graph=index < len(named) - 1)
        for gradient in sums:
            self.compute.mean_(gradient)
            if scale != 1.0:
                torch._foreach_mul_(gradient, 1 / scale)
                if not all(bool(torch.isfinite(tensor).all()) for tensor in gradient):
                    raise Overflow
        return [Gradient(name, value, gradient) for name, value, gradient in zip(names, values, sums, strict=True)]

    def _accumulated(self, before: list[Tensor], loss: Tensor, *, keep_graph: bool) -> list[Tensor]:
        """``before`` plus the gradient of a loss; autograd adds in place, a layer at a time."""
        if not before:
            return gradient_of(loss, self.parameters, keep_graph=keep_graph)
        self.leave(before)
        torch.autograd.backward(loss, retain_graph=keep_graph, inputs=list(self.parameters))
        after = [parameter.grad for parameter in self.parameters if parameter.grad is not None]  # set just above
        for parameter in self.parameters:
            parameter.grad = None
        return after

    def gradient(self, name: str, loss: Callable[[B], Tensor], batch: B) -> Gradient:
        """The gradient of one loss; see :meth:`gradients`."""
        return self.gradients(lambda part: [(name, loss(part))], batch)[0]

    def denoising_gradient(self, name: str, batch: NoisedBatch) -> Gradient:
        """The gradient of the denoising loss of a batch; see :meth:`gradients`."""
        return self.gradient(name, partial(denoising_loss, self.denoiser), batch)

    def denoising_gradients(self, retain: Callable[[], NoisedBatch], forget: Callable[[], NoisedBatch]) -> tuple[Gradient, Gradient]:
        """The gradients of the retain and of the forget loss, each over a batch that is called for; in two threads in a single CPU process.

        Otherwise one after the other: one thread keeps a GPU busy, processes must reduce in one order, and the parts of a batch accumulate their
        gradient in the parameters' ``.grad``. Only ``forget`` may draw numbers; those of ``retain`` are drawn before.

        Raises:
            NonFinite: see :meth:`gradients`.
            Overflow: see :meth:`gradients`.
        """

        def kept() -> Gradient:
            return self.denoising_gradient("retain loss", retain())

        def forgotten() -> Gradient:
            return self.denoising_gradient("forget loss", forget())

        in_threads = self.compute.device.type == "cpu" and self.compute.processes == 1 and self.config.accumulation == 1
        return side_by_side(kept, forgotten) if in_threads else (kept(), forgotten())

    def leave(self, direction: Sequence[Tensor]) -> None:
        """Hand a direction to the optimiser."""
        for parameter, value in zip(self.parameters, direction, strict=True):
            parameter.grad = value


@dataclass(frozen=True)
class Gradient:
    """A loss's mean over the joint batch, and its gradient, one tensor a trained parameter."""

    name: str
    loss: float
    tensors: list[Tensor]


def check_batch(config: EraseConfig, processes: int) -> None:
    """Refuse a batch that does not divide into equal parts.

    Raises:
        BadInput: it does not.
    """
    if config.batch_size % (processes * config.accumulation):
        raise BadInput(
            f"erase.batch_size {config.batch_size} does not divide by {processes} processes × {config.accumulation} parts: "
            "choose a multiple, so that every part weighs the same."
        )
