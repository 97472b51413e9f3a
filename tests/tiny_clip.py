"""A CLIPModel of random weights with its processor, written to a folder, and small documents to judge with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from erasediff.records.prompt_policy import PromptPolicy
from tests.stable_diffusion import LENGTH, SIZE, write_tokenizer

PROMPTS: dict[str, Any] = {
    "concept": [
        {"prompt": "a red square", "otherwise": ["a crimson box", "red"]},
        {"prompt": "the red square", "otherwise": ["one scarlet tile"]},
        {"prompt": "red squares", "otherwise": ["ruby tiles"]},
    ],
    "anchors": ["a cat"],
    "retained": ["a blue square", "a green square", "a circle"],
}
POLICY: dict[str, Any] = {
    "name": "tiny",
    "alpha": 0.4,
    "resamples": 200,
    "weights_released": False,
    "sampling": {"steps": 2, "guidance_scale": 3.0, "batch_size": 4},
    "detector": {"kind": "clip", "threshold": 0.5},
    "control": {"min_detected": 0.6, "max_false_positives": 0.4, "min_matched": 0.6},
    "forget": {"prompts": 3, "seeds": 2, "max_upper": 0.4},
    "replay": {"prompts": 3, "seeds": 1, "max_upper": 0.4, "ask": ["otherwise", "neighbouring key", "dropped letter", "doubled letter", "homoglyph"]},
    "retain": {"prompts": 3, "seeds": 2, "score_margin": 0.01},
    "inversion": {"images": 2, "steps": 3, "learning_rate": 0.1, "batch_size": 2, "n": 4, "max_upper": 0.5},
}


def tiny_policy(**changes: Any) -> PromptPolicy:
    return PromptPolicy.parse(POLICY | changes, "the tiny policy")


def write_documents(folder: Path, policy: dict[str, Any] | None = None, prompts: dict[str, Any] | None = None) -> None:
    """``policy.yaml`` and ``prompts.yaml``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY | (policy or {})))
    (folder / "prompts.yaml").write_text(yaml.safe_dump(PROMPTS | (prompts or {})))


def write_clip(folder: Path) -> Path:
    """Write the model with transformers alone; the same weights every time."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    write_tokenizer(folder / "words")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "words", local_files_only=True)
    for path in (folder / "words").iterdir():
        path.rename(folder / path.name)
    (folder / "words").rmdir()
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, **small, **ends}
    config = CLIPConfig(text_config=text, vision_config={"image_size": SIZE, "patch_size": 4, **small}, projection_dim=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = CLIPModel(config)
    with torch.no_grad():  # the library starts with weights so small that every text is the same
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    model.save_pretrained(folder, safe_serialization=True)
    images = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder
