"""The documents of an erasure from a text-to-image model: its configuration, and the record that the erased folder carries."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from erasediff.records.base import Pointer, Sha256, Strict
from erasediff.records.config import DeviceName, EraseConfig, ParameterGroupName, TargetName
from erasediff.records.yaml import load_yaml


class ConceptEraseConfig(EraseConfig):
    """:class:`EraseConfig` with defaults for a latent text-to-image model, whose learning rate must be much lower."""

    target: TargetName = "relabel"
    parameters: ParameterGroupName = "cross-attention"
    batch_size: int = Field(default=8, ge=1, description="of each loss, over all processes")
    learning_rate: float = Field(default=1e-5, gt=0, description="α of the paper")


class ConceptConfig(Strict):
    """The configuration of an erasure from a ``StableDiffusionPipeline`` folder.

    ``forget`` and ``retain`` are folders of images with a ``labels.csv`` (header ``file,label``) whose labels are prompts.
    All prompts of the forget images are erased together.
    """

    model: str = Field(min_length=1, description="a StableDiffusionPipeline folder, possibly already erased from")
    forget: str = Field(min_length=1, description="folder of images and the prompts to forget")
    retain: str = Field(min_length=1, description="folder of images and the prompts to keep")
    anchor_prompt: str | None = Field(default=None, max_length=2000, description="the prompt of target 'anchor'; the empty one is allowed")
    erase: ConceptEraseConfig = ConceptEraseConfig()
    seed: int = Field(default=0, ge=0, lt=2**31)
    device: DeviceName = "auto"

    @model_validator(mode="after")
    def _prompts_instead_of_labels(self) -> Self:
        if self.erase.anchor is not None:
            raise ValueError("erase.anchor is a class label: name a prompt by anchor_prompt instead")
        if (self.erase.target == "anchor") != (self.anchor_prompt is not None):
            raise ValueError("anchor_prompt goes with erase.target 'anchor': set both or neither")
        if self.erase.proxy is not None:
            raise ValueError("erase.proxy measures classes of pixels: leave it out for text-to-image")
        return self


class ConceptErasure(Strict):
    """What a text-to-image model has forgotten: ``erasure.json`` beside ``model_index.json``.

    A later erasure must keep earlier conditions forgotten, without their images. It needs only their embeddings, so the folder holds those
    (``conditions``, ``float32 [K,L,D]``) and not the prompts, which may name a person. This is pseudonymous, not anonymous: anyone who guesses a
    prompt can encode and compare it. ``erasures`` holds one digest per erasure, oldest first, over its config and all images.
    """

    format: Literal["erasediff-concept/1"] = "erasediff-concept/1"
    erasures: tuple[Sha256, ...] = Field(min_length=1)
    conditions: Pointer
    encoder_sha256: Sha256 = Field(description="of the text encoder and tokenizer that encoded the conditions")
    weights_sha256: Sha256 = Field(description="of the UNet's weights after the erasure")


def load_concept_config(path: Path) -> ConceptConfig:
    """Read an erasure's configuration from YAML; ``anchor_prompt`` may name a person, so errors do not quote the file.

    Raises:
        BadInput: unreadable, or not following the schema.
    """
    return ConceptConfig.parse(load_yaml(path, "the config", quote=False) or {}, f"the config {path}")
