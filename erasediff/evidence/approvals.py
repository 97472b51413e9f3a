"""Approvals of a model before its roll-out: each approver signs the model's and the verdict's digests with their own key."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import AwareDatetime

from erasediff.attempts.attempt import Attempt
from erasediff.envelopes import PublicKey, open_envelope, read_public_key
from erasediff.errors import BadInput
from erasediff.records.base import Sha256, Strict
from erasediff.records.core import ErasedRecord, VerdictRecord
from erasediff.records.envelopes import Envelope, EnvelopeSignature
from erasediff.records.requests import Actor, Approval, RequestId

if TYPE_CHECKING:  # every step imports this module, and signing imports the clients of every installed cloud
    from erasediff.evidence.signing import SigningKey

APPROVAL: Final = "application/vnd.erasediff.approval+json"


class Consent(Strict):
    """The content that an approval signs."""

    request: RequestId
    run: str
    weights_sha256: Sha256
    verdict_sha256: Sha256
    by: Actor
    at: AwareDatetime


def consent(attempt: Attempt, request: str, by: str, at: AwareDatetime) -> Consent:
    """A person's consent to the model of a run, for a request.

    Raises:
        BadInput: the run has no model or no verdict yet, or ``by`` is not an opaque name.
    """
    weights, verdict = attempt.need(ErasedRecord).model.weights.sha256, attempt.need(VerdictRecord).digest()
    document = {"request": request, "run": attempt.name, "weights_sha256": weights, "verdict_sha256": verdict, "by": by, "at": at}
    return Consent.parse(document, "the approval")


def approve(document: Consent, key: SigningKey) -> Approval:
    """Sign a consent.

    Raises:
        Unreachable: the token or service that holds the key does not sign.
    """
    from erasediff.evidence.signing import sign

    (signature,) = Envelope.parse_json(sign(document, APPROVAL, key), "the approval").signatures
    return Approval(by=document.by, at=document.at, key_id=signature.keyid, signature=signature.sig)


def approver_key(approvers: Path | None, by: str) -> PublicKey:
    """An approver's public key: ``NAME.pub`` in the configured folder.

    Raises:
        BadInput: no folder is set, or it has no key of this name.
    """
    if approvers is None:
        raise BadInput("no folder of approvers' keys is set: set ERASEDIFF_LEDGER_APPROVERS to one that holds NAME.pub for each of them.")
    path = approvers / f"{by}.pub"
    if Path(by).name != by or not path.is_file():
        raise BadInput(f"{by!r} is not among the approvers: put their public key into {approvers} as {by}.pub.")
    return read_public_key(path)


def check_approval(attempt: Attempt, request: str, approval: Approval, approvers: Path | None) -> None:
    """Check that an approval is by an approver and for this model.

    Raises:
        BadInput: it is not by an approver, or their key had expired.
        IntegrityError: it signs another model, verdict or request.
    """
    key = approver_key(approvers, approval.by)
    key.check_unexpired(approval.at)
    payload = base64.b64encode(consent(attempt, request, approval.by, approval.at).canonical()).decode()
    signature = EnvelopeSignature.parse({"keyid": approval.key_id, "sig": approval.signature}, f"the approval by {approval.by}")
    envelope = Envelope(payload=payload, payloadType=APPROVAL, signatures=(signature,)).canonical() + b"\n"
    open_envelope(envelope, key, APPROVAL, f"the approval by {approval.by}")
