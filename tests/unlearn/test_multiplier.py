"""The lie: 'this is the paper's lambda', while it is another quadratic program's, or none's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from erasediff.unlearn.multiplier import MULTIPLIERS, cosine, fixed, gradient_dots, paper

KINDS = ("random", "parallel", "opposed", "orthogonal", "zero retain", "zero forget", "almost opposed")


def pair(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    retain, forget = rng.normal(size=(2, int(rng.integers(2, 6)))) * 10 ** rng.uniform(-1, 1, (2, 1))
    if kind == "parallel":
        forget = retain * rng.uniform(0.1, 3)
    elif kind == "opposed":
        forget = -retain * rng.uniform(0.1, 3)
    elif kind == "almost opposed":
        forget = -retain + 1e-3 * forget
    elif kind == "orthogonal":
        forget = forget - retain * (forget @ retain) / (retain @ retain)
    return (0 * retain if kind == "zero retain" else retain), (0 * forget if kind == "zero forget" else forget)


def step(retain: np.ndarray, forget: np.ndarray, eta: float, rule=paper) -> tuple[np.ndarray, float]:
    dots = gradient_dots([torch.from_numpy(retain)], [torch.from_numpy(forget)])
    multiplier = rule(dots, eta)
    return retain + multiplier * forget, multiplier


def solve(retain: np.ndarray, forget: np.ndarray, eta: float) -> np.ndarray:
    """argmin 1/2 |retain - d|^2 subject to <forget, d> >= eta |forget|^2, by a general solver that knows no closed form."""
    limit = eta * (forget @ forget)
    constraint = {"type": "ineq", "fun": lambda d: forget @ d - limit, "jac": lambda d: forget}
    found = minimize(
        lambda d: 0.5 * ((d - retain) ** 2).sum(), 0 * retain, jac=lambda d: d - retain, constraints=[constraint], options={"ftol": 1e-14}
    )
    return found.x


@pytest.mark.parametrize("kind", KINDS)
def test_the_closed_form_is_the_solution_of_the_program(kind: str) -> None:
    """150 programs of each kind against a numerical solver, and the KKT conditions, which certify the optimum."""
    rng = np.random.default_rng(KINDS.index(kind))
    active = 0
    for _ in range(150):
        (retain, forget), eta = pair(kind, rng), float(rng.choice([0.0, 0.5, 1.0, 2.0]))
        delta, multiplier = step(retain, forget, eta)
        scale = 1 + np.abs(retain).max() + np.abs(forget).max()
        assert np.allclose(delta, solve(retain, forget, eta), atol=1e-5 * scale)
        slack = forget @ delta - eta * (forget @ forget)
        assert multiplier >= 0
        assert slack >= -1e-9 * scale**2
        assert abs(multiplier * slack) <= 1e-9 * scale**2
        active += multiplier > 0
    assert (active == 0) == (kind == "zero forget"), "the constraint was at work"


def test_a_positive_lambda_lowers_the_forget_loss_at_exactly_the_asked_rate() -> None:
    """lambda > 0 implies <grad g, delta> = eta |grad g|^2."""
    rng, hits, misses = np.random.default_rng(1), 0, {"cosine": 0, "fixed": 0}
    for _ in range(1000):
        retain, forget = pair("random", rng)
        wanted = 0.7 * (forget @ forget)
        delta, multiplier = step(retain, forget, 0.7)
        if multiplier > 0:
            hits += 1
            assert forget @ delta == pytest.approx(wanted, rel=1e-9, abs=1e-12)
            for name, rule in (("cosine", cosine), ("fixed", fixed)):
                misses[name] += not math.isclose(forget @ step(retain, forget, 0.7, rule)[0], wanted, rel_tol=1e-3)
    assert hits > 300
    assert min(misses.values()) > 0.9 * hits, "control: the other rules do not keep it"


def test_a_vanishing_forget_gradient_asks_for_nothing() -> None:
    dots = gradient_dots([torch.ones(3)], [torch.zeros(3)])
    assert (paper(dots, 1.0), dots.cosine) == (0.0, 0.0)


@pytest.mark.parametrize(("forget", "wanted"), [([2.0, 0.0], 0.0), ([-2.0, 0.0], 2.0), ([0.0, 5.0], 1.0)])
def test_the_cosine_rule_looks_at_the_angle_alone(forget: list[float], wanted: float) -> None:
    dots = gradient_dots([torch.tensor([3.0, 0.0])], [torch.tensor(forget)])
    assert cosine(dots, 1.0) == pytest.approx(wanted)
    assert fixed(dots, 0.3) == 0.3
    assert set(MULTIPLIERS) == {"paper", "cosine", "fixed"}


def test_dots_over_tensors_are_dots_over_the_flattened_gradient() -> None:
    """No tensor is left out, whatever its shape; and nothing is counted twice."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3,), (2, 4), (1,), (2, 3, 3, 3), ()]
    retain, forget = ([torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(2))
    flat_r, flat_f = (torch.cat([g.reshape(-1) for g in gradient]).numpy() for gradient in (retain, forget))
    dots = gradient_dots(retain, forget)
    assert dots.forget_forget == pytest.approx(flat_f @ flat_f)
    assert dots.forget_retain == pytest.approx(flat_f @ flat_r)
    assert dots.retain_retain == pytest.approx(flat_r @ flat_r)
    assert dots.cosine == pytest.approx(flat_f @ flat_r / np.linalg.norm(flat_f) / np.linalg.norm(flat_r))
    assert gradient_dots(retain[:-1], forget[:-1]) != dots, "control"
    with pytest.raises(ValueError, match="zip"):
        gradient_dots(retain, forget[:-1])
