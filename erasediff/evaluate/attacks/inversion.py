"""F5 for prompts: a word that no prompt has, trained on a few images of the concept (textual inversion, Gal et al. 2208.01618).

One row is added to the text encoder's table of tokens and is all that is trained: min_v E ‖goal - ε_θ(x_t, t, c(v))‖², x_0 the images'
latents, c(v) a template that the word stands in (their eq. 2). Every other weight stays, so what comes out was in the network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from erasediff.errors import BadInput, NonFinite
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.models.family import FreeLastRow
from erasediff.models.process import NoiseSchedule
from erasediff.progress import progress
from erasediff.records.prompt_policy import PromptInversionPolicy

TEMPLATES = ("{}", "a photo of {}")
"""Gal et al. draw from 27 such sentences; a tokenizer may be short, and what matters is the word."""


@dataclass(frozen=True)
class TrainedToken:
    """A pipeline that knows one word more and shares its networks with the one it came from, and prompts with the word."""

    pipeline: Any
    prompts: tuple[str, ...]


def _with_word(model: StableDiffusion) -> tuple[Any, str]:
    """A pipeline with copies of tokenizer and text encoder, and the word that the tokenizer now knows as one token."""
    from diffusers import StableDiffusionPipeline
    from transformers import AddedToken

    parts = dict(model.pipeline.components)
    for name in ("text_encoder", "tokenizer", "scheduler"):
        parts[name] = copy.deepcopy(parts[name])
    word = next(word for word in (f"<sought-{i}>" for i in range(10**6)) if word not in parts["tokenizer"].get_vocab())
    parts["tokenizer"].add_tokens(AddedToken(word, normalized=False, special=False))
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, word


def _table(pipeline: Any, word: str, start: str) -> Tensor:
    """The text encoder's table of tokens with a last row for the word: the mean of the tokens of ``start``."""
    tokenizer, old = pipeline.tokenizer, pipeline.text_encoder.get_input_embeddings().weight.detach()
    place = tokenizer.convert_tokens_to_ids(word)
    first = old[tokenizer(start, add_special_tokens=False, truncation=True).input_ids].mean(0, keepdim=True)
    # A table may have more rows than the tokenizer has tokens, or end just where the word's would be; what follows is asked by nothing.
    return torch.cat([old[:place], old.new_zeros(max(0, place - len(old)), old.shape[1]), first])


def trained_token(
    model: StableDiffusion, latents: Tensor, start: str, budget: PromptInversionPolicy, seed: int, device: torch.device, what: str
) -> TrainedToken:
    """Train one token on images of the concept; the model is left as it is, to the bit.

    Args:
        model: whose networks are asked. They are used where they are: on ``device``.
        latents: of the images, ``float32 [N,C,h,w]``.
        start: a prompt of the concept, for whoever asks for it knows its name.
        budget: steps, rate, batch.
        seed: of batches and noise.
        device: where the networks are.
        what: what the progress bar says.

    Raises:
        BadInput: the tokenizer cuts the word off, or makes several tokens of it, or none of ``start``.
        NonFinite: the loss is NaN or infinite.
    """
    pipeline, word = _with_word(model)
    prompts = tuple(template.format(word) for template in TEMPLATES)
    _check_words(pipeline.tokenizer, word, prompts, start)
    free = FreeLastRow(_table(pipeline, word, start)).to(device)
    pipeline.text_encoder.set_input_embeddings(free)
    _train(pipeline, free, prompts, model.schedule, latents, budget, seed, device, what)
    table = free.table.clone()
    table[-1] = free.row.detach()
    pipeline.text_encoder.set_input_embeddings(nn.Embedding(len(table), table.shape[1], _weight=table))
    return TrainedToken(pipeline, prompts)


def _check_words(tokenizer: Any, word: str, prompts: tuple[str, ...], start: str) -> None:
    token = tokenizer.convert_tokens_to_ids(word)
    if any(tokenizer(prompt, truncation=True).input_ids.count(token) != 1 for prompt in prompts):
        raise BadInput("the tokenizer does not take a new word as one token: F5 cannot be measured on this model, leave the images out.")
    if not tokenizer(start, add_special_tokens=False).input_ids:
        raise BadInput("the first prompt of the concept has no token to start F5 from: put another first.")


def _train(
    pipeline: Any,
    free: FreeLastRow,
    prompts: tuple[str, ...],
    schedule: NoiseSchedule,
    latents: Tensor,
    budget: PromptInversionPolicy,
    seed: int,
    device: torch.device,
    what: str,
) -> None:
    """Adam on the row alone. The gradient is asked for it alone, so no other tensor has one afterwards."""
    generator, optimizer = torch.Generator().manual_seed(seed), torch.optim.Adam([free.row], lr=budget.learning_rate)
    with progress(what, budget.steps) as done:
        for step in range(budget.steps):
            clean = latents[torch.randint(len(latents), (budget.batch_size,), generator=generator)].to(device)
            timesteps = schedule.draw_timesteps(budget.batch_size, generator).to(device)
            noise = torch.randn(clean.shape, generator=generator).to(device)
            said = [prompts[int(i)] for i in torch.randint(len(prompts), (budget.batch_size,), generator=generator)]
            rows = pipeline.encode_prompt(said, device, num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
            predicted = pipeline.unet(schedule.add_noise(clean, noise, timesteps), timesteps, encoder_hidden_states=rows, return_dict=False)[0]
            loss = nn.functional.mse_loss(predicted, schedule.goal(clean, noise, timesteps))
            if not torch.isfinite(loss):
                raise NonFinite(f"the loss of F5 is not finite at step {step + 1}: lower inversion.learning_rate in the policy.")
            (free.row.grad,) = torch.autograd.grad(loss, [free.row])
            optimizer.step()
            done(step + 1)
