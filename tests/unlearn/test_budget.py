"""The lies: 'it fits in memory', 'half precision is only faster', 'nothing of the base is in the average', 'it stopped because it was done'."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from erasediff.errors import BadInput
from erasediff.models.process import schedule_of
from erasediff.records.config import EraseConfig, ProxyConfig, SamplerConfig
from erasediff.unlearn.compute import Compute, LossScale
from erasediff.unlearn.methods import erasediff
from erasediff.unlearn.proxy import development_proxy, proxy_seeds
from erasediff.unlearn.trainer import Erasure, run
from tests.small_models import model_of

Maker = Callable[..., Erasure]


def after(erasure: Erasure, steps: int = 3) -> list[Tensor]:
    for _ in range(steps):
        erasure.advance()
    return [parameter.detach() for parameter in erasure.model.parameters()]


def gradients_alive(model: nn.Module) -> float:
    """Bytes of all live float tensors that are neither weights, EMA, teacher, nor moments, as a multiple of the weights'."""
    size = sum(p.numel() for p in model.parameters())
    plain = (t for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter))  # an exporter's traced tensors are subclasses without memory
    found = {t.untyped_storage().data_ptr(): t.numel() for t in plain if t.is_floating_point()}
    return sum(found.values()) / size


def test_no_more_than_two_gradients_are_alive_when_lambda_is_known(make_erasure: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flattened copy of one of them, or δ beside the two, would be a third: the control adds it."""
    seen: list[float] = []
    erasure = make_erasure(target="relabel", accumulation=2)
    erasure.advance()  # moments exist from here on
    before = gradients_alive(erasure.model)
    real = erasediff.gradient_dots

    def watched(retain, forget, copies=0):
        kept = [torch.cat([t.flatten() for t in retain]) for _ in range(copies)]
        seen.append(gradients_alive(erasure.model) - before)
        del kept
        return real(retain, forget)

    monkeypatch.setattr(erasediff, "gradient_dots", watched)
    erasure.advance()
    monkeypatch.setattr(erasediff, "gradient_dots", lambda retain, forget: watched(retain, forget, copies=1))
    erasure.advance()
    assert seen[0] == pytest.approx(2.0, abs=0.1)
    assert seen[1] > 2.8, "control: a flattened copy is seen"


def test_checkpointed_activations_give_the_same_step(make_erasure: Maker) -> None:
    plain, spared = make_erasure(), make_erasure(gradient_checkpointing=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(after(plain), after(spared), strict=True))
    assert any(getattr(m, "gradient_checkpointing", False) for m in spared.model.modules())
    assert not any(getattr(m, "gradient_checkpointing", False) for m in plain.model.modules()), "control"


def test_bf16_computes_in_bf16_and_keeps_weights_and_gradients_in_float32(make_erasure: Maker) -> None:
    kinds = set()
    exact, half = make_erasure(), make_erasure(precision="bf16")
    half.model.conv_out.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    a, b = after(exact), after(half)
    assert kinds == {torch.bfloat16}
    assert {value.dtype for value in b} == {torch.float32}
    assert any(not torch.equal(x, y) for x, y in zip(a, b, strict=True)), "control: it is not the float32 run"
    assert all(torch.allclose(x, y, atol=5e-3) for x, y in zip(a, b, strict=True))


def test_fp16_without_a_gpu_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^erase.precision 'fp16' needs a GPU: use 'fp32' or 'bf16' here\.$"):
        Compute("cpu", "fp16")


def test_a_loss_scale_is_invisible_until_it_overflows(make_erasure: Maker) -> None:
    """fp16's scaler, driven on a CPU in float32: powers of two change no bit; an overflow halves the scale and repeats the step."""
    plain, scaled = make_erasure(), make_erasure()
    scaled.bench.compute.loss_scale = LossScale(2.0**16)
    assert all(torch.equal(a, b) for a, b in zip(after(plain), after(scaled), strict=True))
    overflowing = make_erasure()
    overflowing.bench.compute.loss_scale = scale = LossScale(2.0**131)
    before = [p.detach().clone() for p in overflowing.model.parameters()]
    overflowing.advance()
    assert scale.scale <= 2.0**128, "it was halved until the gradients were finite"
    assert overflowing.step == 1
    moved = [p.detach() for p in overflowing.model.parameters()]
    assert all(torch.isfinite(value).all() for value in moved)
    assert any(not torch.equal(a, b) for a, b in zip(before, moved, strict=True))
    restored = make_erasure(seed=3)
    restored.restore(overflowing.checkpoint())
    assert restored.bench.compute.loss_scale == scale


def test_a_loss_scale_grows_after_calm_steps() -> None:
    scale = LossScale(4.0, growth_interval=2)
    for _ in range(4):
        scale.stepped()
    assert scale.scale == 16.0


def test_raw_weights_leave_where_they_are_asked_for(tmp_path: Path, make_erasure: Maker) -> None:
    erasure = make_erasure(steps=3, weights="raw", ema_on_cpu=True)
    result = run(erasure, tmp_path / "c", "0" * 64, lambda _: None)
    assert result.ema_base_share == 0.0
    assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), erasure.model.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(result.model.parameters(), erasure.ema.model.parameters(), strict=True)), "control"
    assert not result.model._forward_hooks


def test_the_proxy_ends_a_run_early_and_counts_its_steps(tmp_path: Path, make_erasure: Maker) -> None:
    asked: list[int] = []

    def enough(erasure: Erasure) -> bool:
        asked.append(erasure.step)
        return erasure.step == 6

    result = run(make_erasure(steps=20, proxy={"every": 3}), tmp_path / "c", "0" * 64, lambda _: None, enough)
    assert (result.steps, asked) == (6, [3, 6])
    assert {len(curve) for curve in result.curves.values()} == {6}
    whole = run(make_erasure(steps=8, proxy={"every": 3}), tmp_path / "d", "0" * 64, lambda _: None, lambda _: False)
    assert whole.steps == 8, "control: a budget is used up where the proxy is not content"


def test_the_proxy_s_seeds_are_never_the_gate_s() -> None:
    from erasediff.evaluate.seeds import check_seeds, evaluation_key

    gate = {s for check in ("F1", "R1") for s in check_seeds(evaluation_key(0), check, 5000)}
    assert max(gate) < min(proxy_seeds(0, 5000))
    assert len(set(proxy_seeds(0, 5000))) == 5000
    assert proxy_seeds(0, 50) != proxy_seeds(1, 50)


def test_the_proxy_tells_a_model_of_forgotten_images_from_one_of_retained_ones(make_erasure: Maker, program) -> None:
    """Samples are replaced by real images: the proxy must count those of the forgotten class and no others."""
    from erasediff.models.denoiser import to_bytes
    from erasediff.unlearn import proxy

    erasure, data = make_erasure(), program.make_data()
    pipeline = model_of(erasure.weights())
    assert schedule_of(pipeline.scheduler).timesteps == 1000
    enough = development_proxy(ProxyConfig(n=16, max_detections=0), data, pipeline, SamplerConfig(), 0)
    shown = {"forgotten": data.forget, "retained": data.retain[:16]}
    answers = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, images in shown.items():
            patch.setattr(proxy, "sample", lambda *_, images=images: to_bytes(images))
            answers[name] = enough(erasure)
    assert answers == {"forgotten": False, "retained": True}
    assert isinstance(enough(erasure), bool), "and it samples"


def test_a_pool_of_targets_needs_a_teacher_that_does_not_change() -> None:
    with pytest.raises(ValidationError, match="teacher_pool reuses targets"):
        EraseConfig(teacher="current", teacher_pool=4)


def test_a_pool_saves_the_teacher_s_passes(make_erasure: Maker) -> None:
    erasure = make_erasure(target="relabel", truth_share=1.0, teacher_pool=2)
    after(erasure, 4)
    assert (erasure.passes.forward, erasure.passes.backward) == (2 + 4 * 2, 8)
    plain = make_erasure(target="relabel", truth_share=1.0)
    after(plain, 4)
    assert (plain.passes.forward, plain.passes.backward) == (12, 8), "control"
