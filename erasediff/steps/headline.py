"""The few numbers and model facts of a record that Kubeflow shows. Kubeflow keeps them for ever, so nothing else goes there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from erasediff.attempts.workdir import Workdir
from erasediff.records.base import Record
from erasediff.records.certificate import CertificateRecord
from erasediff.records.core import (
    BaseRecord,
    Check,
    ErasedRecord,
    ExportedRecord,
    ForgetSetRecord,
    ModelRecord,
    Outcome,
    PromotionRecord,
    RegisteredRecord,
    RollOutRecord,
    Verdict,
    VerdictRecord,
)
from erasediff.records.measurements import Measurements
from erasediff.records.purging import PurgeRecord
from erasediff.records.regate import RegateRecord


@dataclass(frozen=True)
class Headline:
    """Numbers by name, and a model's facts: ``uri``, weights digest, version; what came out, in a few words for a log."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)
    said: str = ""

    @property
    def words(self) -> str:
        """What came out: what is said of it, else the name and version of a model, else the numbers."""
        named = " version ".join(self.model[key] for key in ("name", "version") if key in self.model)
        return self.said or named or "; ".join(f"{name} {value:g}" for name, value in self.numbers.items())


def headline_of(record: Record, workdir: Workdir) -> Headline:
    """The headline of a record; most kinds have none."""
    match record:
        case BaseRecord():
            return Headline(model=_model(record.model, workdir) | {"name": record.name, "version": record.version})
        case ForgetSetRecord():
            return Headline({"forget images": record.count, "retain images": record.retain_count})
        case ErasedRecord():
            return Headline({"steps": record.steps, "forward passes": record.forward_passes}, _model(record.model, workdir))
        case Measurements():
            found = {"base": record.forget_base, "erased": record.forget_erased}
            return Headline({f"detections, {name}": one.detections / one.n for name, one in found.items() if one is not None})
        case VerdictRecord() | ExportedRecord() | RegateRecord():
            return Headline(_bounds(record.checks), said=_verdict(record.verdict, record.checks))
        case RegisteredRecord():
            facts = {"weights_sha256": record.weights_sha256, "onnx_sha256": record.onnx_sha256}
            return Headline(model={"uri": record.source, "name": record.name, "version": record.version} | facts)
        case RollOutRecord():
            return Headline(said="no roll-out is configured" if record.backend == "none" else f"{record.outcome} on {record.revision}")
        case PromotionRecord():
            return Headline(said=f"champion {record.name} version {record.version}")
        case CertificateRecord():
            return Headline(said=f"{record.phase} certificate {record.statement[:12]}")
        case PurgeRecord():
            return Headline({"stores left": len(record.unfinished)})
    return Headline()


def _model(model: ModelRecord, workdir: Workdir) -> dict[str, str]:
    return {"uri": str(workdir.models / model.weights.uri), "weights_sha256": model.weights.sha256, "epoch": str(model.epoch)}


def outcome_in_words(outcome: Outcome) -> str:
    """The outcome of a run, in a few words."""
    if outcome.error is not None:
        return f"{outcome.error.step} failed"
    champion = "" if outcome.champion is None else f"champion {outcome.champion.name} version {outcome.champion.version}"
    return ", ".join(filter(None, (outcome.verdict, champion)))


def _verdict(verdict: Verdict, checks: tuple[Check, ...]) -> str:
    """The verdict with the checks that kept it from PASS."""
    others = ", ".join(check.id for check in checks if check.verdict is not Verdict.PASS)
    return f"{verdict} ({others})" if others else f"{verdict}, {len(checks)} checks"


def _bounds(checks: tuple[Check, ...]) -> dict[str, float]:
    return {f"{check.id} {check.bound_kind} bound": check.bound for check in checks if check.bound is not None}
