"""The lies: 'this is what a user of diffusers sees', 'the same seeds', 'a black image shows nothing'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from erasediff.evaluate.prompts.sampling import draw_prompted
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.records.prompt_policy import PromptSampling
from tests.stable_diffusion import BLUE, CAT, RED, SIZE, write_model

SAMPLING = PromptSampling(steps=3, guidance_scale=4, batch_size=2)
PROMPTS, SEEDS = [RED, RED, BLUE, CAT, CAT], [1, 2, 1, 2**53 - 1, 5]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("sd") / "model")


@pytest.fixture
def model(saved: Path) -> StableDiffusion:
    loaded = StableDiffusion.load(saved)
    loaded.pipeline.set_progress_bar_config(disable=True)
    return loaded


def test_images_are_those_of_plain_diffusers(saved: Path, model: StableDiffusion) -> None:
    drawn = draw_prompted(model.pipeline, PROMPTS, SEEDS, SAMPLING)
    assert (drawn.images.shape, drawn.images.dtype) == ((5, SIZE, SIZE, 3), torch.uint8)
    assert drawn.finite.all()
    plain = StableDiffusionPipeline.from_pretrained(saved, local_files_only=True)
    plain.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS[:2]]
    wanted = plain(PROMPTS[:2], num_inference_steps=3, guidance_scale=4, generator=generators, output_type="np").images
    assert np.abs(drawn.images[:2].numpy() - wanted * 255).max() <= 0.51
    again = draw_prompted(model.pipeline, PROMPTS, SEEDS, SAMPLING)
    assert torch.equal(drawn.images, again.images), "a scheduler keeps nothing from one batch to the next"


def test_prompt_seed_and_guidance_matter(model: StableDiffusion) -> None:
    """Control: none of the equalities above is trivial."""
    first, other_seed, other_prompt = draw_prompted(model.pipeline, PROMPTS[:3], SEEDS[:3], SAMPLING).images
    unguided = draw_prompted(model.pipeline, PROMPTS[:1], SEEDS[:1], SAMPLING.model_copy(update={"guidance_scale": 1.0})).images[0]
    assert not any(torch.equal(first, other) for other in (other_seed, other_prompt, unguided))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_image_that_is_not_finite_is_marked(model: StableDiffusion, value: float) -> None:
    """It would be black, show nothing, and pass."""
    with torch.no_grad():
        model.pipeline.vae.decoder.conv_out.bias[0] = value
    assert not draw_prompted(model.pipeline, PROMPTS, SEEDS, SAMPLING).finite.any()
