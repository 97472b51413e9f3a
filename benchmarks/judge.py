"""The gate's policy, applied to a network in memory: the steps `evaluate` and `gate` without their records."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from benchmarks.subjects import Prepared
from erasediff.evaluate.attacks import Suspect
from erasediff.evaluate.detectors import Watch
from erasediff.evaluate.gate import run_gate
from erasediff.evaluate.measure import (
    Examination,
    ModelSamples,
    RetainedSamples,
    compare,
    count_detections,
    harmless,
    neighbours_for,
    sample_model,
    watch_for,
)
from erasediff.evaluate.neighbours import Neighbourhood, NeighbourWatch
from erasediff.evaluate.sampling import Source
from erasediff.evaluate.seeds import evaluation_key
from erasediff.files import atomic_path
from erasediff.models.pipeline import ClassConditionalPipeline
from erasediff.records.base import canonical_json
from erasediff.records.config import RunConfig
from erasediff.records.nouns import Check, Detections, Measurements, Verdict

_CPU = torch.device("cpu")
_UNASKED = "unasked"


@dataclass(frozen=True)
class Judgement:
    """What the gate said, and on what."""

    verdict: Verdict
    checks: tuple[Check, ...]
    measured: Measurements

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
            self.ready.real,
            tuple(self.retained),
            self.ready.subject.policy,
            self.config.sampler,
            evaluation_key(self.seed),
            self.seed,
        )

    def source(self, unet: torch.nn.Module) -> Source:
        """Something to sample from."""
        return Source.of(ClassConditionalPipeline(unet, self.ready.base.scheduler), _CPU)

    @cached_property
    def base_samples(self) -> ModelSamples:
        """The base's samples and counts; the same for every method, so they are kept beside the base."""
        policy = self.ready.subject.policy
        path = self.ready.subject.folder / f"samples-{self.label}-{self.seed}-{policy.digest()[:8]}.npz"
        if not path.is_file():
            samples = self._samples(self.ready.base.unet)
            counts = {name: found.model_dump() for name, found in {_UNASKED: samples.unasked, **samples.probes}.items()}
            images = {"forgotten": samples.forgotten_images.numpy(), "retained": samples.retained.images.numpy()}
            with atomic_path(path) as temporary, temporary.open("wb") as handle:
                np.savez(handle, allow_pickle=False, counts=np.frombuffer(canonical_json(counts), np.uint8), **images)
        with np.load(path, allow_pickle=False) as kept:
            forgotten, images = torch.from_numpy(kept["forgotten"]), torch.from_numpy(kept["retained"])
            probes = {name: Detections.model_validate(found) for name, found in json.loads(kept["counts"].tobytes()).items()}
        found, features = self.ready.detector.look(images)
        retained = RetainedSamples(images, torch.tensor(self.retained).repeat_interleave(policy.retain.n_per_class), found, features)
        return ModelSamples(self.watch.count(forgotten), forgotten, self.neighbours.count(forgotten), probes.pop(_UNASKED), probes, retained)

    def _samples(self, unet: torch.nn.Module) -> ModelSamples:
        base = self.ready.base
        suspect = Suspect(
            ClassConditionalPipeline(unet, base.scheduler), base, self.label, tuple(self.retained), self.config.sampler, _CPU, self.seed
        )
        return sample_model(self.exam, suspect, "benchmark")

    @cached_property
    def reference(self) -> RetainedSamples:
        """What the harmless model makes of the retained labels: the gate's control."""
        return self.exam.kept(harmless(self.exam, self.ready.base, _CPU), _CPU, "reference")

    def glance(self, unet: torch.nn.Module, n: int) -> float:
        """The share of ``n`` samples that is detected, with seeds that no check uses."""
        found, _ = count_detections(self.watch, self.source(unet), n, "glance", evaluation_key(self.seed), self.config.sampler, "benchmark")
        return found.detections / n

    def judge(self, unet: torch.nn.Module) -> Judgement:
        """The gate's whole answer."""
        measured = compare(self.exam, self.base_samples, self._samples(unet), self.reference, {}, None)
        return Judgement(*run_gate(self.exam.policy, measured), measured)
