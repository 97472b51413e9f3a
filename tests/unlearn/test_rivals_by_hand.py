"""The lie: 'this is the peer's method'. One step of each on eps(x) = a x + b at a = 1, b = 0, worked out by hand.

For a pixel x with goal g, r = x - g and the gradient of the squared error is 2 r (x, 1). Each test names the changes of the method
that turn it red.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from erasediff.errors import NonFinite
from erasediff.models.noised import NoisedBatch
from erasediff.models.process import NoiseSchedule
from erasediff.records.config import EraseConfig
from erasediff.unlearn.methods import finetune, munba, neggrad, prelude, retrain, sa, salun, sfron, siss
from erasediff.unlearn.trainer import Erasure
from tests.unlearn.toys import Bench, Line, direction, given, pixels, stepped

RETAIN = given(1.0)  # r = 1: (2, 2)
CONFIG = EraseConfig()
ROOT = math.sqrt(2)


def test_finetune_follows_the_retain_gradient() -> None:
    """delta = (2, 2). Red: adding the forget loss."""
    assert direction(finetune.FineTune(CONFIG), Bench(Line(), RETAIN, given(5.0))) == pytest.approx([2, 2])


def test_neggrad_ascends_the_true_forget_loss() -> None:
    """Forget x = -1 with the true noise 1: r = -2, gradient (4, -4). delta = (2, 2) - 0.5 (4, -4) = (0, 4).

    Red: +eta for -eta; the re-targeted batch (there is none here) for the true one; eta not applied.
    """
    bench = Bench(Line(), RETAIN, given(-1.0, 1.0))
    assert direction(neggrad.NegGrad(EraseConfig(eta=0.5)), bench) == pytest.approx([0, 4])


def test_salun_moves_the_salient_half_by_the_relabelled_loss() -> None:
    """Saliency of the true forget batch x = 2, goal 0: (8, 4), so only a is salient. Visited x = 1, target 3: r = -2, gradient (-4, -4).

    delta = (1, 0) * ((-4, -4) + beta (2, 2)) = (-3.998, 0).

    Red: no mask; the lower half; beta on the other loss; the mask over the retain term left out.
    """
    bench = Bench(Line(), RETAIN, given(2.0), visited=given(1.0), target=3.0)
    assert direction(salun.SalUn(CONFIG), bench) == pytest.approx([-4 + 2 * salun.BETA, 0])


def test_salun_sums_gradients_before_it_takes_magnitudes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches: (8, 4) and (-8, 4) sum to (0, 8): now b is salient. Red: the sum of magnitudes, which is (16, 8)."""
    batches = iter([given(2.0), given(-2.0, -4.0)])  # the second: r = 2, (-8, 4)
    bench = Bench(Line(), RETAIN, given(0.0), visited=given(1.0), target=3.0)
    monkeypatch.setattr(bench, "forget_batch", lambda random: next(batches))
    assert direction(salun.SalUn(CONFIG), bench) == pytest.approx([0, -4 + 2 * salun.BETA])


@pytest.mark.parametrize("count", [1, 2, 7, 100])
@pytest.mark.parametrize("kind", ["of all sizes", "large", "neighbours"])
def test_the_upper_half_is_the_upper_half(count: int, kind: str) -> None:
    """Against a sort of all entries, also where they differ in their last bit. Red: the first or the last bit left out; signs kept."""
    signs = 1 - 2 * (torch.arange(count) % 2)
    if kind == "neighbours":
        values = (torch.arange(count, dtype=torch.int32).flip(0) + 0x3F800001).view(torch.float32) * signs
    else:
        values = (10 ** torch.linspace(-18, 18, count) * (1e18 if kind == "large" else 1)).roll(count // 2) * signs
    kept = torch.cat(salun.upper_half([values[: count // 3], values[count // 3 :]]))
    largest = values.abs().argsort(descending=True)[: (count + 1) // 2]
    assert set(kept.nonzero().flatten().tolist()) == set(largest.tolist())


def test_sfron_ascends_where_the_forget_set_matters_and_repairs_from_there() -> None:
    """Fisher: forget x = 2, goal 0: (8, 4) squared (64, 16); retain x = 1, goal -2: r = 3, (6, 6) squared (36, 36). F_f/F_r >= 1: a only.

    The ascent: the loss is 4, its coefficient 4^-0.5 = 1/2, the gradient (4, 2), masked (4, 0). At the base its
    length is 8 / 4^0.5 = 4, so beta = alpha / 4 for the optimiser's rate alpha times ASCENT
    = 0.1: a rises by 0.1 and b stays. There the retain prediction is 1.1, r = 3.1: delta = (6.2, 6.2).

    Red: descent for ascent; no mask, or the ratio turned round; no adaptive coefficient (a rises by 0.2); the retain gradient of
    the old weights (6, 6).
    """
    line = Line()
    assert direction(sfron.SFRon(CONFIG), Bench(line, given(1.0, -2.0), given(2.0)), rate=0.1 / sfron.ASCENT) == pytest.approx([6.2, 6.2])
    assert [float(p) for p in line.parameters] == pytest.approx([1.1, 0.0])


@pytest.mark.parametrize(
    ("forget", "rise"),
    [
        (given(pixels(2.0, 2.0), pixels(0.0, -6.0)), 0.05),  # losses 4 and 64, gradients of a 8 and 32, coefficients 1/2 and 1/8: 4 and 4
        (given(40.0), 0.1),  # loss 1600, gradient 3200, coefficient 1/40: 80, clipped to 8
    ],
    ids=["adaptive", "clipped"],
)
def test_sfron_s_ascent_is_adaptive_and_clipped(forget: NoisedBatch, rise: float) -> None:
    """At the base x = 4, goal -4: (64, 16), loss 64, length of the weighted gradient 64/8 = 8; the retain gradient is (20, 20): a only.

    The rate times ASCENT is 0.1: a rises by 0.1 * g/8 where the weighted gradient is g = 4, and by 0.1 where it is longer than 8.

    Red: one coefficient for the batch (20/sqrt 34 for 4), none (20), one that carries a gradient (2); no clipping.
    """
    line = Line()
    bench, method = Bench(line, given(1.0, -9.0), given(4.0, -4.0)), sfron.SFRon(CONFIG)
    method.prepare(bench)
    bench.forget = forget
    stepped(method, bench, rate=0.1 / sfron.ASCENT)
    assert float(line.parameters[0]) == pytest.approx(1 + rise)
    assert float(line.parameters[1]) == 0.0


def test_sfron_counts_no_weight_that_nothing_depends_on() -> None:
    """At x = 0 a has no gradient: forget goal -4 (0, 8), retain goal -1 (0, 2). b alone is masked, and rises by 0.1, not 0.1 sqrt 2.

    Red: 0 >= 0 for salient.
    """
    line = Line()
    direction(sfron.SFRon(CONFIG), Bench(line, given(0.0, -1.0), given(0.0, -4.0)), rate=0.1 / sfron.ASCENT)
    assert [float(p) for p in line.parameters] == pytest.approx([1.0, 0.1])


def test_sfron_with_nothing_to_ascend_repairs_only() -> None:
    """The forget set is predicted exactly: no Fisher information, no mask. delta = (2, 2) from where it was. Red: 0/0."""
    line = Line()
    assert direction(sfron.SFRon(CONFIG), Bench(line, RETAIN, given(1.0, 1.0)), rate=0.1) == pytest.approx([2, 2])
    assert [float(p) for p in line.parameters] == [1.0, 0.0]


def test_sfron_refuses_an_ascent_that_is_no_number() -> None:
    """A weighted gradient of 3e19, whose square is too large. Red: no check, which would ascend by nothing."""
    line = Line()
    bench, method = Bench(line, given(1.0, -2.0), given(2.0)), sfron.SFRon(CONFIG)
    method.prepare(bench)
    bench.forget = given(1.5e19)
    with pytest.raises(NonFinite, match=r"^β is not finite"):
        method.step(bench, torch.optim.SGD(line.parameters, lr=0.1))
    assert [(float(p), p.grad) for p in line.parameters] == [(1.0, None), (0.0, None)]


def test_sfron_takes_the_ascent_back_when_the_repair_fails() -> None:
    """The loop promises the weights of the last good step. Red: no rollback."""
    line = Line()
    bench, method = Bench(line, given(1.0, -2.0), given(2.0)), sfron.SFRon(CONFIG)
    method.prepare(bench)
    bench.retain = given(float("nan"))
    with pytest.raises(NonFinite, match="retain loss"):
        method.step(bench, torch.optim.SGD(line.parameters, lr=0.1))
    assert [(float(p), p.grad) for p in line.parameters] == [(1.0, None), (0.0, None)]


@pytest.mark.parametrize(
    ("x", "target", "delta"),
    [
        (-1.0, -2.0, (0.0, ROOT)),  # r = 1, g_f = (-2, 2)
        (-1.0, -5.0, (0.0, ROOT)),  # r = 4, g_f = (-8, 8): its length does not matter
        (-1.0, 4.0, (ROOT, 0.0)),  # r = -5, g_f = (10, -10)
        (1.0, -9.0, (1.0, 1.0)),  # r = 10, g_f = (20, 20): share 1/sqrt 2
        (1.0, 4.0, (0.0, 0.0)),  # r = -3, g_f = (-6, -6)
    ],
    ids=["orthogonal", "orthogonal and longer", "orthogonal on the other side", "parallel", "opposed"],
)
def test_munba_gives_both_players_the_same_say(x: float, target: float, delta: tuple[float, float]) -> None:
    """g_r = (2, 2), a unit vector (1, 1)/sqrt 2. cos = 0: share 1, the sum of both unit vectors. |delta| = sqrt 2, and 0 when opposed.

    Red: no division by the lengths; share 1 always (parallel gives sqrt 2); 0/0 or 1/0 in the last two.
    """
    bench = Bench(Line(), RETAIN, given(0.0), visited=given(x), target=target)
    assert direction(munba.MUNBa(CONFIG), bench) == pytest.approx(delta, abs=1e-4)


def test_munba_s_shares_are_the_bargaining_solution() -> None:
    """g_r = (2, 2), visited x = 3, target 1: r = 2, g_f = (12, 4), cos = 32/sqrt(8 * 160) = 2/sqrt 5.

    The solution of G^T G alpha = 1/alpha says that <g_i, delta> = 1/alpha_i, with alpha_i = sqrt((1 - cos)/sin^2)/|g_i|. Red: any other share.
    """
    found = direction(munba.MUNBa(CONFIG), Bench(Line(), RETAIN, given(0.0), visited=given(3.0), target=1.0))
    cos = 2 / math.sqrt(5)
    share = math.sqrt((1 - cos) / (1 - cos**2))
    for gradient in ((2, 2), (12, 4)):
        gain = sum(g * d for g, d in zip(gradient, found, strict=True))
        assert gain == pytest.approx(math.hypot(*gradient) / share, rel=1e-5)


def test_munba_refuses_a_gradient_of_length_nought() -> None:
    """alpha_f = 1/0. Red: no check."""
    line = Line()
    with pytest.raises(NonFinite, match=r"^α is not finite"):
        direction(munba.MUNBa(CONFIG), Bench(line, RETAIN, given(0.0), visited=given(1.0), target=1.0))
    assert [p.grad for p in line.parameters] == [None, None]


def test_siss_weighs_each_state_by_where_it_may_have_come_from() -> None:
    """abar = 1/2, x = sqrt 2, a = -sqrt 2, noise 0: the states are m = 1 (row 0, from x) and m = -1 (row 1, from a); sigma^2 = 1/2.

    Row 0: log q(m|x) - log q(m|a) = (2^2 - 0)/(2/2) = 4. Its weights are u = 2 sigmoid(4) for x and v = 2 sigmoid(-4) for a; in
    row 1 they change places. Goals (m - gamma x)/sigma: row 0: 0 for x, 2 sqrt 2 for a; row 1: -2 sqrt 2 for x, 0 for a. With k = 2 sqrt 2 - 1:
    keep residuals 1 and k, forget residuals -k and -1, so that with the mean over both rows

        g_x = (u - v k, u + v k),   g_a = (u - v k, -(u + v k)),   of equal length: s = 0.1
        delta = (0.9 (u - v k), 1.1 (u + v k))

    Red: no weights; the weights exchanged; +s for -s; lambda other than 1/2; both rows from the same component.
    """
    bench = Bench(Line(), given(pixels(1, 1), clean=pixels(ROOT, ROOT)), given(pixels(-1, -1), clean=pixels(-ROOT, -ROOT)))
    u, v, k = 2 / (1 + math.exp(-4)), 2 / (1 + math.exp(4)), 2 * ROOT - 1
    assert direction(siss.SISS(CONFIG), bench) == pytest.approx([0.9 * (u - v * k), 1.1 * (u + v * k)], rel=1e-5)


def test_siss_crosses_components_with_labels_and_keeps_t() -> None:
    """Eight rows: states alternate, labels change every second row, and a state keeps the timestep it was made at.

    Red: labels by the row's parity, which would tie the forgotten label to one component.
    """
    keep, forget = given(pixels(*8 * [1.0]), label=3), given(pixels(*8 * [-1.0]), label=7)
    bench = Bench(Line(), keep, forget)
    bench.schedule = NoiseSchedule(torch.tensor([0.5, 0.25]))
    pairs = siss.paired(bench, keep, forget.__class__(**vars(forget) | {"timesteps": torch.ones(8, dtype=torch.int64)}))
    assert pairs.noised.flatten().tolist() == [1, -1] * 4
    assert pairs.timesteps.tolist() == [0, 1] * 4
    assert pairs.labels.tolist() == [7, 7, 3, 3] * 2


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_siss_s_goals_are_the_batches_own_where_the_state_is_theirs(make_erasure: Callable[..., Erasure], prediction) -> None:
    """And where a state is nothing like the other image its weight is 0 there and 2 here, without a NaN at any t.

    Red: epsilon for v; densities for their logarithms (0/0 at small t).
    """
    bench = make_erasure(batch_size=64).bench
    bench.schedule = NoiseSchedule(bench.schedule.alphas_cumprod, prediction)
    keep, forget = bench.retain_batch(), bench.forget_batch()
    pairs = siss.paired(bench, keep, forget)
    assert all(torch.isfinite(value.float()).all() for value in vars(pairs).values())
    early = torch.arange(64) % 2 == 0
    late = pairs.timesteps > 20  # before, the goal is a difference of nearly equal numbers
    assert torch.allclose(pairs.keep_goal[early & late], keep.goal[early & late], atol=1e-3)
    assert torch.allclose(pairs.forget_goal[~early & late], forget.goal[~early & late], atol=1e-3)
    sure = pairs.timesteps < 500
    assert torch.allclose(pairs.keep_weight[sure], 2.0 * early[sure], atol=1e-3)
    assert torch.allclose(pairs.keep_weight + pairs.forget_weight, torch.full((64,), 2.0))


@pytest.mark.parametrize("rows", [1, 3])
def test_sa_holds_the_weights_that_mattered(rows: int) -> None:
    """All images are 1 and asked for 0, the surrogate's too: Fisher (2, 2) squared = (4, 4), times rows B, times one pixel D.

    After a has moved to 1.5 both losses have r = 1.5, gradients (3, 3). The penalty adds 10 * B * 4 * 0.5 = 20 B to a and nothing to b.
    delta = (6 + 20 B, 6).

    Red: no penalty, or one towards 0 and not towards the base; no B; the replay or the surrogate left out; a factor 1/2.
    """
    batch, line = given(pixels(*rows * [1.0])), Line()
    bench, method = Bench(line, batch, batch), sa.SelectiveAmnesia(CONFIG)
    assert direction(method, bench) == pytest.approx([4, 4]), "at the base the penalty is 0"
    with torch.no_grad():
        line.parameters[0] += 0.5
    assert stepped(method, bench) == pytest.approx([6 + 20 * rows, 6])


def test_sa_s_surrogate_is_uniform_noise_under_every_forgotten_label(make_erasure: Callable[..., Erasure]) -> None:
    """Red: forget images for the surrogate; labels forgotten earlier left out; pixels in 0..1."""
    batch = sa.surrogate_batch(make_erasure(earlier=(1,), batch_size=400).bench)
    assert set(batch.labels.tolist()) == {4, 1}
    assert -1 <= float(batch.clean.min()) < -0.99
    assert 0.99 < float(batch.clean.max()) <= 1
    assert float(batch.clean.var()) == pytest.approx(1 / 3, rel=0.05)


def weights(model: torch.nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def test_retrain_starts_from_what_never_saw_the_forget_set(make_erasure: Callable[..., Erasure]) -> None:
    """Weights of the architecture's own initialisation: none of the base's random ones, a function of the seed, in the EMA as well.

    Red: preparing nothing; initialising by the global generator; an average that begins at the base.
    """
    base = weights(make_erasure(method="finetune").model)
    first, second, other = (make_erasure(method="retrain", seed=seed) for seed in (3, 3, 4))
    start = weights(first.model)
    assert all(torch.equal(a, b) for a, b in zip(start, weights(second.model), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(start, weights(first.ema.model), strict=True))
    drawn = [not bool((a == a.flatten()[0]).all()) for a in base]  # not the ones and noughts of a normalisation or a bias
    assert sum(drawn) > 20
    for reference in (base, weights(other.model)):
        assert not any(torch.equal(a, b) for a, b, is_drawn in zip(start, reference, drawn, strict=True) if is_drawn)


def test_retrain_follows_the_retain_gradient_and_never_looks_at_the_forget_set(make_erasure: Callable[..., Erasure]) -> None:
    """delta = (2, 2); and forget images that are NaN change nothing. Red: any use of them."""
    method = retrain.Retrain(CONFIG)
    assert stepped(method, Bench(Line(), RETAIN, given(5.0))) == pytest.approx([2, 2])
    clean, spoiled = (make_erasure(method="retrain", target="relabel") for _ in range(2))
    spoiled.bench.data.forget.fill_(float("nan"))
    assert clean.advance() == spoiled.advance()


def test_retrain_makes_a_forgotten_label_another_name_of_the_null_label(make_erasure: Callable[..., Erasure]) -> None:
    """Null rows take the names in turn, from step to step as well; the others keep theirs.

    Red: a forgotten label without rows, whose embedding stays random; the null label left without rows.
    """
    bench = make_erasure(method="retrain", earlier=(1,)).bench
    null, seen = bench.data.null_row, []
    given_labels = torch.tensor([0, null, null, 2, null, null])
    for bench.step in range(3):
        named = retrain.Retrain._names_of_null(bench, given_labels)
        assert torch.equal(named[[0, 3]], given_labels[[0, 3]])
        seen += named[given_labels == null].tolist()
    assert {name: seen.count(name) for name in seen} == {null: 4, 4: 4, 1: 4}


def test_a_prelude_is_short_and_survives_a_loss_scale_that_is_too_high() -> None:
    """A tenth of the steps, rounded up; under a loss scale of 2^127 gradients overflow until it has been halved often enough.

    A loss that is finite with a gradient that is not, (1.5e19)^2 and twice that, is refused. Red: no retry; no check.
    """
    bench = Bench(Line(), RETAIN, given(2.0), steps=11)
    bench.compute.loss_scale.scale = 2.0**127
    found = list(prelude.base_gradients(bench, "forget loss", bench.forget_batch))
    assert [[float(t) for t in gradient.tensors] for gradient in found] == [[8, 4], [8, 4]]
    assert bench.compute.loss_scale.scale < 2.0**127
    bench.forget = given(1.5e19)
    with pytest.raises(NonFinite, match="the gradient of the forget loss is not"):
        list(prelude.base_gradients(bench, "forget loss", bench.forget_batch))
