"""The lies: 'c_m was drawn from the posterior', and 'the target is the score of what is retained'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import chisquare, multivariate_normal
from torch import Tensor

from erasediff.models.denoiser import to_unit
from erasediff.models.noised import NoisedBatch
from erasediff.models.process import NoiseSchedule
from erasediff.unlearn import mixture
from erasediff.unlearn.mixture import RetainedMixture
from erasediff.unlearn.objective import from_posterior, relabelled, uniform_over
from erasediff.unlearn.posterior import ClassPosterior
from erasediff.unlearn.randomness import Randomness

BANDWIDTH = 0.3
TIMES = (0, 100, 500, 800, 999)


@pytest.fixture(scope="module")
def few() -> tuple[Tensor, Tensor]:
    """Nine 2x2 images of classes 1, 5 and 6, of unequal numbers."""
    images = torch.rand(9, 1, 2, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return images, torch.tensor([5, 1, 5, 6, 5, 1, 5, 6, 5])


def brute_force(images: Tensor, labels: Tensor, signal: float, point: Tensor) -> np.ndarray:
    """p(c | x_t) by Bayes' rule from densities that scipy evaluates one by one."""
    logs = []
    for label in torch.unique(labels):
        centres = signal**0.5 * images[labels == label].flatten(1).double().numpy()
        spread = (1 - signal + signal * BANDWIDTH**2) * np.eye(centres.shape[1])
        densities = [multivariate_normal(centre, spread).logpdf(point.flatten().double().numpy()) for centre in centres]
        logs.append(logsumexp(densities) - np.log(len(centres)))
    return np.exp(np.array(logs) - logsumexp(logs))


@pytest.mark.parametrize("time", TIMES)
def test_the_posterior_is_that_of_bayes(few, schedule: NoiseSchedule, time: int) -> None:
    images, labels = few
    posterior = ClassPosterior(images, labels, schedule, BANDWIDTH)
    points = torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(time))
    found = posterior.log_densities(points, torch.full((6,), time)).softmax(1).numpy()
    wanted = np.stack([brute_force(images, labels, float(schedule.alphas_cumprod[time]), point) for point in points])
    assert np.allclose(found, wanted, atol=2e-5)
    if time < 999:
        unequal = np.bincount(labels)[[1, 5, 6]] * wanted
        assert not np.allclose(found, unequal / unequal.sum(1, keepdims=True), atol=1e-3), "control: not a prior by counts"


def test_draws_have_the_frequencies_of_the_posterior(few, schedule: NoiseSchedule) -> None:
    images, labels = few
    posterior = ClassPosterior(images, labels, schedule, BANDWIDTH)
    point = images[3:4] * 0.3
    drawn = posterior.draw(point.expand(6000, -1, -1, -1), torch.full((6000,), 500), Randomness(0))
    expected = 6000 * brute_force(images, labels, float(schedule.alphas_cumprod[500]), point)
    counts = torch.bincount(drawn, minlength=7).numpy()
    assert counts[[1, 5, 6]].sum() == 6000, "only retained labels"
    assert chisquare(counts[[1, 5, 6]], expected * 6000 / expected.sum()).pvalue > 1e-4
    assert chisquare(counts[[1, 5, 6]]).pvalue < 1e-4, "control: the draw is not uniform"


def test_noise_hides_the_class_and_its_absence_shows_it(digit_bytes, schedule: NoiseSchedule) -> None:
    """On real digits without the 8s: near uniform at T, right at 0, and never an 8, not even for an 8."""
    images, labels = to_unit(digit_bytes[0]), digit_bytes[1]
    kept = labels != 8
    posterior = ClassPosterior(images[kept][::2], labels[kept][::2], schedule, BANDWIDTH)
    unseen, truth = images[kept][1::2][:200], labels[kept][1::2][:200]
    random = Randomness(0)

    def drawn(time: int, clean: Tensor) -> Tensor:
        timesteps = torch.full((len(clean),), time)
        return posterior.draw(schedule.add_noise(clean, random.normal(*clean.shape), timesteps), timesteps, random)

    blurred = posterior.log_densities(random.normal(50, 1, 8, 8), torch.full((50,), 999)).softmax(1)
    assert (blurred - 1 / 9).abs().max() < 0.03
    assert (drawn(0, unseen) == truth).double().mean() > 0.95
    assert (drawn(999, unseen) == truth).double().mean() < 0.3, "control"
    assert not (drawn(0, images[~kept]) == 8).any()


# The lemma of docs/algorithm.md for two retained Gaussian classes in the plane, where every score is known.
CENTRES = torch.tensor([[2.0, 0.0], [-1.0, 1.5]]).view(2, 1, 1, 2)
CLASSES = torch.tensor([0, 2])
POINTS = torch.tensor([[0.9, 0.2], [-0.4, 0.6], [1.5, -1.0]]).view(3, 1, 1, 2)
TIME = 300


def log_density(point: Tensor, signal: Tensor, label: int) -> Tensor:
    """log q_t(x | c) of class c = N(centre, h²) after the forward process, up to a constant."""
    centre = CENTRES[CLASSES.tolist().index(label)]
    return -((point - signal.sqrt() * centre) ** 2).sum() / (2 * (1 - signal + signal * BANDWIDTH**2))


def noise_of(log_q, point: Tensor, signal: Tensor) -> Tensor:
    """What a perfect denoiser of density q predicts: -√(1-ā) ∇ log q(x_t), by automatic differentiation."""
    with torch.enable_grad():
        point = point.clone().requires_grad_(True)
        (score,) = torch.autograd.grad(log_q(point), point)
    return -(1 - signal).sqrt() * score


@pytest.fixture(scope="module")
def lemma(schedule: NoiseSchedule):
    """For a point: the mean target of both draws, and the perfect predictions for both means of the densities."""
    signal = schedule.alphas_cumprod[TIME]
    posterior = ClassPosterior(CENTRES, CLASSES, schedule, BANDWIDTH)

    def perfect(noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        predictions = {int(c): noise_of(lambda x, c=c: log_density(x, signal, int(c)), noised[:1], signal)[0] for c in labels.unique()}
        return torch.stack([predictions[int(c)] for c in labels])

    def at(point: Tensor, count: int = 20_000) -> dict[str, Tensor]:
        many, times = point.expand(count, -1, -1, -1), torch.full((count,), TIME)
        batch = NoisedBatch(many, many, many, times, torch.full((count,), 1))
        draws = {"uniform": uniform_over(CLASSES), "posterior": from_posterior(posterior)}
        means = {name: relabelled(draw)(batch, perfect, Randomness(0)).mean(0) for name, draw in draws.items()}
        logs = lambda x: torch.stack([log_density(x, signal, int(c)) for c in CLASSES])  # noqa: E731
        means["geometric mean"] = noise_of(lambda x: logs(x).mean(), point, signal)
        means["mixture"] = noise_of(lambda x: torch.logsumexp(logs(x), 0), point, signal)
        return means

    return at


@pytest.mark.parametrize("row", range(len(POINTS)))
def test_the_uniform_draw_teaches_the_geometric_mean_and_the_posterior_the_mixture(lemma, row: int) -> None:
    """20,000 draws: the standard error of a mean is below 0.01 here, the two scores are an order of magnitude apart."""
    found = lemma(POINTS[row])
    assert torch.allclose(found["uniform"], found["geometric mean"], atol=0.04)
    assert torch.allclose(found["posterior"], found["mixture"], atol=0.04)
    assert (found["mixture"] - found["geometric mean"]).norm() > 0.3, "control: the two targets differ"
    assert not torch.allclose(found["uniform"], found["mixture"], atol=0.2)


FORGOTTEN = torch.tensor([0.6, 0.4]).view(1, 1, 1, 2)  # class 1, between the retained two


@pytest.mark.parametrize("row", range(len(POINTS)))
def test_the_null_label_without_the_forgotten_class_is_the_retained_mixture(
    schedule: NoiseSchedule, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: (eps_null - p(f|x) eps_f) / (1 - p(f|x)), where a perfect base's null label is the mixture of all classes."""
    monkeypatch.setattr(mixture, "MAX_FORGOTTEN_POSTERIOR", 0.99)  # this base is perfect, so nothing is amplified
    signal, point = schedule.alphas_cumprod[TIME], POINTS[row : row + 1]
    centres, labels = torch.cat([CENTRES, FORGOTTEN]), torch.tensor([0, 2, 1])

    def log_q(x: Tensor, members: list[int]) -> Tensor:
        spread = 2 * (1 - signal + signal * BANDWIDTH**2)
        return torch.logsumexp(torch.stack([-((x - signal.sqrt() * centres[m]) ** 2).sum() / spread for m in members]), 0)

    members = {0: [0], 2: [1], 1: [2], 10: [0, 1, 2]}

    def perfect(noised: Tensor, timesteps: Tensor, asked: Tensor) -> Tensor:
        return noise_of(lambda x: log_q(x, members[int(asked[0])]), noised, signal)

    batch = NoisedBatch(point, point, point, torch.tensor([TIME]), torch.tensor([1]))
    posterior = ClassPosterior(centres, labels, schedule, BANDWIDTH)
    found = RetainedMixture(posterior, torch.tensor([1]), 10, lambda t: torch.zeros(())).target()(batch, perfect, Randomness(0))
    wanted = noise_of(lambda x: log_q(x, [0, 1]), point, signal)
    assert torch.allclose(found, wanted, atol=1e-4)
    if row != 2:  # a point far from the forgotten class
        assert not torch.allclose(perfect(point, batch.timesteps, torch.tensor([10])), wanted, atol=1e-2), "control: the null label alone"


@pytest.mark.parametrize("repulsion", [0.0, 0.5])
def test_where_only_the_forgotten_class_is_a_retained_label_is_drawn(schedule: NoiseSchedule, repulsion: float) -> None:
    """1 - p(f|x) vanishes on the forgotten class itself, and the null label knows nothing else there."""
    posterior = ClassPosterior(torch.cat([CENTRES, FORGOTTEN]), torch.tensor([0, 2, 1]), schedule, BANDWIDTH)
    here = FORGOTTEN.expand(400, -1, -1, -1)
    batch = NoisedBatch(here, here, here, torch.zeros(400, dtype=torch.int64), torch.ones(400, dtype=torch.int64))
    assert posterior.probabilities(here, batch.timesteps)[0, 1] > 0.99
    target = RetainedMixture(posterior, torch.tensor([1]), 10, lambda t: repulsion).target()
    found = target(batch, lambda x, t, asked: torch.zeros_like(x) + asked.view(-1, 1, 1, 1), Randomness(0))
    drawn = ((found + repulsion) / (1 + repulsion)).round().unique().tolist()  # goal + ρ (goal - 1)
    assert drawn, "control: there is something to look at"
    assert set(drawn) <= {0, 2}, "neither the forgotten label nor the null label"


@pytest.mark.parametrize("repulsion", [0.0, 0.5])
def test_where_only_the_forgotten_class_is_a_null_label_is_held_at_the_image_s_own(schedule: NoiseSchedule, repulsion: float) -> None:
    """And pushed away from the forgotten label, 1, by ρ, as the forget target is: the row that keeps its label is not."""
    posterior = ClassPosterior(torch.cat([CENTRES, FORGOTTEN]), torch.tensor([0, 2, 1]), schedule, BANDWIDTH)
    mixture = RetainedMixture(posterior, torch.tensor([1]), 10, lambda t: torch.full((len(t), 1, 1, 1), repulsion))
    states = torch.cat([FORGOTTEN, CENTRES, FORGOTTEN])  # retained images that look like the forgotten class, and two that do not
    labels, dropped = torch.tensor([0, 0, 2, 2]), torch.tensor([True, True, False, True])
    batch = NoisedBatch(states, states, states, torch.zeros(4, dtype=torch.int64), labels)
    held = mixture.held(batch, dropped, lambda x, t, asked: torch.zeros_like(x) + asked.view(-1, 1, 1, 1))
    wanted = [goal + repulsion * (goal - 1) if moved else goal for goal, moved in zip([0, 10, 2, 2], dropped.tolist(), strict=True)]
    assert held[:, 0, 0, 0].tolist() == pytest.approx(wanted, abs=0.02)
