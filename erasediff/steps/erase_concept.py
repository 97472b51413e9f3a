"""Erase prompts from a text-to-image model: read a ``StableDiffusionPipeline`` folder and write a new one.

This is not a step of the pipeline: nothing is measured, registered or promoted here; :mod:`erasediff.steps.judge_concept` measures the result. It
uses the same trainer, whose labels are here the rows of a table of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from erasediff.data.datasets import encode_labels
from erasediff.data.readers.kinds import read
from erasediff.errors import BadInput, IntegrityError
from erasediff.files import publish_folder, sha256_bytes, sha256_file, sha256_folder
from erasediff.models.concepts import RECORD, read_forgotten, same_rows, write_forgotten
from erasediff.models.families.stable_diffusion import NULL_PROMPT, StableDiffusion
from erasediff.models.layout import WEIGHTS
from erasediff.progress import progress
from erasediff.records.base import canonical_json
from erasediff.records.concept import ConceptConfig, ConceptErasure
from erasediff.unlearn.compute import Compute
from erasediff.unlearn.trainer import Erasure, with_numbers
from erasediff.unlearn.trainer import run as run_erasure
from erasediff.unlearn.workbench import ErasureData

"""The null condition of guidance and of label dropout; row 0 of the table."""


@dataclass(frozen=True)
class PromptedImages:
    """Images ``uint8 [N,H,W,3]``, their distinct prompts, and the position of each image's prompt, ``int64 [N]``."""

    images: Tensor
    prompts: list[str]
    labels: Tensor


@dataclass(frozen=True)
class Conditions:
    """All conditions of an erasure: ``embeddings [K,L,D]`` in the order null, forget, retain, earlier (forgotten before), anchor."""

    embeddings: Tensor
    forget: range
    retain: range
    earlier: range
    anchor: int | None

    @property
    def forgotten(self) -> Tensor:
        """The embeddings of all prompts that are forgotten after this erasure: ``[F,L,D]``."""
        return self.embeddings[[*self.earlier, *self.forget]]


def erase_concept(config: ConceptConfig, out: Path) -> ConceptErasure:
    """Erase, from the last checkpoint if there is one, and write the erased folder to ``out``.

    The digest of the config, the model and all images identifies the run; an ``out`` of the same run stays as it is. The checkpoint lies beside
    ``out``. It holds optimiser moments, which depend on the forget images, so it is removed at the end.

    Args:
        config: see :class:`ConceptConfig`.
        out: the new folder; it must not hold anything else.

    Raises:
        BadInput: the config, the model, the images or ``out`` cannot be used; nothing was written.
        NonFinite: training diverged; the last checkpoint is kept.
    """
    out = out.resolve()
    _check_paths(config, out)
    key = _key(config)
    checkpoint = out.parent / f".{out.name}.checkpoint.safetensors"
    if (made := _made_before(out, key)) is not None:
        checkpoint.unlink(missing_ok=True)
        return made
    compute = Compute(config.device, config.erase.precision)
    model = StableDiffusion.load(Path(config.model))
    before = read_forgotten(model.folder)
    forget, retain = (read_images(Path(path), model) for path in (config.forget, config.retain))
    data, conditions = _encode(config, model, forget, retain, before.embeddings if before else None, compute)
    settings = config.erase.model_copy(update={"anchor": conditions.anchor})
    erasure = Erasure(model.asked_by(conditions.embeddings), data, settings, config.seed, compute)
    with progress("erasing", config.erase.steps, config.erase.batch_size) as done:
        result = run_erasure(erasure, checkpoint, key, with_numbers(erasure, done))
    if compute.is_main:
        erasures = (*(before.record.erasures if before else ()), key)

        def fill(folder: Path) -> str:
            model.with_network(result.model).save(folder)
            write_forgotten(folder, conditions.forgotten, erasures)
            return out.name

        publish_folder(out.parent, fill)
        checkpoint.unlink(missing_ok=True)
    compute.wait()
    return ConceptErasure.read(out / RECORD)


def _check_paths(config: ConceptConfig, out: Path) -> None:
    for what in ("model", "forget", "retain"):
        folder = Path(getattr(config, what))
        if not folder.is_dir():
            raise BadInput(f"the {what} folder {folder} does not exist: check '{what}' in the config.")
        if out.is_relative_to(folder.resolve()):
            raise BadInput(f"{out} lies in the {what} folder {folder}, which would change while it is read: choose another --out.")
    if out.exists() and not (out / RECORD).is_file():
        raise BadInput(f"{out} is there already and holds no {RECORD}: choose another --out or remove it.")


def _key(config: ConceptConfig) -> str:
    """Digest of everything that determines a run; folders count by content, not by name."""
    contents = {what: sha256_folder(Path(getattr(config, what))) for what in ("model", "forget", "retain")}
    return sha256_bytes(canonical_json(config.model_dump(mode="json") | contents))


def _made_before(out: Path, key: str) -> ConceptErasure | None:
    if not out.exists():
        return None
    record = ConceptErasure.read(out / RECORD)
    if record.erasures[-1] != key:
        raise BadInput(f"{out} holds the result of another erasure: choose another --out or remove it.")
    if not (out / WEIGHTS).is_file() or sha256_file(out / WEIGHTS) != record.weights_sha256:
        raise IntegrityError(f"the weights in {out} are not the ones that its {RECORD} names: remove it and run again.")
    return record


def read_images(folder: Path, model: StableDiffusion) -> PromptedImages:
    """Images of the model's size with their prompts, from a folder with a ``labels.csv``.

    Raises:
        BadInput: there are no images, or they have another size.
    """
    raw = read("folder", folder)
    if not raw.labels:
        raise BadInput(f"the folder {folder} holds no images: add some, with a row each in its labels.csv.")
    height, width = raw.images.shape[1:3]
    if (height, width) != model.image_shape[1:]:
        wanted = "{1}x{0}".format(*model.image_shape[1:])
        raise BadInput(f"the images in {folder} are {width}x{height} but the model's are {wanted}: resize them.")
    prompts, labels = encode_labels(raw.labels)
    images = torch.from_numpy(raw.images[:])
    return PromptedImages(images.expand(-1, -1, -1, 3), list(prompts), torch.from_numpy(labels))


def _encode(
    config: ConceptConfig, model: StableDiffusion, forget: PromptedImages, retain: PromptedImages, earlier: Tensor | None, compute: Compute
) -> tuple[ErasureData, Conditions]:
    """Encode every prompt and image once, then move the text encoder and the VAE off the device."""
    pipeline = model.pipeline
    pipeline.text_encoder.to(compute.device)
    conditions = _conditions(config, model, forget.prompts, retain.prompts, earlier)
    pipeline.text_encoder.to("cpu")
    _check_earlier(config, conditions)
    pipeline.vae.to(compute.device)
    count = len(forget.images)
    with progress("encoding images", count + len(retain.images)) as done:
        forget_latents = model.autoencoder.encode(forget.images, done)
        retain_latents = model.autoencoder.encode(retain.images, lambda more: done(count + more))
    pipeline.vae.to("cpu")
    data = ErasureData(
        forget=forget_latents,
        forget_labels=forget.labels + conditions.forget.start,
        retain=retain_latents,
        retain_labels=retain.labels + conditions.retain.start,
        null_row=0,
        earlier=tuple(conditions.earlier),
        anchors=() if conditions.anchor is None else (conditions.anchor,),
    )
    return data, conditions


def _conditions(config: ConceptConfig, model: StableDiffusion, forget: list[str], retain: list[str], earlier: Tensor | None) -> Conditions:
    anchor = [] if config.anchor_prompt is None else [config.anchor_prompt]
    rows = model.encode_prompts([NULL_PROMPT, *forget, *retain, *anchor])
    null, forget_rows, retain_rows, anchor_rows = torch.split(rows, [1, len(forget), len(retain), len(anchor)])
    if same_rows(forget_rows, null).any():
        raise BadInput(f"a prompt of {config.forget} means the same as the empty prompt to the text encoder: give it words.")
    if (both := same_rows(forget_rows, retain_rows)).any():
        raise BadInput(f"{config.retain} holds {_counted(both)} to forget: change them in one folder, or leave those images out.")
    if earlier is None:
        earlier = rows[:0]
    if earlier.shape[1:] != rows.shape[1:]:
        raise BadInput(f"what {config.model} has forgotten does not fit its text encoder: fetch the folder again.")
    if (back := same_rows(earlier, retain_rows)).any():
        raise BadInput(f"{config.retain} holds {_counted(back)} that an earlier erasure forgot: leave their images out.")
    earlier = earlier[~same_rows(earlier, forget_rows).any(1)]
    if same_rows(anchor_rows, torch.cat([forget_rows, earlier])).any():
        raise BadInput("anchor_prompt is a forgotten prompt: choose another, or the empty prompt.")
    forget_range = range(1, 1 + len(forget))
    retain_range = range(forget_range.stop, forget_range.stop + len(retain))
    return Conditions(
        embeddings=torch.cat([null, forget_rows, retain_rows, earlier, anchor_rows]),
        forget=forget_range,
        retain=retain_range,
        earlier=range(retain_range.stop, retain_range.stop + len(earlier)),
        anchor=retain_range.stop + len(earlier) if anchor else None,
    )


def _check_earlier(config: ConceptConfig, conditions: Conditions) -> None:
    """Conditions forgotten earlier take every second visited row of a batch, so a batch needs two such rows."""
    if not conditions.earlier:
        return
    if int(config.erase.batch_size * config.erase.visited_share) < 2:
        raise BadInput(
            f"{config.model} has forgotten {len(conditions.earlier)} prompts before, and a batch needs rows to keep them forgotten: "
            "choose erase.batch_size × erase.visited_share of 2 or more."
        )


def _counted(same: Tensor) -> str:
    """How many prompts of the first table are in the second. Prompts may name a person, so none is quoted."""
    return f"{int(same.any(1).sum())} of the {len(same)} prompts"
