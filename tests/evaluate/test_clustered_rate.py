"""The lie: '1,000 samples', of 50 prompts."""

from __future__ import annotations

import numpy as np
import pytest

from erasediff.evaluate.statistics import binomial_upper, clustered_upper

PROMPTS, SEEDS = 50, 20


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(rate: float, correlation: float, trials: int) -> np.ndarray:
    """Detections ``[trials, PROMPTS]`` where prompts differ: their rates are beta with this mean and intraclass correlation."""
    size = 1 / correlation - 1
    return rng().binomial(SEEDS, rng(1).beta(rate * size, (1 - rate) * size, (trials, PROMPTS)))


SAMPLES = np.full(PROMPTS, SEEDS)


@pytest.mark.parametrize("rate", [0.01, 0.03, 0.05, 0.2])
@pytest.mark.parametrize("correlation", [0.001, 0.05, 0.2, 0.5])
def test_the_bound_keeps_its_level(rate: float, correlation: float) -> None:
    """300 experiments; 91.2 % is three sigma below 95."""
    bounds = [clustered_upper(found, SAMPLES, 0.05, 200, rng(k)) for k, found in enumerate(drawn(rate, correlation, 300))]
    assert np.mean([bound >= rate for bound in bounds]) >= 0.912


def test_control_samples_taken_for_independent_do_not_keep_it() -> None:
    bounds = [binomial_upper(int(found.sum()), PROMPTS * SEEDS, 0.05) for found in drawn(0.05, 0.2, 300)]
    assert np.mean([bound >= 0.05 for bound in bounds]) < 0.85


def test_nothing_detected_counts_each_prompt_once() -> None:
    """A percentile bootstrap would say 0."""
    bound = clustered_upper(np.zeros(PROMPTS, dtype=np.int64), SAMPLES, 0.05, 200, rng())
    assert bound == pytest.approx(binomial_upper(0, PROMPTS, 0.05))


def test_everything_detected_is_one() -> None:
    assert clustered_upper(SAMPLES, SAMPLES, 0.05, 200, rng()) == 1.0


def test_of_prompts_that_do_not_differ_the_bound_is_that_of_samples() -> None:
    assert clustered_upper(np.full(PROMPTS, 2), SAMPLES, 0.05, 200, rng()) == pytest.approx(binomial_upper(100, 1000, 0.05))


@pytest.mark.parametrize(("detections", "samples"), [([1], [2]), ([1, 2], [2, 1]), ([-1, 0], [2, 2]), ([0, 0], [0, 2]), ([0], [2, 2])])
def test_what_are_no_counts_have_no_bound(detections: list[int], samples: list[int]) -> None:
    with pytest.raises(ValueError, match="not counts of two clusters"):
        clustered_upper(np.array(detections), np.array(samples), 0.05, 200, rng())
