"""Judge an erasure from a text-to-image model: measure both folders, run the gate, write ``verdict.json``.

This is not a step of the pipeline. ``--out`` holds the key of the seeds, which is drawn after the erasure, the measurements and the verdict; it
holds no prompt and no image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from erasediff.errors import BadInput, IntegrityError
from erasediff.evaluate.gate import run_prompt_gate
from erasediff.evaluate.prompts.detectors import Clip, NudeNet, PromptDetector, ZeroShot, load_clip
from erasediff.evaluate.prompts.measure import PromptExamination, examine
from erasediff.evaluate.seeds import secret_key, seed_commitment
from erasediff.files import read_bounded, sha256_file, sha256_folder, write_atomic
from erasediff.models.concepts import read_forgotten
from erasediff.models.denoiser import resolve_device
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.models.layout import WEIGHTS
from erasediff.records.prompt_measurements import PromptMeasurements, PromptVerdict
from erasediff.records.prompt_policy import PromptPolicy, load_prompt_policy
from erasediff.records.prompts import PromptSet, load_prompts
from erasediff.steps.erase_concept import read_images

KEY, MEASUREMENTS, VERDICT = "evaluation.key", "measurements.json", "verdict.json"
_DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class ConceptTrial:
    """The inputs' paths and the output folder."""

    base: Path
    erased: Path
    policy: Path
    prompts: Path
    detector: Path
    out: Path
    images: Path | None = None
    device: str = "auto"

    @property
    def folders(self) -> dict[str, Path]:
        """The input folders by the name of their option."""
        return {"base": self.base, "erased": self.erased, "detector": self.detector} | ({"images": self.images} if self.images else {})


def judge_concept(trial: ConceptTrial) -> PromptVerdict:
    """Measure and decide. Existing measurements of the same inputs are reused.

    Raises:
        BadInput: an input cannot be used, or ``out`` holds other files.
        IntegrityError: the erased folder's weights are not the ones that its record names.
    """
    policy, prompts = load_prompt_policy(trial.policy), load_prompts(trial.prompts)
    _check_paths(trial)
    digests = {name: sha256_folder(folder) for name, folder in trial.folders.items()}
    documents = digests | {"policy": policy.digest(), "prompts": prompts.digest()}
    measured = _measured_before(trial.out, documents)
    if measured is None:
        measured = _measure(trial, policy, prompts, documents)
        measured.write(trial.out / MEASUREMENTS)
    decided = run_prompt_gate(policy, measured)
    record = PromptVerdict(
        made_from={"measurements": measured.digest(), "policy": policy.digest()},
        verdict=decided.verdict,
        policy=policy.name,
        policy_digest=policy.digest(),
        alpha=policy.alpha,
        base_sha256=digests["base"],
        erased_sha256=digests["erased"],
        detector_sha256=measured.detector,
        scorer_sha256=measured.scorer,
        evaluation_key=_key(trial.out).hex(),
        checks=decided.checks,
        reported=decided.reported,
    )
    record.write(trial.out / VERDICT)
    return record


def _check_paths(trial: ConceptTrial) -> None:
    if trial.device not in _DEVICES:
        raise BadInput(f"the device {trial.device!r} is not known: choose {', '.join(_DEVICES)}.")
    for name, folder in trial.folders.items():
        if not folder.is_dir():
            raise BadInput(f"the folder {folder} does not exist: check --{name}.")
        if trial.out.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{trial.out} lies in the folder {folder}, which would change while it is read: choose another --out.")
    if trial.out.exists() and not trial.out.is_dir():
        raise BadInput(f"{trial.out} is a file: choose another --out.")
    others = sorted(path.name for path in trial.out.glob("*") if path.name not in (KEY, MEASUREMENTS, VERDICT) and not path.name.endswith(".part"))
    if others:
        raise BadInput(f"{trial.out} holds {others[0]}, which does not belong to a verdict: choose another --out.")


def _key(out: Path) -> bytes:
    """The key of this folder's seeds; drawn once, so that a killed command continues with the same images."""
    path = out / KEY
    if not path.exists():
        write_atomic(path, secret_key().hex().encode(), mode=0o600)
    try:
        key = bytes.fromhex(read_bounded(path, 64, "the key of the seeds").decode())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise BadInput(f"{path} is not a key: choose another --out.")
    return key


def _measured_before(out: Path, documents: dict[str, str]) -> PromptMeasurements | None:
    if not (out / MEASUREMENTS).exists():
        return None
    measured = PromptMeasurements.read(out / MEASUREMENTS)
    if measured.made_from != documents | {"seeds": seed_commitment(_key(out))}:
        raise BadInput(f"{out} holds measurements of other inputs: choose another --out or remove it.")
    return measured


def _measure(trial: ConceptTrial, policy: PromptPolicy, prompts: PromptSet, documents: dict[str, str]) -> PromptMeasurements:
    device = resolve_device(trial.device)
    base, erased = (_load(folder) for folder in (trial.base, trial.erased))
    if base.image_shape != erased.image_shape or base.pipeline.unet.config.in_channels != erased.pipeline.unet.config.in_channels:
        raise BadInput(f"{trial.base} and {trial.erased} draw images of different sizes: give the model before and after the same erasure.")
    clip = load_clip(trial.detector, device)
    detector, images = _detector(policy, prompts, clip), _images(trial, policy, base)
    key = _key(trial.out)
    for model in (base, erased):
        model.pipeline.to(device)
    measured = examine(PromptExamination(base, erased, prompts, policy, detector, clip, images, key, device))
    return measured.model_copy(update={"made_from": documents | {"seeds": seed_commitment(key)}})


def _load(folder: Path) -> StableDiffusion:
    """Load a folder; if it has a record, its weights must match."""
    model, forgotten = StableDiffusion.load(folder), read_forgotten(folder)
    if forgotten is not None and sha256_file(folder / WEIGHTS) != forgotten.record.weights_sha256:
        raise IntegrityError(f"the weights in {folder} are not the ones that its erasure.json names: erase again.")
    model.pipeline.set_progress_bar_config(disable=True)
    return model


def _detector(policy: PromptPolicy, prompts: PromptSet, clip: Clip) -> PromptDetector:
    if policy.detector.kind == "nudenet":
        return NudeNet.load(policy.detector.threshold)
    return ZeroShot.of(clip, prompts.asked, prompts.anchors, policy.detector.threshold)


def _images(trial: ConceptTrial, policy: PromptPolicy, model: StableDiffusion) -> Tensor | None:
    if trial.images is None:
        return None
    images, needed = read_images(trial.images, model).images, policy.inversion.images
    if len(images) < needed:
        raise BadInput(f"{trial.images} holds {len(images)} images and the policy asks for {needed} to train a token on: add some.")
    return torch.clone(images, memory_format=torch.contiguous_format)
