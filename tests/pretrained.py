"""Folders as ``save_pretrained`` writes them: real classes of transformers with a few thousand random weights, and real settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SIDE = 28
VIT = {"do_resize": True, "size": {"height": SIDE, "width": SIDE}, "resample": 2, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2]}
CLIP = {
    "do_resize": True,
    "size": {"shortest_edge": 32},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_convert_rgb": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "CLIPImageProcessor",
}
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 7}


def build(kind: str, seed: int = 0, **changes: Any) -> Any:
    """``dinov2``, ``clip`` (the tower), ``clip-both``, ``vit`` and ``resnet`` (classifiers of 12), or ``mae``, which draws masks."""
    import transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "dinov2":
            small = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
            return transformers.Dinov2Model(transformers.Dinov2Config(**small | changes)).eval()
        if kind == "clip":
            return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL | changes)).eval()
        if kind == "clip-both":
            text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
            return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=SMALL | changes, projection_dim=8)).eval()
        if kind == "vit":
            return transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=12, **SMALL | changes)).eval()
        if kind == "resnet":
            sides = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 12}
            return transformers.ResNetForImageClassification(transformers.ResNetConfig(**sides | changes)).eval()
        mae = SMALL | {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
        return transformers.ViTMAEModel(transformers.ViTMAEConfig(**mae | changes)).eval()


def write(folder: Path, kind: str, settings: dict[str, Any] = VIT, **changes: Any) -> Path:
    """Write a model and its preprocessing."""
    build(kind, **changes).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
