"""Images of prompts as a user of diffusers draws them, by the pipeline itself; the safety checker is not asked, for it forgets nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erasediff.models.denoiser import to_bytes
from erasediff.records.prompt_policy import PromptSampling


@dataclass(frozen=True)
class Drawn:
    """Images ``uint8 [N,H,W,3]``, and which of them came out finite, bool ``[N]``; the others are black."""

    images: Tensor
    finite: Tensor


@torch.no_grad()
def draw_prompted(pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], sampling: PromptSampling) -> Drawn:
    """Draw one image for each prompt and seed; noise is drawn on the CPU, one generator an image.

    Args:
        pipeline: a ``StableDiffusionPipeline``, on the device to draw on.
        prompts: one an image.
        seeds: likewise.
        sampling: steps, guidance and the batch.
    """
    size = sampling.batch_size
    parts = [_one_batch(pipeline, list(prompts[i : i + size]), seeds[i : i + size], sampling) for i in range(0, len(seeds), size)]
    return Drawn(torch.cat([part.images for part in parts]), torch.cat([part.finite for part in parts]))


def _one_batch(pipeline: Any, prompts: list[str], seeds: Sequence[int], sampling: PromptSampling) -> Drawn:
    """The VAE is asked here, since the pipeline's own post-processing would clamp an infinity away."""
    latents: Tensor = pipeline(
        prompt=prompts,
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="latent",
    ).images
    vae = pipeline.vae
    decoded: Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    raw = decoded.float().cpu()
    return Drawn(to_bytes(raw.nan_to_num(-1, -1, -1)), torch.isfinite(raw).flatten(1).all(1))
