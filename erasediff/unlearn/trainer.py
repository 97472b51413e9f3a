"""The loop: batches in, one method step, one optimiser step, EMA; checkpoints that resume bit for bit on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from erasediff.errors import BadInput, NonFinite
from erasediff.models.denoiser import Denoiser, NoiseSchedule, UNetDenoiser
from erasediff.models.ema import ExponentialMovingAverage
from erasediff.records.config import EraseConfig
from erasediff.unlearn import objective
from erasediff.unlearn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from erasediff.unlearn.methods import METHODS, StepReport
from erasediff.unlearn.objective import NoisedBatch, Target
from erasediff.unlearn.posterior import RetainedPosterior

_BETAS = (0.9, 0.99)  # a run has a few hundred steps: the usual 0.999 would average over all of them
CURVES = tuple(field.name for field in fields(StepReport))


@dataclass(frozen=True)
class ErasureData:
    """The images of an erasure, ``float32 [N,C,H,W]`` in -1..1, with ``int64 [N]`` labels.

    ``earlier`` are labels forgotten before: there are no images of them, but their condition is kept on the target.
    """

    forget: Tensor
    forget_label: int
    retain: Tensor
    retain_labels: Tensor
    null_label: int
    earlier: tuple[int, ...] = ()


@dataclass(frozen=True)
class ErasureResult:
    """What leaves the engine: averaged weights without optimiser state, and the numbers of every step."""

    model: torch.nn.Module
    curves: dict[str, Tensor]
    ema_base_share: float
    forward_passes: int
    backward_passes: int


def linear_decay(step: int, steps: int, fraction: float) -> float:
    """1 until the last ``fraction`` of ``steps``, then falling linearly towards 0."""
    return min(1.0, (steps - step) / max(1.0, fraction * steps))


def make_target(config: EraseConfig, data: ErasureData, schedule: NoiseSchedule, base: Denoiser) -> Target:
    """The forget target that the config names."""
    if config.target == "noise":
        return objective.uniform_noise
    if config.target == "relabel":
        return objective.relabelled(objective.uniform_over(torch.unique(data.retain_labels)))
    if config.target == "anchor":
        return objective.relabelled(objective.always(anchor_label(config, data)))
    posterior = RetainedPosterior(data.retain, data.retain_labels, schedule, config.posterior_bandwidth)
    mixture = objective.relabelled(lambda batch, generator: posterior.draw(batch.noised, batch.timesteps, generator))
    return objective.repelled(mixture, base, data.forget_label, config.repulsion) if config.repulsion else mixture


def anchor_label(config: EraseConfig, data: ErasureData) -> int:
    """The label of target ``anchor``: the configured one, or the next retained label after the forgotten one.

    Raises:
        BadInput: the configured label is not retained.
    """
    retained = [int(label) for label in torch.unique(data.retain_labels)]
    if config.anchor is None:
        return next((label for label in retained if label > data.forget_label), retained[0])
    if config.anchor not in retained:
        raise BadInput(f"anchor {config.anchor} is not a retained label: choose one of {', '.join(map(str, retained))}.")
    return config.anchor


class PassCounter:
    """Counts forward passes through the modules it is hooked to."""

    def __init__(self, *modules: torch.nn.Module) -> None:
        self.forward = 0
        for module in modules:
            module.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.forward += 1


class Erasure:
    """One erasure in progress."""

    def __init__(
        self,
        unet: torch.nn.Module,
        schedule: NoiseSchedule,
        data: ErasureData,
        config: EraseConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        """Set the state before the first step.

        Args:
            unet: the base; it is copied, not changed.
            schedule: its forward process.
            data: see :class:`ErasureData`.
            config: hyperparameters.
            seed: of all randomness here.
            device: where to compute; random numbers are drawn on the CPU everywhere.
        """
        self.config, self.schedule, self.device = config, schedule, device
        self.data = ErasureData(
            data.forget.to(device), data.forget_label, data.retain.to(device), data.retain_labels.to(device), data.null_label, data.earlier
        )
        self.model = copy.deepcopy(unet).to(device).train().requires_grad_(True)
        self.parameters = list(self.model.parameters())
        base = copy.deepcopy(unet).to(device).eval().requires_grad_(False)
        self.teacher = UNetDenoiser(base if config.teacher == "base" else self.model)
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, betas=_BETAS)
        self.ema = ExponentialMovingAverage(self.model, config.ema_decay)
        self.passes = PassCounter(self.model, base)  # after the copy: a copied hook would count into a copied counter
        self.generator = torch.Generator().manual_seed(seed)
        self.method = METHODS[config.method](config)
        self.target = make_target(config, self.data, schedule, UNetDenoiser(base))
        self.step = 0
        self.curves: list[StepReport] = []

    def _noised(self, images: Tensor, labels: Tensor) -> NoisedBatch:
        timesteps = self.schedule.draw_timesteps(len(images), self.generator).to(self.device)
        noise = torch.randn(images.shape, generator=self.generator).to(self.device)
        return NoisedBatch(self.schedule.add_noise(images, noise, timesteps), noise, timesteps, labels)

    def _pick(self, images: Tensor, count: int) -> Tensor:
        return torch.randint(0, len(images), (count,), generator=self.generator).to(self.device)

    def retain_batch(self) -> NoisedBatch:
        """Retain images under their own labels, some of them under the null label so that guidance keeps its anchor."""
        picked = self._pick(self.data.retain, self.config.batch_size)
        labels = self.data.retain_labels[picked]
        dropped = (torch.rand(len(labels), generator=self.generator) < self.config.label_dropout).to(self.device)
        return self._noised(self.data.retain[picked], torch.where(dropped, self.data.null_label, labels))

    def forget_batch(self) -> NoisedBatch:
        """States under the forgotten label: noised forget images, and noised retain images for ``visited_share`` of them.

        After the erasure the sampler of the forgotten label walks through states of retained images, which no forget
        image reaches. Labels forgotten earlier have no images left, so half of those states carry their labels.
        """
        visited = round(self.config.visited_share * self.config.batch_size)
        own = self.config.batch_size - visited
        images = torch.cat([self.data.forget[self._pick(self.data.forget, own)], self.data.retain[self._pick(self.data.retain, visited)]])
        labels = torch.full((len(images),), self.data.forget_label, dtype=torch.int64)
        if self.data.earlier and visited:
            some = visited // 2
            drawn = torch.randint(0, len(self.data.earlier), (some,), generator=self.generator)
            labels[own : own + some] = torch.tensor(self.data.earlier)[drawn]
        return self._noised(images, labels.to(self.device))

    def advance(self) -> StepReport:
        """One step.

        Raises:
            NonFinite: a loss or a gradient is not finite; the parameters are those of the last good step.
        """
        retain, forget = self.retain_batch(), self.forget_batch()
        target = self.target(forget, self.teacher, self.generator)
        denoiser: Denoiser = UNetDenoiser(self.model)
        try:
            report = self.method(self.parameters, denoiser, retain, forget, target)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_gradient_norm, error_if_nonfinite=True)
        except (NonFinite, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "non-finite" not in str(error):
                raise
            what = str(error) if isinstance(error, NonFinite) else "a gradient is not finite"
            raise NonFinite(f"{what} at step {self.step}: lower erase.learning_rate or erase.eta and run again.") from None
        rate = self.config.learning_rate * linear_decay(self.step, self.config.steps, self.config.decay_fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model)
        self.step += 1
        self.curves.append(report)
        return report

    def checkpoint(self) -> Checkpoint:
        """The whole state."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        tensors["generator"] = self.generator.get_state()
        tensors["curves"] = torch.tensor([[getattr(r, name) for name in CURVES] for r in self.curves], dtype=torch.float64)
        numbers = {"ema_updates": self.ema.updates, "ema_initial_share": self.ema.initial_share, "forward_passes": self.passes.forward}
        return Checkpoint(self.step, tensors, numbers)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in checkpoint.tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.ema.model.load_state_dict(part("ema."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimizer.").items():
            index, field = name.split(".", 1)
            moments.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.generator.set_state(checkpoint.tensors["generator"])
        self.ema.updates = int(checkpoint.numbers["ema_updates"])
        self.ema.initial_share = checkpoint.numbers["ema_initial_share"]
        self.passes.forward = int(checkpoint.numbers["forward_passes"])
        self.curves = [StepReport(*row) for row in checkpoint.tensors["curves"].tolist()]
        self.step = checkpoint.step

    def result(self) -> ErasureResult:
        """The averaged weights, with the numbers of every step."""
        curves = torch.tensor([[getattr(r, name) for name in CURVES] for r in self.curves], dtype=torch.float64)
        return ErasureResult(
            model=self.ema.model.cpu(),
            curves={name: curves[:, column] for column, name in enumerate(CURVES)},
            ema_base_share=self.ema.initial_share,
            forward_passes=self.passes.forward,
            backward_passes=2 * self.step,
        )


def run(erasure: Erasure, checkpoint_path: Path, key: str, done: Callable[[int], None]) -> ErasureResult:
    """Run an erasure to its end, from its checkpoint if there is one.

    Args:
        erasure: the state.
        checkpoint_path: where checkpoints go; the caller removes the file once the result is kept, for it holds optimiser state.
        key: digest of everything that decides this run.
        done: told the number of steps done.
    """
    if checkpoint_path.is_file():
        erasure.restore(load_checkpoint(checkpoint_path, key))
    while erasure.step < erasure.config.steps:
        erasure.advance()
        done(erasure.step)
        if erasure.step % erasure.config.checkpoint_every == 0 and erasure.step < erasure.config.steps:
            save_checkpoint(checkpoint_path, erasure.checkpoint(), key)
    return erasure.result()
