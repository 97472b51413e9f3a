"""The lies: 'only the chosen weights were trained', 'the run was resumed', 'the prompt is forgotten', for a latent model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from erasediff.errors import BadInput
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.records.config import EraseConfig
from erasediff.unlearn.checkpoint import load_checkpoint
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.methods import StepReport
from erasediff.unlearn.trainer import Erasure, ErasureResult, run
from erasediff.unlearn.workbench import ErasureData
from tests.counting import Calls
from tests.small_models import model_of
from tests.stable_diffusion import BLUE, CAT, GREEN, RED, images_of, write_model

KEY = "0" * 64
ROWS = {"": 0, RED: 1, CAT: 2, BLUE: 3, GREEN: 4}
Maker = Callable[..., Erasure]


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    scheduler = {"epsilon": "PNDMScheduler", "v_prediction": "DDIMScheduler"}[request.param]
    return StableDiffusion.load(write_model(tmp_path_factory.mktemp("sd") / "model", request.param, scheduler))


@pytest.fixture(scope="module")
def make_erasure(model: StableDiffusion) -> Maker:
    """Red squares and cats are forgotten, blue and green squares are kept: `make_erasure(seed=0, earlier=(), forget=[...], **settings)`."""
    embeddings = model.encode_prompts(list(ROWS))

    def encoded(prompts: list[str]) -> tuple[Tensor, Tensor]:
        images, labels = images_of(prompts, 4)
        return model.encode(images), torch.tensor([ROWS[label] for label in labels])

    def make(seed: int = 0, earlier: tuple[int, ...] = (), forget: tuple[str, ...] = (RED, CAT), **settings: object) -> Erasure:
        defaults = {"steps": 40, "batch_size": 8, "checkpoint_every": 4, "target": "anchor", "anchor": ROWS[GREEN], "learning_rate": 1e-2}
        config = EraseConfig.model_validate(defaults | settings)
        data = ErasureData(*encoded(list(forget)), *encoded([BLUE, GREEN]), null_row=0, earlier=earlier)
        return Erasure(model.asked_by(embeddings), data, config, seed, Compute("cpu"))

    return make


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def everything(result: ErasureResult) -> dict[str, Tensor]:
    return {**result.model.state_dict(), **result.curves}


CHOSEN: dict[str, Callable[[str], bool]] = {
    "full": lambda name: True,
    "attention": lambda name: ".attentions." in name and (".attn" in name or "transformer_blocks" not in name),
    "cross-attention": lambda name: ".attn2." in name,
    "no-cross-attention": lambda name: ".attn2." not in name,
}


@pytest.mark.parametrize("group", CHOSEN)
def test_exactly_the_chosen_parameters_change(model: StableDiffusion, make_erasure: Maker, group: str) -> None:
    before = {name: value.clone() for name, value in model.pipeline.unet.state_dict().items()}
    erasure = make_erasure(parameters=group, weights="raw")
    erasure.advance()
    erasure.advance()
    after = erasure.result().model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    chosen = {name for name in before if CHOSEN[group](name)}
    assert chosen, "control: there are such parameters"
    assert group == "full" or chosen < set(before), "control: and others"
    assert changed == chosen
    assert {name for name, value in erasure.model.named_parameters() if value.requires_grad} == chosen
    assert same(model.pipeline.unet.state_dict(), before), "the base itself is untouched"
    averaged = erasure.ema.model.state_dict()
    assert all(torch.equal(averaged[name], before[name]) for name in before.keys() - chosen)


def test_no_step_encodes_anything(model: StableDiffusion, make_erasure: Maker) -> None:
    erasure = make_erasure()
    with Calls().counted() as calls:
        for _ in range(3):
            erasure.advance()
    assert (calls.text, calls.image) == (0, 0)
    with Calls().counted() as control:
        model.encode_prompts([RED])
        model.encode(images_of([RED], 1)[0])
    assert (control.text, control.image) == (1, 1), "control: the hooks see a call"


def mean(reports: list[StepReport], name: str) -> float:
    return sum(getattr(report, name) for report in reports) / len(reports)


def test_the_losses_go_where_they_should_and_every_prompt_comes_to_mean_the_anchor(make_erasure: Maker) -> None:
    """Several concepts at once. The base is untrained, so its retain loss pulls hard: η is large for the forget loss to be heard."""
    settings = {"parameters": "cross-attention", "weights": "raw", "visited_share": 0.0, "truth_share": 1.0, "eta": 5.0}
    erasure = make_erasure(**settings)
    bench = erasure.bench
    states = bench.noised(bench.data.forget, bench.data.forget_labels, bench.random_of("test"))

    def distance(prompt: str) -> float:
        """From what the base predicts for the anchor to what the model predicts for a prompt."""
        ask = states.noised, states.timesteps
        with torch.no_grad():
            anchor = bench.base(*ask, torch.full_like(states.labels, ROWS[GREEN]))
            return float((bench.denoiser(*ask, torch.full_like(states.labels, ROWS[prompt])) - anchor).square().mean())

    before = {prompt: distance(prompt) for prompt in (RED, CAT)}
    reports = [erasure.advance() for _ in range(30)]
    assert mean(reports[-8:], "forget_loss") < 0.5 * mean(reports[:2], "forget_loss")
    assert mean(reports[-8:], "retain_loss") < 1.1 * mean(reports[:2], "retain_loss")
    for prompt in (RED, CAT):
        assert distance(prompt) < 0.5 * before[prompt]


def test_control_without_learning_the_forget_loss_stays(make_erasure: Maker) -> None:
    still = make_erasure(parameters="cross-attention", visited_share=0.0, learning_rate=1e-9)
    reports = [still.advance() for _ in range(10)]
    assert mean(reports[-8:], "forget_loss") > 0.7 * mean(reports[:2], "forget_loss")


def test_a_resumed_run_is_the_unbroken_one(tmp_path: Path, make_erasure: Maker) -> None:
    class Killed(Exception):
        pass

    def kill(step: int) -> None:
        if step == 5:
            raise Killed

    settings = {"steps": 7, "parameters": "cross-attention"}
    with pytest.raises(Killed):
        run(make_erasure(**settings), tmp_path / "c", KEY, kill)
    assert load_checkpoint(tmp_path / "c", KEY).step == 4
    steps: list[int] = []
    resumed = everything(run(make_erasure(**settings), tmp_path / "c", KEY, steps.append))
    assert steps == [5, 6, 7]
    unbroken = everything(run(make_erasure(**settings), tmp_path / "d", KEY, lambda _: None))
    assert same(resumed, unbroken)
    other = everything(run(make_erasure(seed=1, **settings), tmp_path / "e", KEY, lambda _: None))
    assert not same(other, unbroken), "control: the comparison sees another seed"


def test_an_earlier_prompt_stays_a_forget_condition_without_images(make_erasure: Maker) -> None:
    erasure = make_erasure(forget=(RED,), earlier=(ROWS[CAT],))
    batch = erasure.bench.visited_batch()
    assert set(batch.labels.tolist()) == {ROWS[RED], ROWS[CAT]}
    own = erasure.bench.data.retain
    for clean in batch.clean[batch.labels == ROWS[CAT]]:
        assert any(torch.equal(clean, latent) for latent in own), "its states are noised retain images"
    assert set(make_erasure(forget=(RED,)).bench.visited_batch().labels.tolist()) == {ROWS[RED]}, "control"


def test_gradient_checkpointing_and_accumulation_change_no_result(make_erasure: Maker) -> None:
    plain = make_erasure(weights="raw", parameters="cross-attention")
    spared = make_erasure(weights="raw", parameters="cross-attention", gradient_checkpointing=True, accumulation=4)
    for erasure in (plain, spared):
        erasure.advance()
        erasure.advance()
    ours, theirs = plain.result().model.state_dict(), spared.result().model.state_dict()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=2e-4)


def test_labels_alone_have_no_cross_attention(tiny_unet) -> None:
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([4, 4, 5, 5])
    data = ErasureData(images[:2], labels[:2], images[2:], labels[2:], 10)
    config = EraseConfig(parameters="cross-attention", target="relabel", batch_size=4)
    with pytest.raises(BadInput, match="no cross-attention parameters"):
        Erasure(model_of(tiny_unet()), data, config, 0, Compute("cpu"))
