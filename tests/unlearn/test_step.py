"""The lies: 'a step is EraseDiff's', 'it costs what the facts say', 'training went on' after a NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from erasediff.errors import NonFinite
from erasediff.models.noised import NoisedBatch
from erasediff.models.optimisation import linear_decay
from erasediff.records.config import EraseConfig
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.methods.base import StepReport
from erasediff.unlearn.methods.erasediff import EraseDiff
from erasediff.unlearn.randomness import Randomness
from erasediff.unlearn.trainer import Erasure
from erasediff.unlearn.workbench import Workbench
from tests.counting import Passes
from tests.small_models import model_of

Maker = Callable[..., Erasure]


class Line:
    """eps(x) = a x + b: two parameters, whose gradients can be worked out by hand."""

    def __init__(self, a: float, b: float) -> None:
        self.parameters = [torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)]

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        return self.parameters[0] * noised + self.parameters[1]


def one(x: float, goal: float = 0.0) -> NoisedBatch:
    zero, image = torch.zeros(1, dtype=torch.int64), torch.full((1, 1, 1, 1), x)
    return NoisedBatch(image, image, torch.full((1, 1, 1, 1), goal), zero, zero)


class Bench(Workbench):
    """A workbench whose batches are given."""

    def __init__(self, line: Line, config: EraseConfig, retain: NoisedBatch, forget: NoisedBatch, target: Tensor) -> None:
        self.parameters, self.denoiser, self.config, self.compute = line.parameters, line, config, Compute()
        self.retain, self.forget, self.goal = retain, forget, target
        self.random, self.seed, self.step = Randomness(0), 0, 0

    def retain_batch(self, random: Randomness | None = None) -> NoisedBatch:
        return self.retain

    def held_batch(self, random: Randomness | None = None) -> Callable[[], NoisedBatch]:
        return lambda: self.retain

    def visited_batch(self, random: Randomness | None = None) -> NoisedBatch:
        return self.forget

    def target_of(self, batch: NoisedBatch, random: Randomness | None = None) -> Tensor:
        return self.goal


def step(line: Line, config: EraseConfig, retain: NoisedBatch, forget: NoisedBatch, target: Tensor) -> StepReport:
    return EraseDiff(config).step(Bench(line, config, retain, forget, target), torch.optim.SGD(line.parameters))


@pytest.mark.parametrize(
    ("x", "target", "eta", "multiplier", "delta"),
    [
        (-1.0, 0.0, 1.0, 1.0, (4.0, 0.0)),  # grad g = (2, -2), orthogonal: lambda = eta
        (1.0, 0.0, 0.5, 0.0, (2.0, 2.0)),  # grad g = (2, 2), the retain step does enough: lambda = 0
        (1.0, 2.0, 0.5, 1.5, (-1.0, -1.0)),  # grad g = (-2, -2), opposed: lambda = eta + 1
        (0.0, 0.0, 1.0, 0.0, (2.0, 2.0)),  # grad g = 0: nothing to do
    ],
    ids=["orthogonal", "aligned", "opposed", "vanishing"],
)
def test_delta_is_what_it_is_by_hand(x: float, target: float, eta: float, multiplier: float, delta: tuple[float, float]) -> None:
    """At a = 1, b = 0 with the retain sample x = 1, noise 0: grad L_r = 2 (1 - 0) (1, 1) = (2, 2)."""
    line = Line(1.0, 0.0)
    report = step(line, EraseConfig(eta=eta), one(1.0), one(x), torch.full((1, 1, 1, 1), target))
    assert report.multiplier == pytest.approx(multiplier)
    assert [float(p.grad) for p in line.parameters] == pytest.approx(delta)
    assert report.retain_loss == pytest.approx(1.0)
    assert report.forget_loss == pytest.approx((x - target) ** 2)


@pytest.mark.parametrize(
    ("x_retain", "x_forget", "what"), [(float("nan"), 1.0, "the retain loss"), (1.0, float("inf"), "the forget loss"), (1.0, 1e15, "λ")]
)
def test_a_number_that_is_none_leaves_no_gradient(x_retain: float, x_forget: float, what: str) -> None:
    """Also where both losses are finite and only the norm of a gradient overflows: lambda would silently become eta."""
    line = Line(1.0, 0.0)
    with pytest.raises(NonFinite, match=f"^{what} is not finite"):
        step(line, EraseConfig(), one(x_retain), one(x_forget), torch.zeros(1, 1, 1, 1))
    assert [p.grad for p in line.parameters] == [None, None]


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def unchanged(model: nn.Module, before: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("which", ["retain", "forget"])
def test_a_loss_that_is_not_finite_is_named_with_its_step_and_changes_nothing(make_erasure: Maker, program, which: str) -> None:
    good = program.make_data()
    erasure = make_erasure(target="relabel", visited_share=0.0)
    erasure.advance()
    erasure.bench.data = replace(good, **{which: torch.full_like(getattr(good, which), torch.nan)})
    before, average = weights(erasure.model), weights(erasure.ema.model)
    with pytest.raises(NonFinite, match=rf"^the {which} loss is not finite at step 1: lower .*\.$"):
        erasure.advance()
    assert unchanged(erasure.model, before)
    assert unchanged(erasure.ema.model, average)
    assert (erasure.step, len(erasure.curves)) == (1, 1)
    erasure.bench.data = good
    erasure.advance()
    assert not unchanged(erasure.model, before), "control: a good step changes the weights"


@pytest.mark.parametrize("teacher", ["base", "current"])
@pytest.mark.parametrize(
    ("settings", "forward"),
    [
        ({"target": "relabel"}, 3),
        ({"target": "anchor"}, 3),
        ({"target": "noise"}, 2),
        ({"target": "mixture", "mixture_estimate": "drawn", "repulsion": 0.0}, 3),
        ({"target": "mixture", "mixture_estimate": "drawn", "repulsion": 0.5}, 4),
        ({"target": "mixture", "repulsion": 0.5, "mixture_estimate": "closed-form"}, 4),
    ],
    ids=["relabel", "anchor", "noise", "mixture", "mixture repelled", "closed form"],
)
def test_a_step_costs_what_the_facts_say(make_erasure: Maker, settings: dict[str, object], forward: int, teacher: str) -> None:
    """3F + 2B, 2F + 2B, 4F + 2B with the paper's retain loss: no inner loop, no third backward."""
    if settings.get("mixture_estimate") == "closed-form" and teacher == "current":
        with pytest.raises(ValidationError, match="use teacher 'base', or 'drawn'"):
            make_erasure(teacher=teacher, **settings)
        return
    erasure, passes = make_erasure(teacher=teacher, truth_share=1.0, **settings), Passes()
    with passes.counted():
        erasure.advance()
        erasure.advance()
    assert (passes.forward, passes.backward) == (2 * forward, 4)
    result = erasure.result()
    assert (result.forward_passes, result.backward_passes) == (2 * forward, 4), "and the record says so"


@pytest.mark.parametrize("target", ["relabel", "anchor", "mixture", "noise"])
def test_the_base_teaches_and_never_learns(make_erasure: Maker, target: str) -> None:
    """A teacher that drifts towards its pupil would certify anything."""
    erasure = make_erasure(target=target, learning_rate=1e-2)
    teacher = erasure.bench.teacher.unet
    before = weights(teacher)
    for _ in range(3):
        erasure.advance()
    assert unchanged(teacher, before)
    assert not unchanged(erasure.model, before), "control: the pupil learns"
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    goal = erasure.bench.target_of(erasure.bench.visited_batch())
    assert not goal.requires_grad


def test_teacher_current_is_the_model_itself_without_a_gradient(make_erasure: Maker) -> None:
    erasure = make_erasure(target="relabel", teacher="current")
    assert erasure.bench.teacher.unet is erasure.model
    assert not erasure.bench.target_of(erasure.bench.visited_batch()).requires_grad


def test_the_base_that_was_handed_in_is_not_changed(make_erasure: Maker, tiny_unet, schedule, program) -> None:
    unet = tiny_unet()
    before = weights(unet)
    erasure = Erasure(model_of(unet), program.make_data(), EraseConfig(batch_size=8), 0, Compute())
    erasure.advance()
    assert unchanged(unet, before)
    assert all(p.grad is None for p in unet.parameters())


def test_an_erasure_is_a_function_of_its_seed(make_erasure: Maker) -> None:
    """Own generators everywhere: the global one neither matters nor moves."""
    first = make_erasure()
    first.advance()
    torch.rand(3)
    before = torch.get_rng_state()
    second, other = make_erasure(), make_erasure(seed=1)
    second.advance()
    other.advance()
    assert torch.equal(torch.get_rng_state(), before)
    assert unchanged(first.model, weights(second.model))
    assert not unchanged(first.model, weights(other.model)), "control"


def test_the_rate_falls_over_the_last_share() -> None:
    assert [linear_decay(step, 10, 0.5) for step in (0, 5, 6, 9)] == pytest.approx([1, 1, 0.8, 0.2])
    assert linear_decay(9, 10, 0.0) == 1.0


@pytest.mark.parametrize(("fraction", "wanted"), [(1.0, [0.4, 0.3, 0.2, 0.1]), (0.5, [0.4, 0.4, 0.4, 0.2]), (0.0, [0.4] * 4)])
def test_eta_falls_over_the_last_share(make_erasure: Maker, fraction: float, wanted: list[float]) -> None:
    """Under 'fixed' λ is η itself; at fraction 0 it is the paper's constant."""
    erasure = make_erasure(steps=4, multiplier="fixed", eta=0.4, eta_decay_fraction=fraction)
    assert [erasure.advance().multiplier for _ in range(4)] == pytest.approx(wanted)
