"""Make a certificate from records: a pure function that refuses inconsistent records."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime

from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence.coverage import coverage
from erasediff.evidence.limitations import limitations
from erasediff.records.base import Record, Sha256
from erasediff.records.certificate import (
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    CertifiedPurge,
    CommitmentRecord,
    ForgetSet,
    Judged,
    Lineage,
    Making,
    Predicate,
    Scope,
    Serving,
    Statement,
    StatementSubject,
)
from erasediff.records.core import (
    BaseRecord,
    ErasedRecord,
    ExportedRecord,
    ForgetSetRecord,
    PlanRecord,
    PromotionRecord,
    RegisteredRecord,
    RollOutRecord,
    Verdict,
    VerdictRecord,
)
from erasediff.records.purging import PurgeRecord
from erasediff.records.requests import RequestFacts


@dataclass(frozen=True)
class Facts:
    """The records of a certificate. Those after the export may be missing; without a purge the certificate is provisional."""

    plan: PlanRecord
    base: BaseRecord
    forget_set: ForgetSetRecord
    erased: ErasedRecord
    verdict: VerdictRecord
    exported: ExportedRecord
    commitment: CommitmentRecord
    seed: int
    registered: RegisteredRecord | None = None
    rolled_out: RollOutRecord | None = None
    promotion: PromotionRecord | None = None
    purge: PurgeRecord | None = None
    requests: tuple[RequestFacts, ...] = ()
    serving_image: Sha256 | None = None
    code_version: str = "unknown"
    code_revision: str | None = None

    def digests(self) -> dict[str, str]:
        """The digest of every record, by name."""
        named: dict[str, Record | None] = {
            "plan": self.plan,
            "base": self.base,
            "forget_set": self.forget_set,
            "erased": self.erased,
            "verdict": self.verdict,
            "exported": self.exported,
            "registered": self.registered,
            "rolled_out": self.rolled_out,
            "promotion": self.promotion,
            "purge": self.purge,
        }
        return {name: record.digest() for name, record in named.items() if record is not None}


def commitment_to(forget_set: ForgetSetRecord, key: bytes) -> Sha256:
    """The forget set's HMAC-SHA256. It can be opened with the key and the record, until the purge destroys the key."""
    return hmac.new(key, forget_set.canonical(), "sha256").hexdigest()


def statement_of(facts: Facts, issued_at: datetime) -> Statement:
    """The statement: provisional without a purge, final with a complete purge of this erasure.

    Raises:
        BadInput: the model did not pass, the purge is incomplete or of another erasure, or a request is for another class.
        IntegrityError: the records do not belong together.
    """
    _check_chain(facts)
    _check_requests(facts)
    purge = _purged(facts)
    judged, serving = _judged(facts), _serving(facts)
    table = coverage((*judged.checks, *judged.reported))
    predicate = Predicate(
        phase="provisional" if purge is None else "final",
        issued_at=issued_at,
        requests=facts.requests,
        scope=_scope(facts),
        forget_set=ForgetSet(
            commitment=facts.commitment.hmac_sha256,
            count=facts.forget_set.count,
            retain_count=facts.forget_set.retain_count,
            comparison=facts.forget_set.comparison,
        ),
        base=_lineage(facts.base),
        making=_making(facts),
        judged=judged,
        serving=serving,
        purge=purge,
        coverage=table,
        limitations=limitations(judged, table, serving, purge, facts.requests),
    )
    return Statement(_type=STATEMENT_TYPE, subject=_subjects(facts), predicateType=PREDICATE_TYPE, predicate=predicate)


def _check_chain(facts: Facts) -> None:
    """Refuse records that do not belong together, or whose model did not pass."""
    if (found := (facts.verdict.verdict, facts.exported.verdict)) != (Verdict.PASS, Verdict.PASS):
        raise BadInput(f"run {facts.plan.run} did not pass ({found[0]}, exported graph {found[1]}): only PASS is certified.")
    digests = facts.digests()
    links = [
        ("erased", facts.erased, ("base", "forget_set")),
        ("verdict", facts.verdict, ("base",)),
        ("exported", facts.exported, ("erased", "verdict")),
        ("forget_set", facts.forget_set, ("base", "plan")),
        ("registered", facts.registered, ("exported", "verdict")),
        ("rolled_out", facts.rolled_out, ("registered",)),
        ("promotion", facts.promotion, ("registered", "base")),
    ]
    for name, record, sources in links:
        if record is not None and any(record.made_from.get(source) != digests.get(source, "") for source in sources):
            raise IntegrityError(f"the record {name} of run {facts.plan.run} does not belong to the other records: run its step again.")
    weights = facts.erased.model.weights.sha256
    graphs = {record.onnx_sha256 for record in (facts.registered, facts.rolled_out) if record is not None} | {facts.exported.onnx.sha256}
    if facts.exported.weights_sha256 != weights or len(graphs) != 1:
        raise IntegrityError(f"the graph or the weights of run {facts.plan.run} are not those that were measured: run `erasediff export-onnx` again.")
    if facts.verdict.policy_digest != facts.plan.policy_digest:
        raise IntegrityError(f"the verdict of run {facts.plan.run} was given under another policy than was planned: run `erasediff gate` again.")


def _check_requests(facts: Facts) -> None:
    for request in facts.requests:
        if request.erasure != facts.plan.request:
            raise BadInput(f"the request {request.id} is for another class than run {facts.plan.run} erased: remove it from requests.json.")
        if facts.purge is not None and request.held:
            raise BadInput(f"the request {request.id} is under a legal hold, and the data were purged: check the ledger before you certify.")


def _purged(facts: Facts) -> CertifiedPurge | None:
    """The purge, if there is one; it must be complete and of this erasure."""
    if (purge := facts.purge) is None:
        return None
    name = facts.plan.run
    if facts.promotion is None:
        raise BadInput(f"run {name} was purged but not promoted: run `erasediff promote` before the final certificate.")
    if not purge.complete:
        store = purge.unfinished[0].store
        raise BadInput(f"the purge of run {name} is not complete (store '{store}'): run `erasediff purge` again before the final certificate.")
    if not purge.lines:
        raise BadInput(f"the purge of run {name} lists no store: run `erasediff purge` again before the final certificate.")
    known, sources = facts.digests(), purge.made_from
    shared = known.keys() & sources.keys()
    if not shared or any(known[source] != sources[source] for source in shared) or purge.forget_set_version != facts.forget_set.version:
        raise BadInput(f"the purge in the folder of run {name} is of another erasure: run `erasediff purge` for this one.")
    if set(purge.requests) != {request.id for request in facts.requests}:
        raise BadInput(f"the purge of run {name} and requests.json name different requests: make requests.json again from the ledger.")
    _check_revoked(facts, purge)
    return CertifiedPurge(record=purge.digest(), lines=purge.lines)


def _check_revoked(facts: Facts, purge: PurgeRecord) -> None:
    mine = {facts.erased.model.weights.sha256, facts.exported.onnx.sha256}
    if mine & set(purge.revoked) or purge.minimum_epoch > facts.erased.model.epoch:
        raise BadInput(f"the model of run {facts.plan.run} is revoked: it cannot be certified.")
    if facts.base.model.weights.sha256 not in purge.revoked and purge.minimum_epoch <= facts.base.model.epoch:
        raise BadInput(f"the purge of run {facts.plan.run} does not revoke the model from before the erasure: run `erasediff purge` again.")


def _subjects(facts: Facts) -> tuple[StatementSubject, ...]:
    model, exported = facts.erased.model, facts.exported
    subjects = [
        StatementSubject(name="weights folder", digest={"sha256-folder": model.folder_sha256}),
        StatementSubject(name="weights", digest={"sha256": model.weights.sha256}),
        StatementSubject(name="ONNX graph", digest={"sha256": exported.onnx.sha256}),
        StatementSubject(name="solver tables", digest={"sha256": exported.solvers.sha256}),
    ]
    if exported.onnx_data is not None:
        subjects.append(StatementSubject(name="ONNX weights", digest={"sha256": exported.onnx_data.sha256}))
    if exported.decoder is not None:
        subjects.append(StatementSubject(name="ONNX decoder", digest={"sha256": exported.decoder.sha256}))
    if facts.serving_image is not None:
        subjects.append(StatementSubject(name="serving image", digest={"sha256": facts.serving_image}))
    return tuple(subjects)


def _scope(facts: Facts) -> Scope:
    request, model = facts.plan.request, facts.erased.model
    return Scope(dataset=request.dataset, scope=request.scope, label=request.label, forgotten=model.forgotten, epoch=model.epoch)


def _lineage(base: BaseRecord) -> Lineage:
    model = base.model
    return Lineage(
        name=base.name,
        version=base.version,
        weights_sha256=model.weights.sha256,
        folder_sha256=model.folder_sha256,
        forgotten=model.forgotten,
        epoch=model.epoch,
    )


def _making(facts: Facts) -> Making:
    return Making(
        code_version=facts.code_version,
        code_revision=facts.code_revision,
        config_sha256=facts.plan.config_digest,
        policy_sha256=facts.plan.policy_digest,
        seed=facts.seed,
        seed_commitment=facts.plan.seed_commitment,
        evaluation_key=facts.verdict.evaluation_key,
        records={name: digest for name, digest in facts.digests().items() if name not in _PSEUDONYMOUS},
    )


_PSEUDONYMOUS = ("forget_set",)
"""Records whose plain digest would let someone test a guess at the forget data; the certificate holds only their commitment."""


def _judged(facts: Facts) -> Judged:
    verdict = facts.verdict
    controls = tuple(check for check in verdict.checks if check.id.startswith("C0"))
    checks = (*(check for check in verdict.checks if not check.id.startswith("C0")), *facts.exported.checks)
    return Judged(
        verdict=verdict.verdict,
        attempt=verdict.attempt,
        alpha=verdict.alpha,
        alpha_spent=verdict.alpha_spent,
        controls=controls,
        checks=checks,
        reported=verdict.reported,
        left_out=verdict.left_out,
    )


def _serving(facts: Facts) -> Serving:
    rolled_out, purge = facts.rolled_out, facts.purge
    return Serving(
        backend="none" if rolled_out is None else rolled_out.backend,
        outcome="none" if rolled_out is None else rolled_out.outcome,
        onnx_sha256=facts.exported.onnx.sha256,
        promoted_version=None if facts.promotion is None else facts.promotion.version,
        revoked=() if purge is None else tuple(sorted(purge.revoked)),
        minimum_epoch=0 if purge is None else purge.minimum_epoch,
    )
