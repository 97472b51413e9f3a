"""A StableDiffusionPipeline of 40,000 random parameters, written to a folder: real classes, and a real tokenizer with a few merges.

Its cross-attention is made strong, so that the prompt matters to the untrained UNet and there is something to forget.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIZE, LATENT, LENGTH = 16, 8, 12
RED, BLUE, GREEN, CAT = "a red square", "a blue square", "a green square", "a cat"
COLOURS = {RED: (220, 20, 20), BLUE: (20, 20, 220), GREEN: (20, 220, 20), CAT: (230, 230, 30)}
MERGES = ["r e", "re d</w>", "s q", "b l", "u e</w>", "bl ue</w>", "c a", "ca t</w>", "g re", "gre e", "gree n</w>"]


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE of CLIP's kind: 256 bytes, each also as the end of a word, a few merges, two special tokens."""
    folder.mkdir(parents=True)
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [chr(256 + i) for i in range(256 - len(printable))]
    alphabet = [chr(code) for code in printable] + others
    tokens = [*alphabet, *(f"{c}</w>" for c in alphabet), *(m.replace(" ", "") for m in MERGES), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_model(folder: Path, prediction_type: str = "epsilon", scheduler: str = "PNDMScheduler") -> Path:
    """Write the pipeline with diffusers alone; the same weights every time."""
    import diffusers
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging as transformers_logging

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    write_tokenizer(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        text = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        unet = UNet2DConditionModel(
            sample_size=LATENT,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=2,
            cross_attention_dim=16,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            sample_size=SIZE,
            scaling_factor=0.5,
        )
        text_encoder = CLIPTextModel(text)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if ".attn2.to_" in name and name.endswith("weight"):
                parameter.mul_(4)
    noise = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "prediction_type": prediction_type}
    extra = {"PNDMScheduler": {"skip_prk_steps": True}, "DDIMScheduler": {"clip_sample": False}}[scheduler]
    pipeline = StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=getattr(diffusers, scheduler)(**noise, **extra),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def images_of(prompts: Iterable[str], each: int, seed: int = 0) -> tuple[Tensor, list[str]]:
    """``uint8 [N,SIZE,SIZE,3]`` of noisy colours, ``each`` for a prompt, and the prompts."""
    rng = np.random.default_rng(seed)
    labels = [prompt for prompt in prompts for _ in range(each)]
    pixels = [np.clip(np.array(COLOURS[prompt]) + rng.normal(0, 15, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8) for prompt in labels]
    return torch.from_numpy(np.stack(pixels)), labels


def write_images(folder: Path, prompts: Iterable[str], each: int = 4, seed: int = 0) -> Path:
    """The same as files with a ``labels.csv``."""
    folder.mkdir(parents=True)
    images, labels = images_of(prompts, each, seed)
    for index, image in enumerate(images.numpy()):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    rows = [f'{index:03}.png,"{label}"' for index, label in enumerate(labels)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    return folder


def state(folder: Path, name: str = "unet/diffusion_pytorch_model.safetensors") -> dict[str, Tensor]:
    """The tensors of one file of a folder."""
    from safetensors.torch import load_file

    return load_file(folder / name)
