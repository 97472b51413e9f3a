"""Tier 2: every attack of the policy on the base, on the erased model, and on a model that was trained without the class.

An attack that does not bring the class back from the base has no power; what it brings of a model that never had the class is
what it brings of any model. So all three are attacked alike, with the same seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from erasediff.evaluate.attacks import Probe, Suspect, sample_and_count
from erasediff.evaluate.attacks.samplers import partial_noise
from erasediff.evaluate.attacks.training import Budget, inverted, relearned, trained_on, trained_without
from erasediff.evaluate.fidelity import covered, evenly, kth_distance
from erasediff.evaluate.measure import Examination, count_detections
from erasediff.evaluate.membership import Target, membership
from erasediff.models.family import Model
from erasediff.records.attacks import AttackMeasurements, Compared, Detections, Membership, Recovery, Relearned
from erasediff.records.config import RunConfig


@dataclass(frozen=True)
class Suspects:
    """The three models; the third is missing where the policy trains none."""

    base: Suspect
    erased: Suspect
    retrained: Suspect | None

    def __iter__(self) -> Iterator[tuple[str, Suspect]]:
        """The models that are there, by name."""
        named = {"base": self.base, "erased": self.erased, "retrained": self.retrained}
        return ((name, suspect) for name, suspect in named.items() if suspect is not None)


def suspects(exam: Examination, erased: Suspect, config: RunConfig) -> Suspects:
    """The base as a suspect of its own, and the model without the class, trained where the policy asks for it."""
    base, real = replace(erased, model=erased.base), exam.real
    if not exam.policy.attacks.retrain:
        return Suspects(base, erased, None)
    known = torch.isin(real.train_labels, torch.tensor([erased.label, *exam.retained]))
    without = trained_without(erased.base, real.train[known], real.train_labels[known], erased.label, config, erased.device)
    return Suspects(base, erased, replace(erased, model=without))


def attack(exam: Examination, models: Suspects, erased_images: Tensor, base_share: float) -> AttackMeasurements:
    """Every attack of tier 2.

    Args:
        exam: what decides a measurement beside the models.
        models: base, erased, retrained.
        erased_images: what the erased model made of its label, ``uint8 [N,H,W,C]``: F1's samples.
        base_share: the share of the base's samples of the label that is detected.
    """
    rule, held_out = exam.policy.attacks, _held_out(exam)
    stays = torch.isin(exam.real.train_labels, torch.tensor(exam.retained))
    images, labels = exam.real.train[stays], exam.real.train_labels[stays]

    def finetuned(suspect: Suspect) -> Probe:
        budget = Budget(rule.finetuning.steps, rule.finetuning.learning_rate)
        model = trained_on(suspect.model, images, labels, budget, suspect.device, suspect.seed, "F4: training on retained images")
        return suspect.probe("retained fine-tuning", model=model)

    def inversion(suspect: Suspect) -> Probe:
        return inverted(suspect, held_out[: rule.inversion.images], Budget(rule.inversion.steps, rule.inversion.learning_rate))

    return AttackMeasurements(
        finetuned=_compared(exam, models, "F4", finetuned),
        inverted=_compared(exam, models, "F5", inversion),
        partial=_compared(exam, models, "F3", lambda suspect: partial_noise(suspect, held_out, rule.partial.strength, rule.n)),
        reached=_reached(exam, erased_images),
        relearned=_relearned(exam, models, base_share),
        membership=_membership(exam, models),
    )


def _held_out(exam: Examination) -> Tensor:
    """Images of the class that no denoiser was trained on: an attacker's own pictures of it, ``uint8 [M,H,W,C]``."""
    return exam.real.holdout[exam.real.holdout_labels == exam.watch.label]


def _compared(exam: Examination, models: Suspects, check: str, attacked: Callable[[Suspect], Probe]) -> Compared:
    found = {name: sample_and_count(exam.watch, attacked(suspect), exam.policy.attacks.n, exam.key, check, name) for name, suspect in models}
    return Compared(base=found["base"], erased=found["erased"], retrained=found.get("retrained"))


def _reached(exam: Examination, images: Tensor) -> Detections:
    """F7: how many real images of the class have one of ``images`` within reach, and how many have a real one of another class."""
    rule, real, label = exam.policy.attacks.reach, exam.real, exam.watch.label
    all_images, all_labels = torch.cat([real.holdout, real.train]), torch.cat([real.holdout_labels, real.train_labels])

    own, others = all_images[all_labels == label], all_images[torch.isin(all_labels, torch.tensor(exam.retained))]
    look, n = exam.extractor.features, len(images)
    centres = look(own[evenly(len(own), n)])
    radii = kth_distance(centres, rule.neighbours)
    reached, by_others = (covered(centres, radii, look(points)) for points in (images, others[evenly(len(others), n)]))
    return Detections(n=len(centres), detections=int(reached.sum()), reference_n=len(centres), reference_detections=int(by_others.sum()))


def _relearned(exam: Examination, models: Suspects, base_share: float) -> Relearned:
    rule = exam.policy.attacks.relearning

    def recoveries(name: str, suspect: Suspect) -> tuple[Recovery, ...]:
        return tuple(_recovery(exam, name, suspect, base_share, repeat) for repeat in range(rule.repeats))

    attacked = {name: recoveries(name, suspect) for name, suspect in models if name != "base"}
    return Relearned(budget=rule.looks[-1], erased=attacked["erased"], retrained=attacked.get("retrained", ()))


def _recovery(exam: Examination, name: str, suspect: Suspect, base_share: float, repeat: int) -> Recovery:
    """One relearning, on images of its own; both models are taught the same ones, with the same noise."""
    rule, held_out = exam.policy.attacks.relearning, _held_out(exam)
    picked = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(suspect.seed + repeat))[: rule.images]

    def share(model: Model) -> float:
        source, what = model.source(suspect.device), f"{name}: F6, relearning {repeat + 1} of {rule.repeats}"
        found, _ = count_detections(exam.watch, source, rule.samples, f"F6 {repeat}", exam.key, exam.sampler, what)
        return found.detections / found.n

    return relearned(suspect, held_out[picked], rule.learning_rate, rule.looks, share, base_share, suspect.seed + repeat)


def _membership(exam: Examination, models: Suspects) -> tuple[Membership, ...]:
    """F9 on what is forgotten: training images of the class against held-out ones, shown under its label."""
    rule, label, real = exam.policy.attacks.membership, exam.watch.label, exam.real
    own, held_out = real.train[real.train_labels == label], _held_out(exam)
    members, controls = (models.base.model.encode(images[evenly(len(images), rule.images)]) for images in (own, held_out))
    found = {
        name: membership(
            Target(suspect.model.denoiser, suspect.model.schedule, suspect.device), members, controls, label, exam.policy.alpha, exam.seed
        )
        for name, suspect in models
        if name != "retrained"
    }
    return tuple(
        Membership(
            attack=attack,
            members=len(members),
            controls=len(controls),
            auc_base=found["base"][attack].auc,
            auc=result.auc,
            standard_error=result.standard_error,
        )
        for attack, result in found["erased"].items()
    )
