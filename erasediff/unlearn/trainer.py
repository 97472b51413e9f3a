"""The loop: one method step, one optimiser step, EMA; checkpoints that resume bit for bit on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from erasediff.errors import BadInput, NonFinite
from erasediff.models.family import Model
from erasediff.models.optimisation import ExponentialMovingAverage, linear_decay
from erasediff.progress import ReportProgress
from erasediff.records.config import EraseConfig
from erasediff.unlearn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.methods import METHODS, Method, StepReport
from erasediff.unlearn.parameters import choose_parameters
from erasediff.unlearn.passes import PassCounter
from erasediff.unlearn.targets import make_target, retained_mixture
from erasediff.unlearn.workbench import ErasureData, Overflow, Workbench, check_batch

_BETAS = (0.9, 0.99)  # a run has a few hundred steps: the usual 0.999 would average over all of them
CURVES = tuple(field.name for field in fields(StepReport))


def _starting_point(model: torch.nn.Module, base: torch.nn.Module) -> list[Tensor]:
    """The trained weights as they are now. An unchanged weight is the base's own tensor and costs no memory."""
    trained = ((ours, theirs) for ours, theirs in zip(model.parameters(), base.parameters(), strict=True) if ours.requires_grad)
    return [theirs if torch.equal(ours, theirs) else ours.detach().clone() for ours, theirs in trained]


@dataclass(frozen=True)
class ErasureResult:
    """The result of an erasure: weights without optimiser state, and the numbers of every step."""

    model: torch.nn.Module
    curves: dict[str, Tensor]
    steps: int
    ema_base_share: float
    forward_passes: int
    backward_passes: int


class Erasure:
    """One erasure in progress, in one process or in one of several."""

    def __init__(
        self,
        base: Model,
        data: ErasureData,
        config: EraseConfig,
        seed: int,
        compute: Compute,
        method: type[Method] | None = None,
    ) -> None:
        """Set the state before the first step.

        Args:
            base: the model to erase from; its network is copied, not changed.
            data: see :class:`ErasureData`.
            config: hyperparameters.
            seed: of all randomness here.
            compute: device, processes and precision.
            method: replaces the one that ``config.method`` names.

        Raises:
            BadInput: the config does not fit the data, the model or the number of processes.
        """
        check_batch(config, compute.processes)
        method = method or METHODS[config.method]
        if data.earlier and not method.keeps_earlier:
            keeping = ", ".join(name for name, one in METHODS.items() if one.keeps_earlier)
            raise BadInput(f"erase.method '{config.method}' does not keep earlier erasures forgotten: choose one of {keeping}.")
        self.config, device = config, compute.device
        data = data.to(device)
        self.model = copy.deepcopy(base.network).to(device).train()
        if config.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()  # type: ignore[operator]
        kept = copy.deepcopy(base.network).to(device).eval().requires_grad_(False)
        self.passes = PassCounter(self.model, kept)  # after copying: a copied hook would count into a copied counter
        denoiser, frozen, schedule = base.denoiser_of(self.model), base.denoiser_of(kept), base.schedule
        mixture = retained_mixture(config, data, schedule)
        self.bench = Workbench(
            model=self.model,
            fresh=base.fresh,
            parameters=choose_parameters(self.model, base.trainable, config.parameters),
            denoiser=denoiser,
            base=frozen,
            teacher=frozen if config.teacher == "base" else denoiser,
            target=make_target(config, data, schedule, frozen, mixture),
            mixture=mixture,
            data=data,
            schedule=schedule,
            config=config,
            compute=compute,
            seed=seed,
        )
        self.optimizer = torch.optim.Adam(self.bench.parameters, lr=config.learning_rate, betas=_BETAS, fused=True)
        self.method = method(config)
        self.method.prepare(self.bench)
        self._starting_point = _starting_point(self.model, kept)
        start = copy.deepcopy(base.network).to(device)  # a copy of the model would carry its hooks along
        start.load_state_dict(self.model.state_dict())
        self.ema = ExponentialMovingAverage(start, config.ema_decay, torch.device("cpu") if config.ema_on_cpu else None)
        self._weights = list(self.model.parameters())
        self.curves: list[StepReport] = []

    @property
    def step(self) -> int:
        """Steps done."""
        return self.bench.step

    def advance(self) -> StepReport:
        """One step.

        Raises:
            NonFinite: a loss or a gradient is not finite; the parameters are those of the last good step.
        """
        rate = self.config.learning_rate * linear_decay(self.step, self.config.steps, self.config.decay_fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        report = self._direction()
        self.optimizer.step()
        with torch.no_grad():  # decoupled as in AdamW, towards the starting point instead of 0: L2-SP (Li et al. 2018, arXiv 1802.01483)
            torch._foreach_lerp_(list(self.bench.parameters), self._starting_point, rate * self.config.starting_point_decay)
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self._weights)
        self.bench.compute.loss_scale.stepped()
        self.bench.step += 1
        self.curves.append(report)
        return report

    def _direction(self) -> StepReport:
        """The method's direction, clipped, in the parameters' ``.grad``."""
        scale = self.bench.compute.loss_scale
        try:
            while True:
                try:
                    report = self.method.step(self.bench, self.optimizer)
                    break
                except Overflow:  # at scale 1 there is no overflow: non-finite values raise NonFinite
                    scale.overflowed()
            norm = torch.nn.utils.clip_grad_norm_(self.bench.parameters, self.config.max_gradient_norm)
            if not torch.isfinite(norm):
                raise NonFinite("a gradient is not finite")
        except NonFinite as error:
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFinite(f"{error} at step {self.step}: lower erase.learning_rate or erase.eta and run again.") from None
        return report

    def checkpoint(self) -> Checkpoint:
        """The whole state."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        tensors["generator"] = self.bench.random.generator.get_state()
        tensors["curves"] = torch.tensor([[getattr(r, name) for name in CURVES] for r in self.curves], dtype=torch.float64)
        scale = self.bench.compute.loss_scale
        numbers = {
            "ema_updates": self.ema.updates,
            "ema_initial_share": self.ema.initial_share,
            "forward_passes": self.passes.forward,
            "backward_passes": self.passes.backward,
            "loss_scale": scale.scale,
            "calm_steps": scale.calm_steps,
        }
        return Checkpoint(self.step, tensors, numbers)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in checkpoint.tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.ema.model.load_state_dict(part("ema."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimizer.").items():
            index, field = name.split(".", 1)
            moments.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.bench.random.generator.set_state(checkpoint.tensors["generator"])
        numbers = checkpoint.numbers
        self.ema.updates, self.ema.initial_share = int(numbers["ema_updates"]), numbers["ema_initial_share"]
        self.passes.forward, self.passes.backward = int(numbers["forward_passes"]), int(numbers["backward_passes"])
        scale = self.bench.compute.loss_scale
        scale.scale, scale.calm_steps = numbers["loss_scale"], int(numbers["calm_steps"])
        self.curves = [StepReport(*row) for row in checkpoint.tensors["curves"].tolist()]
        self.bench.step = checkpoint.step

    def weights(self) -> torch.nn.Module:
        """The module that the erasure would return now."""
        return self.ema.model if self.config.weights == "ema" else self.model

    def result(self) -> ErasureResult:
        """The weights, free of gradients, with the numbers of every step."""
        curves = torch.tensor([[getattr(r, name) for name in CURVES] for r in self.curves], dtype=torch.float64)
        model = copy.deepcopy(self.ema.model).cpu()
        model.load_state_dict(self.weights().state_dict())
        return ErasureResult(
            model=model,
            curves={name: curves[:, column] for column, name in enumerate(CURVES)},
            steps=self.step,
            ema_base_share=self.ema.initial_share if self.config.weights == "ema" else 0.0,
            forward_passes=self.passes.forward,
            backward_passes=self.passes.backward,
        )


def with_numbers(erasure: Erasure, done: ReportProgress) -> Callable[[int], None]:
    """Take the number of steps done and report it with the losses and the multiplier of the last step."""

    def report(steps: int) -> None:
        last = erasure.curves[-1]
        done(steps, retain_loss=last.retain_loss, forget_loss=last.forget_loss, multiplier=last.multiplier)

    return report


def run(
    erasure: Erasure, checkpoint_path: Path | None, key: str, done: Callable[[int], None], enough: Callable[[Erasure], bool] | None = None
) -> ErasureResult:
    """Run an erasure to its end, from its checkpoint if there is one.

    Args:
        erasure: the state.
        checkpoint_path: where checkpoints go, if any are kept; the caller removes the file once the result is kept, for it holds optimiser state.
        key: digest of everything that decides this run.
        done: called with the number of steps done.
        enough: a development proxy, called every ``erase.proxy.every`` steps; it may end the run early.
    """
    config, compute = erasure.config, erasure.bench.compute
    if checkpoint_path is not None and checkpoint_path.is_file():
        erasure.restore(load_checkpoint(checkpoint_path, key))
    while erasure.step < config.steps:
        erasure.advance()
        done(erasure.step)
        if enough and config.proxy and erasure.step % config.proxy.every == 0 and compute.agreed(compute.is_main and enough(erasure)):
            break
        if checkpoint_path is not None and erasure.step % config.checkpoint_every == 0 and erasure.step < config.steps and compute.is_main:
            save_checkpoint(checkpoint_path, erasure.checkpoint(), key)
    return erasure.result()
