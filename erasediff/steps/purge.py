"""Delete the forgotten data from every store and check that they are gone. Nothing is deleted before the promotion."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from erasediff.attempts.attempt import Attempt
from erasediff.errors import BadInput, EraseDiffError, PurgeUnfinished, Unreachable
from erasediff.evidence.purge.artifacts import artifacts_store
from erasediff.evidence.purge.attempts import cache_store, workdir_store
from erasediff.evidence.purge.engine import Purged, preview_stores, purge_stores
from erasediff.evidence.purge.grids import remove_class
from erasediff.evidence.purge.keys import keys_store
from erasediff.evidence.purge.models import models_store
from erasediff.evidence.purge.pipeline import pipeline_store
from erasediff.evidence.purge.places import owned_store, published_store, remote_store
from erasediff.evidence.purge.registry import registry_store
from erasediff.evidence.purge.store import RETRY_LATER, Store
from erasediff.evidence.purge.survey import Subject, Survey, is_open, survey
from erasediff.evidence.served_rules import revoke
from erasediff.files import sha256_bytes
from erasediff.records.base import canonical_json
from erasediff.records.core import BaseRecord, ErasedRecord, ForgetSetRecord, PromotionRecord, RegisteredRecord, Verdict, VerdictRecord
from erasediff.records.purging import PurgeLine, PurgePlan, PurgeProgress, PurgeRecord, Seen, Unfinished
from erasediff.records.requests import Reason
from erasediff.records.settings import RollOutSettings, ServiceSettings
from erasediff.steps.promote import one_at_a_time
from erasediff.steps.record_outcome import report_with
from erasediff.steps.request_lifecycle import begin_purge, finish_purge, record_wait
from erasediff.steps.roll_out import check_rolled_out
from erasediff.steps.version_forget_set import forget_store
from erasediff.tracking import CHAMPION, Tracking

PROGRESS = "purging.json"


def purge(attempt: Attempt) -> PurgeRecord:
    """Purge after this attempt's promotion; an unfinished purge continues where it stopped.

    Raises:
        BadInput: the attempt was not promoted, one of its requests is under a legal hold, or another attempt still needs its forget set; nothing was
            deleted.
        PurgeUnfinished: something may still exist; the record says what and why.
    """
    promotion = _promoted(attempt)
    with one_at_a_time(attempt.workdir):
        requests, present = begin_purge(attempt), attempt.find(PurgeRecord)
        made_from = {"promotion": promotion.digest(), "forget_set": attempt.need(ForgetSetRecord).digest()}
        made_from |= {"requests": sha256_bytes(canonical_json(requests))} if requests else {}
        if present is not None and present.made_from == made_from and present.complete and not _has_deferred(present):
            finish_purge(attempt, present)
            return present
        record = _purge(attempt, promotion).model_copy(update={"made_from": made_from, "requests": requests})
        record.write(attempt.path(PurgeRecord))
    if record.complete:
        finish_purge(attempt, record)
    else:
        record_wait(attempt, Reason.STORE_UNREACHABLE)
        first = record.unfinished[0]
        raise PurgeUnfinished(
            f"the purge is not finished: {len(record.unfinished)} stores are left, the first is '{first.store}' ({first.reason.rstrip('.')}); "
            f"see {attempt.path(PurgeRecord).name}, and run the same command again."
        )
    return record


def preview(attempt: Attempt) -> Purged:
    """List what a purge would find now; nothing is changed.

    Raises:
        BadInput, Unreachable: as :func:`purge` would.
    """
    promotion = _promoted(attempt)
    tracking = Tracking(attempt.workdir.root)
    subject = _subject(attempt, tracking)
    found = survey(subject, tracking, _progress(attempt, promotion).plan)
    return preview_stores(_stores(subject, found, tracking))


def _has_deferred(record: PurgeRecord) -> bool:
    """Whether the purge kept something because another attempt was still open."""
    return any(line.action == "kept" and line.verified.endswith(RETRY_LATER) for line in record.lines)


def _promoted(attempt: Attempt) -> PromotionRecord:
    """The promotion of this attempt, after checking what must precede it.

    Raises:
        BadInput: a record is missing, or a step did not succeed.
    """
    promotion, registered = attempt.need(PromotionRecord), attempt.need(RegisteredRecord)
    verdict = attempt.need(VerdictRecord).verdict
    if verdict is not Verdict.PASS or promotion.made_from.get("registered") != registered.digest():
        raise BadInput(f"run {attempt.name} was not promoted (verdict {verdict}): run `erasediff promote` first; nothing is purged before that.")
    check_rolled_out(attempt, registered)
    return promotion


def _subject(run: Attempt, tracking: Tracking) -> Subject:
    """The subject of the purge.

    Raises:
        BadInput: the champion has not forgotten the label, or an attempt on another model still needs the forget set.
        Unreachable: MLflow does not answer.
    """
    plan, name = run.plan(), run.need(RegisteredRecord).name
    champion = tracking.alias(name, CHAMPION)
    model = None if champion is None else tracking.recorded_model(champion)
    if model is None or plan.request.label not in model.forgotten or model.epoch < run.need(ErasedRecord).model.epoch:
        raise BadInput(
            f"the champion of {name!r} has not forgotten the class at position {plan.position}: "
            "run `erasediff promote` first; nothing is purged before that."
        )
    attempts = tuple(run.workdir.attempts_at(plan.request.digest()))
    for attempt in attempts:
        base = attempt.find(BaseRecord)
        if base is not None and base.name != name and is_open(attempt):
            raise BadInput(f"run {attempt.name} of the same request, on model {base.name!r}, is open and needs the forget set: finish it first.")
    return Subject(run, attempts, name, champion)


def _progress(attempt: Attempt, promotion: PromotionRecord) -> PurgeProgress:
    """The progress that an earlier run of this purge saved."""
    path = attempt.folder / PROGRESS
    fresh = PurgeProgress(promotion=promotion.digest(), plan=PurgePlan())
    found = PurgeProgress.read(path) if path.is_file() else fresh
    return found if found.promotion == fresh.promotion else fresh


def _purge(attempt: Attempt, promotion: PromotionRecord) -> PurgeRecord:
    progress = _progress(attempt, promotion)
    forget_set, epoch = attempt.need(ForgetSetRecord), attempt.need(ErasedRecord).model.epoch
    record = PurgeRecord(
        requests=(), forget_set_version=forget_set.version, revoked=progress.plan.revoked, minimum_epoch=epoch, lines=(), unfinished=()
    )
    try:
        tracking = Tracking(attempt.workdir.root)
        subject = _subject(attempt, tracking)
        found = survey(subject, tracking, progress.plan)
    except Unreachable as error:
        return record.model_copy(update={"unfinished": (Unfinished(store="mlflow registry", reason=str(error)[:400]),)})
    progress = progress.model_copy(update={"plan": found.plan})
    progress.write(attempt.folder / PROGRESS)
    record = record.model_copy(update={"revoked": found.plan.revoked})
    try:
        verified = revoke(attempt.workdir, found.plan.revoked, RollOutSettings.load())
    except EraseDiffError as error:
        reason = f"nothing is deleted until the models that know the class are revoked: {error}"[:400]
        return record.model_copy(update={"unfinished": (Unfinished(store="models", reason=reason),)})
    purged = purge_stores(_stores(subject, found, tracking), progress.seen, partial(_save_progress, attempt, progress))
    return record.model_copy(update={"lines": (*_revocation(found.plan, verified), *purged.lines), "unfinished": purged.unfinished})


def _save_progress(attempt: Attempt, progress: PurgeProgress, seen: tuple[Seen, ...]) -> None:
    progress.model_copy(update={"seen": seen}).write(attempt.folder / PROGRESS)


def _revocation(plan: PurgePlan, verified: str) -> tuple[PurgeLine, ...]:
    now = datetime.now(UTC).replace(microsecond=0)
    return (PurgeLine(store="models", what="digests of weights and graphs", action="revoked", count=len(plan.revoked), verified=verified, at=now),)


def _stores(subject: Subject, found: Survey, tracking: Tracking) -> tuple[Store, ...]:
    """Every store in the order of deletion: published models and images first, database rows after their artifacts, the key last."""
    run, settings, rolling = subject.run, ServiceSettings.load(), RollOutSettings.load()
    plan, config = run.plan(), run.config()
    remote = forget_store(run, plan)
    recorded = frozenset(record.remote for attempt in subject.attempts if (record := attempt.find(ForgetSetRecord)) is not None)
    needed = [str(run.workdir.root), remote.url.rstrip("/").rpartition("/")[0], *(p for p in (config.dataset.path, rolling.publish_to) if p)]
    conceal = partial(_conceal, name=plan.request.label)
    return (
        published_store(subject, found, rolling),
        cache_store(subject),
        workdir_store(subject, conceal),
        models_store(subject, found, tracking),
        remote_store(remote, recorded, settings.dvc_remote_endpoint_url),
        artifacts_store(found.plan, settings),
        registry_store(found.plan, subject.name, config.purge.superseded, tracking, settings),
        pipeline_store(run.workdir, subject.attempts),
        owned_store(config.purge.places, run.workdir.root, needed),
        keys_store(run.workdir.request_key(plan.request)),
    )


def _conceal(attempt: Attempt, name: str) -> None:
    remove_class(attempt, name, attempt.workdir.report, report_with)
