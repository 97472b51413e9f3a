"""The lies: 'the network was frozen', 'the attack was tried', of a token that was trained or was not."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from torch import Tensor

from erasediff.errors import BadInput, NonFinite
from erasediff.evaluate.attacks.inversion import TrainedToken, trained_token
from erasediff.evaluate.prompts.sampling import draw_prompted
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.records.prompt_policy import PromptInversionPolicy, PromptSampling
from tests.stable_diffusion import CAT, GREEN, images_of, write_model

CPU = torch.device("cpu")
BUDGET = PromptInversionPolicy(images=4, steps=60, learning_rate=0.05, batch_size=8, n=1, max_upper=0.5)
IMAGES, _ = images_of([CAT], 4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    return StableDiffusion.load(write_model(tmp_path_factory.mktemp("sd") / "model"))


def trained(model: StableDiffusion, seed: int = 0, **changes: Any) -> TrainedToken:
    budget = BUDGET.model_copy(update=changes)
    return trained_token(model, model.encode(IMAGES), GREEN, budget, seed, CPU, "test")


def fingerprint(model: StableDiffusion) -> str:
    """Every bit of every network, the tokenizer's words, and whether a gradient lies about."""
    digest = hashlib.sha256()
    for name in ("unet", "vae", "text_encoder"):
        for key, value in getattr(model.pipeline, name).state_dict().items():
            digest.update(key.encode() + value.numpy().tobytes())
        for key, parameter in getattr(model.pipeline, name).named_parameters():
            digest.update(f"{key}{parameter.requires_grad}{parameter.grad is None}".encode())
    digest.update(repr(sorted(model.pipeline.tokenizer.get_vocab().items())).encode())
    return digest.hexdigest()


def row(token: TrainedToken) -> Tensor:
    return token.pipeline.text_encoder.get_input_embeddings().weight[-1]


def test_the_model_is_left_as_it_is(model: StableDiffusion) -> None:
    before, latents = fingerprint(model), model.encode(IMAGES)
    kept = latents.clone()
    token = trained_token(model, latents, GREEN, BUDGET, 0, CPU, "test")
    draw_prompted(token.pipeline, token.prompts, [0, 1], PromptSampling(steps=2, guidance_scale=3, batch_size=2))
    assert fingerprint(model) == before
    assert torch.equal(latents, kept)
    with torch.no_grad():
        weight = model.pipeline.text_encoder.get_input_embeddings().weight
        old = float(weight[3, 0])
        weight[3, 0] += 1e-6
        assert fingerprint(model) != before, "control: one bit of one weight is seen"
        weight[3, 0] = old
    assert fingerprint(model) == before


def test_only_the_new_row_differs_and_it_is_a_word_of_its_own(model: StableDiffusion) -> None:
    token = trained(model)
    old, new = (pipeline.text_encoder.get_input_embeddings().weight for pipeline in (model.pipeline, token.pipeline))
    assert torch.equal(new[: len(old)], old)
    assert len(new) == len(old) + 1
    for prompt in token.prompts:
        assert token.pipeline.tokenizer(prompt).input_ids.count(len(old)) == 1
        assert len(old) not in model.pipeline.tokenizer(prompt).input_ids
    others = {key: value for key, value in token.pipeline.text_encoder.state_dict().items() if "token_embedding" not in key}
    assert all(torch.equal(value, model.pipeline.text_encoder.state_dict()[key]) for key, value in others.items())


def loss(model: StableDiffusion, token: TrainedToken, latents: Tensor) -> float:
    """Of noise that the training did not see."""
    generator = torch.Generator().manual_seed(99)
    clean, timesteps = latents.repeat(16, 1, 1, 1), model.schedule.draw_timesteps(64, generator)
    noise = torch.randn(clean.shape, generator=generator)
    with torch.no_grad():
        rows = token.pipeline.encode_prompt([token.prompts[0]] * 64, CPU, 1, False)[0]
        predicted = model.pipeline.unet(model.schedule.add_noise(clean, noise, timesteps), timesteps, encoder_hidden_states=rows).sample
    return float((predicted - noise).square().mean())


def test_training_makes_the_token_explain_the_images_better(model: StableDiffusion) -> None:
    latents = model.encode(IMAGES)
    losses = [loss(model, trained(model, **changes), latents) for changes in ({"learning_rate": 1e-9}, {})]
    assert losses[1] < losses[0] - 1e-3, losses


def test_the_seed_decides(model: StableDiffusion) -> None:
    first = row(trained(model, steps=3))
    assert torch.equal(first, row(trained(model, steps=3)))
    assert not torch.equal(first, row(trained(model, seed=1, steps=3))), "control"


def test_a_loss_that_is_no_number_stops_it(model: StableDiffusion) -> None:
    with pytest.raises(NonFinite, match=r"inversion\.learning_rate"):
        trained_token(model, model.encode(IMAGES) * torch.nan, GREEN, BUDGET, 0, CPU, "test")


def test_a_start_without_a_token_is_refused(model: StableDiffusion) -> None:
    with pytest.raises(BadInput, match="no token to start"):
        trained_token(model, model.encode(IMAGES), " ", BUDGET, 0, CPU, "test")
