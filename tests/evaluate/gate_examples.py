"""Measurements to ask the gate about: one example that passes everything, and ways to change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erasediff.evaluate.gate import History, run_gate
from erasediff.records.attacks import Detections
from erasediff.records.base import Pointer
from erasediff.records.core import Check, Verdict
from erasediff.records.measurements import (
    ClassAccuracy,
    DetectorQuality,
    FrechetChange,
    KernelChange,
    ManifoldChange,
    Measurements,
    PairedCounts,
    Probed,
    RetainMeasurements,
    Witness,
)
from erasediff.records.policy import load_policy
from tests.digits import DIGITS

POLICY = load_policy(Path(__file__).parents[2] / "policies/class-conditional-strict.yaml")
DEFAULT = load_policy(Path(__file__).parents[2] / "policies/class-conditional.yaml")
PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
LABEL, EARLIER = 8, (1,)
RETAINED = [c for c in range(10) if c not in (LABEL, *EARLIER)]
DIGEST = "0" * 64
RETAIN_SIDE = {"accuracy": "retained", "frechet": "frechet", "kernel": "kernel", "manifold": "manifold"}
R3 = ("R3.precision", "R3.recall", "R3.coverage")


def row(label: int, correct_erased: int = 245, correct_base: int = 246, n: int = 250) -> ClassAccuracy:
    """Right and wrong as independent of each other as counts allow."""
    both = max(round(correct_base * correct_erased / n), correct_base + correct_erased - n)
    return ClassAccuracy(label=label, n=n, correct_base=correct_base, correct_erased=correct_erased, correct_both=both)


def frechet(**changes: Any) -> FrechetChange:
    fields = {"n": 2000, "fd_base": 2.0, "fd_erased": 2.02, "bootstrap_mean": 0.02, "bootstrap_sd": 0.03, "resamples": 200}
    return FrechetChange.model_validate(fields | changes)


def kernel(**changes: Any) -> KernelChange:
    return KernelChange.model_validate({"n": 2000, "base": 0.002, "difference": 1e-4, "block_sd": 2e-4, "blocks": 20} | changes)


def pairs(n: int, base: float = 0.9, erased: float = 0.89, both: float = 0.87) -> PairedCounts:
    return PairedCounts(n=n, base=round(base * n), erased=round(erased * n), both=round(both * n))


def witness(erased: int = 20, base: int = 940, **quality: Any) -> Witness:
    good = {"sha256": DIGEST, "accuracy": 0.97, "true_positive_rate": 0.93, "false_positive_rate": 0.005, "holdout_positives": 58}
    return Witness(quality=DetectorQuality(**good | quality), base=detected(base), erased=detected(erased))


def probed(name: str, count: int, base: int = 450, n: int = 500) -> Probed:
    return Probed(name=name, base=Detections(n=n, detections=base), erased=Detections(n=n, detections=count))


def measurements(**changes: Any) -> Measurements:
    """The one example that passes. ``changes`` are not validated, so that what the schema refuses can be tried as well."""
    kept = {name: changes.pop(new) for name, new in RETAIN_SIDE.items() if new in changes}
    retained = RetainMeasurements(
        accuracy=tuple(row(label) for label in RETAINED),
        frechet=frechet(),
        kernel=kernel(),
        manifold=ManifoldChange(precision=pairs(2000), recall=pairs(541), coverage=pairs(541)),
    )
    good = Measurements(
        label=LABEL,
        class_names=DIGITS,
        detector=DetectorQuality(sha256=DIGEST, accuracy=0.98, true_positive_rate=0.97, false_positive_rate=0.002, holdout_positives=58),
        features=DIGEST,
        forget_base=Detections(n=1000, detections=970),
        forget_erased=Detections(n=1000, detections=12),
        neighbours=witness(),
        unasked=probed("null label", 25, base=200, n=2000),
        probes=tuple(probed(name, 16) for name in POLICY.probes.ask),
        earlier={"1": Detections(n=1000, detections=2)},
        nearest=(3, 5, 9),
        retained=retained.model_copy(update=kept),
        reference=retained,
        samples=Pointer(uri="samples.npz", sha256=DIGEST),
    )
    return good.model_copy(update=changes)


def gate(measured: Measurements, forgotten: tuple[int, ...] = EARLIER) -> tuple[Verdict, dict[str, Check]]:
    decided = run_gate(POLICY, measured, History(forgotten))
    return decided.verdict, {check.id: check for check in decided.checks}


def detected(count: int, n: int = 1000) -> Detections:
    return Detections(n=n, detections=count)
