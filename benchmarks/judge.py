"""The gate's policy, applied to a network in memory: the steps `evaluate` and `gate` without their records."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from benchmarks.subjects import Prepared, drawn_digest
from erasediff.evaluate.attacks import Suspect
from erasediff.evaluate.battery import attack, suspects
from erasediff.evaluate.detectors import Watch
from erasediff.evaluate.features.opening import open_extractor
from erasediff.evaluate.gate import overall, run_gate
from erasediff.evaluate.gate.controls import check_power
from erasediff.evaluate.gate.forget import check_detections
from erasediff.evaluate.gate.retain import check_fidelity, check_retained
from erasediff.evaluate.measure import (
    Examination,
    ModelSamples,
    RetainedSamples,
    compare,
    count_detections,
    neighbours_for,
    retain_measurements,
    sample_further,
    sample_indirectly,
    sample_model,
    train_reference,
    watch_for,
)
from erasediff.evaluate.neighbours import Neighbourhood, NeighbourWatch
from erasediff.evaluate.sampling import Source
from erasediff.evaluate.seeds import evaluation_key
from erasediff.files import atomic_path, write_atomic
from erasediff.records.attacks import Detections
from erasediff.records.base import canonical_json
from erasediff.records.config import RunConfig
from erasediff.records.core import Check, Verdict
from erasediff.records.measurements import Measurements

_CPU = torch.device("cpu")
_UNASKED = "unasked"


@dataclass(frozen=True)
class Judgement:
    """What the gate said, and on what."""

    verdict: Verdict
    checks: tuple[Check, ...]
    measured: Measurements
    reported: tuple[Check, ...] = ()

    def bound(self, check: str) -> float | None:
        """The bound of a check."""
        return next(c.bound for c in self.checks if c.id == check)


@dataclass(frozen=True)
class Judge:
    """The gate for one label and one run seed."""

    ready: Prepared
    label: int
    seed: int

    @property
    def config(self) -> RunConfig:
        """The subject's configuration at this seed, sampling in this process alone."""
        config = self.ready.subject.config
        return config.model_copy(update={"seed": self.seed, "sampler": config.sampler.model_copy(update={"workers": 1})})

    @cached_property
    def retained(self) -> list[int]:
        """The labels that stay."""
        return [c for c in range(self.ready.real.classes) if c != self.label]

    @cached_property
    def watch(self) -> Watch:
        """The detector set to the label."""
        return watch_for(self.ready.detector, self.ready.real, self.label, self.retained, self.ready.subject.policy)

    @cached_property
    def neighbours(self) -> NeighbourWatch:
        """The second detector set to the label."""
        return neighbours_for(
            Neighbourhood(self.ready.real.holdout, self.ready.real.holdout_labels),
            self.ready.real,
            self.label,
            self.retained,
            self.ready.subject.policy,
        )

    @cached_property
    def exam(self) -> Examination:
        """What is asked, and by whom."""
        return Examination(
            self.watch,
            self.neighbours,
            open_extractor(self.config.features, self.ready.detector, self.ready.real.holdout[:2]),
            self.ready.real,
            tuple(self.retained),
            self.ready.subject.policy,
            self.config.sampler,
            evaluation_key(self.seed),
            self.seed,
        )

    def source(self, unet: torch.nn.Module) -> Source:
        """Something to sample from."""
        return self.ready.base.with_network(unet).source(_CPU)

    @cached_property
    def base_samples(self) -> ModelSamples:
        """The base's samples and counts; the same for every model that is judged, so they are kept beside the base."""
        asked_for = drawn_digest(self.exam.policy.model_copy(update={"tier": 1}))[:8]
        path = self.ready.subject.folder / f"asked-{self.label}-{self.seed}-{asked_for}.json"
        if not path.is_file():
            by_null, probes = sample_indirectly(self.exam, self.suspect(self.ready.base.network), "base")
            write_atomic(path, canonical_json({name: found.model_dump() for name, found in {_UNASKED: by_null, **probes}.items()}))
        asked = {name: Detections.model_validate(found) for name, found in json.loads(path.read_text()).items()}
        images, kept = self._base_in_short
        return ModelSamples(self.watch.count(images), images, self.neighbours.count(images), asked.pop(_UNASKED), asked, kept)

    def suspect(self, unet: torch.nn.Module) -> Suspect:
        """A network as the attacks know it."""
        base, sampler = self.ready.base, self.config.sampler
        return Suspect(base.with_network(unet), base, self.label, tuple(self.retained), sampler, _CPU, self.seed)

    @cached_property
    def reference(self) -> RetainedSamples:
        """What the reference model makes of the retained labels: the gate's control."""
        return self.exam.kept(train_reference(self.exam, self.ready.base, _CPU), _CPU, "reference")

    @property
    def base_rate(self) -> float:
        """The share of the base's samples of the label that is detected."""
        found = self.watch.count(self._base_in_short[0])
        return found.detections / found.n

    def glance(self, unet: torch.nn.Module, n: int) -> float:
        """The share of ``n`` samples that is detected, with seeds that no check uses."""
        found, _ = count_detections(self.watch, self.source(unet), n, "glance", evaluation_key(self.seed), self.config.sampler, "benchmark")
        return found.detections / n

    @cached_property
    def _base_in_short(self) -> tuple[Tensor, RetainedSamples]:
        """The base's samples that :meth:`compare` needs, kept beside the base: of the label, and of the retained labels."""
        retain, n = self.exam.policy.retain, self.exam.policy.forget.n
        path = self.ready.subject.folder / f"short-{self.label}-{self.seed}-{n}-{retain.n_per_class}.npz"
        if not path.is_file():
            forgotten, kept = self._in_short(self.ready.base.network)
            with atomic_path(path) as temporary, temporary.open("wb") as handle:
                np.savez(handle, allow_pickle=False, forgotten=forgotten.numpy(), retained=kept.images.numpy())
        with np.load(path, allow_pickle=False) as there:
            forgotten, images = torch.from_numpy(there["forgotten"]), torch.from_numpy(there["retained"])
        return forgotten, self.exam.reader.read([images], torch.tensor(self.retained).repeat_interleave(retain.n_per_class))

    def _in_short(self, unet: torch.nn.Module) -> tuple[Tensor, RetainedSamples]:
        exam, model = self.exam, self.ready.base.with_network(unet)
        _, images = count_detections(self.watch, self.source(unet), exam.policy.forget.n, "F1", exam.key, exam.sampler, "benchmark")
        return images, exam.kept(model, _CPU, "benchmark")

    def compare(self, unet: torch.nn.Module) -> Judgement:
        """What methods are compared by: C0, F1, R1 and R2 of the policy, without the probes, which take minutes each time."""
        (base_images, base), (images, kept) = self._base_in_short, self._in_short(unet)
        real, policy = self.ready.real, self.exam.policy
        measured = Measurements(
            label=self.label,
            class_names=real.class_names,
            detector=self.watch.quality,
            features=self.exam.extractor.digest,
            forget_base=self.watch.count(base_images),
            forget_erased=self.watch.count(images),
            neighbours=None,
            unasked=None,
            probes=(),
            nearest=self.ready.detector.nearest(real.holdout, real.holdout_labels, self.label, self.retained, policy.retain.nearest),
            retained=retain_measurements(self.exam, base, kept),
            reference=None,
            samples=None,
        )
        checks = (
            *check_power(policy, measured),
            check_detections(
                "F1", f"Class {self.ready.real.class_names[self.label]} is forgotten", measured.forget_erased, policy.forget, policy.alpha
            ),
            *check_retained(policy.without_further_samples(), measured, measured.retained, ()),
            check_fidelity(policy, measured.retained),
        )
        return Judgement(overall(checks), checks, measured)

    def judge(self, unet: torch.nn.Module) -> Judgement:
        """The gate's whole answer, on the policy's tier."""
        suspect = self.suspect(unet)
        samples = sample_model(self.exam, suspect, "benchmark")
        measured = compare(self.exam, self.base_samples, samples, self.reference, {}, None)
        further = sample_further(self.exam, self.source(self.ready.base.network), self.source(unet), measured.retained.accuracy)
        measured = measured.model_copy(update={"retained": measured.retained.model_copy(update={"further": further})})
        if self.exam.policy.tier == 2:
            models = suspects(self.exam, suspect, self.config)
            measured = measured.model_copy(update={"attacks": attack(self.exam, models, samples.forgotten_images, self.base_rate)})
        decided = run_gate(self.exam.policy, measured)
        return Judgement(decided.verdict, decided.checks, measured, decided.reported)
