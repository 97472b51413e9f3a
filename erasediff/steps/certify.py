"""Issue the certificate of an attempt that passed: provisional until its purge is complete, then final."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from erasediff import __version__
from erasediff.attempts.attempt import Attempt
from erasediff.data.commitment import KEY_BYTES, read_key
from erasediff.envelopes import SignedByAnother, read_manifest
from erasediff.errors import BadInput, IntegrityError
from erasediff.evidence.certificate import Facts, commitment_to, statement_of
from erasediff.evidence.keys import PUBLIC
from erasediff.evidence.model_signature import sign_model
from erasediff.evidence.pages import certificate_page, letter
from erasediff.evidence.revocation import revoke
from erasediff.evidence.served_rules import workdir_rules
from erasediff.evidence.signing import SigningKey, load_signing_key, sign
from erasediff.evidence.timestamp import stamp
from erasediff.files import sha256_bytes, sha256_file, sha256_folder, write_atomic
from erasediff.records.base import Pointer, canonical_json
from erasediff.records.certificate import CERTIFICATE, IN_TOTO, CertificateRecord, CommitmentRecord, RequestsRecord, Statement
from erasediff.records.core import (
    BaseRecord,
    ErasedRecord,
    ExportedRecord,
    ForgetSetRecord,
    PromotionRecord,
    RegisteredRecord,
    RollOutRecord,
    VerdictRecord,
)
from erasediff.records.purging import PurgeRecord
from erasediff.records.settings import RollOutSettings, SigningSettings
from erasediff.steps.request_lifecycle import answered_requests, mark_certified

PAGE, STAMP = "certificate.html", "certificate.tsr"
WEIGHTS_SIGNATURE, ONNX_SIGNATURE = "weights.model.sig", "onnx.model.sig"


def certify(attempt: Attempt) -> CertificateRecord:
    """Issue the certificate, with model-signing's signatures, a page, and a letter for each request.

    Raises:
        BadInput: no key is set, it has expired or did not sign the manifest, an earlier step is missing, the model did not pass, or the purge
            belongs to another erasure.
        IntegrityError: the weights or the graph are not those that were measured.
        Unreachable: the token or service that holds the key, or the time stamp authority, does not answer.
    """
    now, settings = datetime.now(UTC).replace(microsecond=0), SigningSettings.load()
    key = load_signing_key(settings, now)
    purge = _purge_for(attempt)
    _revoke(attempt, key, now)
    requests = _requests(attempt, purge)
    facts = _facts(attempt, settings, purge, requests)
    statement = statement_of(facts, now)
    made_from = facts.digests() | {"commitment": facts.commitment.digest(), "key": key.public.id, "requests": requests.digest()}
    present = attempt.find(CertificateRecord)
    if present is not None and present.made_from == made_from and _intact(attempt, present):
        return _tell_ledger(attempt, present)
    _check_files(attempt, facts, key)
    files = tuple(
        Pointer(uri=name, sha256=sha256_file(attempt.folder / name)) for name in _write_files(attempt, facts, statement, key, settings.timestamp_url)
    )
    record = CertificateRecord(
        made_from=made_from, phase=statement.predicate.phase, issued_at=now, key_id=key.public.id, statement=statement.digest(), files=files
    )
    record.write(attempt.path(CertificateRecord))
    return _tell_ledger(attempt, record)


def _purge_for(attempt: Attempt) -> PurgeRecord | None:
    """The purge's record; ``None`` if it has to run again, because it did not finish or new requests have come since.

    The certificate is provisional until then, so that the pipeline reaches the purge once more.
    """
    purge, asked = attempt.find(PurgeRecord), {request.id for request in answered_requests(attempt)}
    if purge is None or not purge.complete or (asked and asked != set(purge.requests)):
        return None
    return purge


def _revoke(attempt: Attempt, key: SigningKey, now: datetime) -> None:
    """Sign the list of revocations for servers: no model of an earlier epoch, and none that a purge revoked, may be served."""
    attempt.need(PromotionRecord)
    least, path = attempt.need(ErasedRecord).model.epoch, attempt.workdir.revocations(key.public.id)
    path.parent.mkdir(exist_ok=True)
    revoke(path, key, workdir_rules(attempt.workdir).revoked, least, now)


def _tell_ledger(attempt: Attempt, record: CertificateRecord) -> CertificateRecord:
    """Tell the ledger of a final certificate."""
    if record.phase == "final":
        mark_certified(attempt, record)
    return record


def _requests(attempt: Attempt, purge: PurgeRecord | None) -> RequestsRecord:
    """The requests that the run fulfils, as they stood when the purge ended, or when the provisional certificate was first issued.

    They are recorded once for either phase: later their state in the ledger becomes CERTIFIED, which is no reason to certify again. If the ledger
    has no requests, the recorded ones stand.
    """
    facts, present = answered_requests(attempt), attempt.find(RequestsRecord)
    if not facts and present is not None:
        return present
    ids = sha256_bytes(canonical_json(sorted(request.id for request in facts)))
    made_from = {"requests": ids} | ({} if purge is None else {"purge": purge.digest()})
    return attempt.made(RequestsRecord, made_from, lambda: RequestsRecord(requests=facts))


def _facts(attempt: Attempt, settings: SigningSettings, purge: PurgeRecord | None, requests: RequestsRecord) -> Facts:
    forget_set, rolled_out = attempt.need(ForgetSetRecord), attempt.find(RollOutRecord)
    return Facts(
        plan=attempt.plan(),
        base=attempt.need(BaseRecord),
        forget_set=forget_set,
        erased=attempt.need(ErasedRecord),
        verdict=attempt.need(VerdictRecord),
        exported=attempt.need(ExportedRecord),
        commitment=_commitment(attempt, forget_set),
        seed=attempt.config().seed,
        registered=attempt.find(RegisteredRecord),
        rolled_out=rolled_out,
        promotion=attempt.find(PromotionRecord),
        purge=purge,
        requests=requests.requests,
        serving_image=_serving_image(rolled_out),
        code_version=__version__,
        code_revision=settings.code_revision,
    )


def _commitment(attempt: Attempt, forget_set: ForgetSetRecord) -> CommitmentRecord:
    """The commitment to the forget set, made once: the purge destroys its key, and the commitment stays."""
    made_from, path = {"plan": attempt.plan().digest()}, attempt.workdir.request_key(attempt.plan().request)

    def make() -> CommitmentRecord:
        # If the key is gone, a random one serves: neither this commitment nor the record's HMACs can be opened any more.
        key = read_key(path) if path.is_file() else secrets.token_bytes(KEY_BYTES)
        return CommitmentRecord(hmac_sha256=commitment_to(forget_set, key))

    return attempt.made(CommitmentRecord, made_from, make)


def _serving_image(rolled_out: RollOutRecord | None) -> str | None:
    """The digest of the serving image, if it is set by digest; a tag may move."""
    if rolled_out is None or rolled_out.outcome != "promoted":
        return None
    found = re.search(r"@sha256:([0-9a-f]{64})$", RollOutSettings.load().image or "")
    return found[1] if found else None


def _paths(attempt: Attempt, facts: Facts) -> tuple[Path, Path]:
    return attempt.workdir.models / facts.erased.model.weights.uri, attempt.folder / facts.exported.onnx.uri


def _check_files(attempt: Attempt, facts: Facts, key: SigningKey) -> None:
    folder, onnx = _paths(attempt, facts)
    if not folder.is_dir() or sha256_folder(folder) != facts.erased.model.folder_sha256:
        raise IntegrityError(f"the weights in {folder} are not those that were measured: restore them, then certify.")
    if not onnx.is_file() or sha256_file(onnx) != facts.exported.onnx.sha256:
        raise IntegrityError(f"the graph {onnx} is not the one that was measured: run `erasediff export-onnx` again, then certify.")
    try:
        read_manifest(onnx.parent, key.public)
    except SignedByAnother:
        raise BadInput(
            f"the manifest of run {attempt.name} is signed by another key than the certificate would be, so the two would not verify together: "
            "run `erasediff migrate`, which signs it anew, or set ERASEDIFF_SIGNING_KEY to the key that the run was exported with."
        ) from None


def _write_files(attempt: Attempt, facts: Facts, statement: Statement, key: SigningKey, timestamp_url: str | None) -> Iterator[str]:
    """Write all files and yield their names. The certificate comes last: if it exists, so does the rest."""
    if key.file is not None:
        for name, path in zip((WEIGHTS_SIGNATURE, ONNX_SIGNATURE), _paths(attempt, facts), strict=True):
            sign_model(path, attempt.folder / name, key)
            yield name
    for request in statement.predicate.requests or (None,):
        name = "letter.html" if request is None else f"letter-{request.id}.html"
        write_atomic(attempt.folder / name, letter(statement, request).encode())
        yield name
    write_atomic(attempt.folder / PUBLIC, key.public.pem)
    yield PUBLIC
    write_atomic(attempt.folder / PAGE, certificate_page(statement, key.public.id).encode())
    yield PAGE
    certificate = sign(statement, IN_TOTO, key)
    (attempt.folder / STAMP).unlink(missing_ok=True)  # belongs to an earlier certificate
    if timestamp_url is not None:
        write_atomic(attempt.folder / STAMP, stamp(certificate, timestamp_url))
        yield STAMP
    write_atomic(attempt.folder / CERTIFICATE, certificate)
    yield CERTIFICATE


def _intact(attempt: Attempt, record: CertificateRecord) -> bool:
    """Whether every file of a certificate is still there, unchanged."""
    return all((attempt.folder / file.uri).is_file() and sha256_file(attempt.folder / file.uri) == file.sha256 for file in record.files)
