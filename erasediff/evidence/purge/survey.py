"""Plan a purge from the attempts' records and the registry, before their rows are deleted."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import requests_in
from erasediff.evidence.purge.grids import shows_class
from erasediff.evidence.purge.store import Kept
from erasediff.evidence.purge.superseded import Build, PurgeDecision, RetentionRules, decide
from erasediff.records.core import BaseRecord, ErasedRecord, ExportedRecord, ModelRecord, PromotionRecord, Verdict
from erasediff.records.purging import PlannedRun, PlannedVersion, PurgePlan
from erasediff.tracking import MODEL_ARTIFACTS, MODEL_RECORD, MODEL_TAG, WEIGHTS_TAG, Tracking

ONNX_ARTIFACTS, REPORT_ARTIFACT, REQUEST_TAG = "onnx", "report.html", "erasediff.request"
REVOKED_TAG = "erasediff.revoked"


@dataclass(frozen=True)
class Subject:
    """The subject of a purge.

    Attributes:
        run: the attempt that was promoted.
        attempts: all attempts at its request, including this one.
        name: the registered model.
        champion: its deployed version.
    """

    run: Attempt
    attempts: tuple[Attempt, ...]
    name: str
    champion: Any

    @property
    def label(self) -> str:
        """The name of the class that was erased."""
        return self.run.plan().request.label

    @property
    def opened(self) -> tuple[Attempt, ...]:
        """Open attempts at other requests."""
        own = {run.name for run in self.attempts}
        return tuple(run for run in self.run.workdir.attempts() if run.name not in own and is_open(run))

    @property
    def successful(self) -> tuple[Attempt, ...]:
        """Attempts at the request that were promoted."""
        return tuple(run for run in self.attempts if run.find(PromotionRecord) is not None)


@dataclass(frozen=True)
class Survey:
    """What is deleted, and what stays with reasons. ``staying`` are digests of models that must not be touched."""

    plan: PurgePlan
    staying: frozenset[str]
    kept: tuple[Kept, ...]


def is_open(attempt: Attempt) -> bool:
    """Whether an attempt is open: started, but neither promoted nor given an outcome."""
    return attempt.find(BaseRecord) is not None and attempt.find(PromotionRecord) is None and not (attempt.folder / "outcome.json").is_file()


def survey(subject: Subject, tracking: Tracking, earlier: PurgePlan) -> Survey:
    """Survey the registry and the attempts.

    Args:
        subject: the subject of the purge.
        tracking: MLflow.
        earlier: the plan of an unfinished run of this purge.

    Raises:
        BadInput: the champion lacks its tags.
        Unreachable: MLflow does not answer.
    """
    decision = _decision(subject, tracking, earlier)
    staying = frozenset(digest for build in (*decision.stay, *decision.open_) for digest in build.digests)
    serving = {digest for build in decision.stay for digest in build.digests}
    revoked = {digest for build in (*decision.gone, *decision.open_) for digest in build.digests}
    numbers = {build.number for build in decision.gone if build.number is not None}
    standing = {build.number for build in (*decision.stay, *decision.open_)}
    runs = {run.id: run for run in earlier.runs} | _runs(subject, tracking, decision)
    plan = PurgePlan(
        revoked=tuple(sorted({*revoked, *earlier.revoked} - serving)),
        runs=tuple(runs[key] for key in sorted(runs)),
        versions=tuple(
            PlannedVersion(name=subject.name, number=number) for number in sorted({*numbers, *(v.number for v in earlier.versions)} - standing)
        ),
    )
    return Survey(plan, staying, decision.kept)


def _decision(subject: Subject, tracking: Tracking, earlier: PurgePlan) -> PurgeDecision:
    champion = tracking.recorded_model(subject.champion)
    everything = subject.run.workdir.attempts()
    attempts = [build for run in everything if _named(run) == subject.name for build in _of_attempt(run)]
    recorded = {build.model.digest(): build.model for build in attempts}
    rules = RetentionRules(
        dataset=subject.run.plan().request.dataset,
        label=subject.label,
        champion=int(subject.champion.version),
        epoch=champion.epoch,
        warm=subject.run.config().purge.warm_builds,
        elsewhere=frozenset(version.tags.get(WEIGHTS_TAG, "") for version in tracking.champions() if version.name != subject.name),
        opened=frozenset(build.model.weights.sha256 for run in subject.opened for build in _of_attempt(run)),
    )
    begun = {version.number for version in earlier.versions}
    versions = [build for version in tracking.versions(subject.name) if (build := _of_version(version, tracking, recorded, begun)) is not None]
    known = {build.model.weights.sha256 for build in versions}
    return decide([*versions, *(build for build in attempts if build.model.weights.sha256 not in known)], rules)


def _named(attempt: Attempt) -> str | None:
    base = attempt.find(BaseRecord)
    return None if base is None else base.name


def _of_version(version: Any, tracking: Tracking, recorded: Mapping[str, ModelRecord], begun: Set[int]) -> Build | None:
    """A registered model; ``None`` for one of another tool, and for one whose record a purge has deleted with the model."""
    digest = version.tags.get(MODEL_TAG)
    if digest is None:
        return None
    model = recorded.get(digest)
    if model is None:
        if (REVOKED_TAG in version.tags or int(version.version) in begun) and not tracking.has_artifact(version.run_id, MODEL_RECORD):
            return None
        model = tracking.recorded_model(version)
    return Build(
        model=model,
        onnx_sha256=version.tags.get("erasediff.onnx_sha256"),
        number=int(version.version),
        run_id=str(version.run_id or ""),
        passed=version.tags.get("erasediff.verdict") == Verdict.PASS,
    )


def _of_attempt(attempt: Attempt) -> list[Build]:
    """The base of an attempt, and its erased model."""
    base, erased, exported = attempt.find(BaseRecord), attempt.find(ErasedRecord), attempt.find(ExportedRecord)
    labels = frozenset(request.label for request in (attempt.plan().request, *requests_in(attempt)))
    found = [] if base is None else [Build(base.model)]
    if erased is not None:
        found.append(Build(erased.model, None if exported is None else exported.onnx.sha256, labels=labels))
    return found


def _runs(subject: Subject, tracking: Tracking, decision: PurgeDecision) -> dict[str, PlannedRun]:
    """MLflow runs to delete, and runs of which only some artifacts are deleted: they hold the deployed model or another request's evidence."""
    plan = subject.run.plan()
    request = plan.request_id
    needed = {build.run_id for build in (*decision.stay, *decision.open_) if build.run_id}
    needed |= {run.plan().mlflow_run_id for run in subject.successful}
    planned: dict[str, PlannedRun] = {}
    for build in decision.gone:
        found = tracking.find_run(build.run_id) if build.run_id else None
        if found is not None and build.run_id not in needed:
            of_another = found.data.tags.get(REQUEST_TAG, request) != request
            planned[build.run_id] = _planned(found, (MODEL_ARTIFACTS, ONNX_ARTIFACTS) if of_another else ())
    elsewhere = {
        run.plan().mlflow_run_id for run in subject.run.workdir.attempts_at(plan.request.digest()) if _named(run) not in (None, subject.name)
    }
    for found in tracking.runs_of_request(request):
        if found.info.run_id not in needed | elsewhere:
            planned[found.info.run_id] = _planned(found, ())
    return planned | _reports(subject, tracking, planned)


def _reports(subject: Subject, tracking: Tracking, planned: dict[str, PlannedRun]) -> dict[str, PlannedRun]:
    """Runs that stay, except for a report with samples of the class, even from when the class was still retained."""
    dataset, found = subject.run.plan().request.dataset, {}
    for run in subject.run.workdir.attempts():
        plan = run.plan()
        present = planned.get(plan.mlflow_run_id)
        if plan.request.dataset == dataset and (present is None or present.parts) and shows_class(run, subject.label):
            entry = tracking.find_run(plan.mlflow_run_id)
            if entry is not None:
                found[plan.mlflow_run_id] = _planned(entry, (*(present.parts if present else ()), REPORT_ARTIFACT))
    return found


def _planned(found: Any, parts: tuple[str, ...]) -> PlannedRun:
    return PlannedRun(id=str(found.info.run_id), artifacts=str(found.info.artifact_uri), parts=parts)
