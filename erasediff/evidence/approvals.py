"""Consent to a model before it is rolled out: signed by people with keys of their own, over what the model is and what the gate said of it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import AwareDatetime

from erasediff.attempts.attempt import Attempt
from erasediff.envelopes import PublicKey, open_envelope, read_public_key
from erasediff.errors import BadInput
from erasediff.records.base import Sha256, Strict
from erasediff.records.keys import Envelope, EnvelopeSignature
from erasediff.records.nouns import ErasedRecord, VerdictRecord
from erasediff.records.requests import Actor, Approval, RequestId

if TYPE_CHECKING:  # every step comes by here, and only who signs needs what signs: it brings the clients of every cloud that is installed
    from erasediff.evidence.signing import SigningKey

APPROVAL: Final = "application/vnd.erasediff.approval+json"


class Consent(Strict):
    """What an approval's signature is over."""

    request: RequestId
    run: str
    weights_sha256: Sha256
    verdict_sha256: Sha256
    by: Actor
    at: AwareDatetime


def consent(attempt: Attempt, request: str, by: str, at: AwareDatetime) -> Consent:
    """Somebody's consent to the model of a run, for a request.

    Raises:
        BadInput: the run has no model or no verdict yet, or ``by`` is no opaque name.
    """
    weights, verdict = attempt.need(ErasedRecord).model.weights.sha256, attempt.need(VerdictRecord).digest()
    said = {"request": request, "run": attempt.name, "weights_sha256": weights, "verdict_sha256": verdict, "by": by, "at": at}
    return Consent.parse(said, "the approval")


def approve(document: Consent, key: SigningKey) -> Approval:
    """Sign a consent.

    Raises:
        Unreachable: the token or service that holds the key does not sign.
    """
    from erasediff.evidence.signing import sign

    (signature,) = Envelope.parse_json(sign(document, APPROVAL, key), "the approval").signatures
    return Approval(by=document.by, at=document.at, key_id=signature.keyid, signature=signature.sig)


def approver_key(approvers: Path | None, by: str) -> PublicKey:
    """The public key by which somebody approves: ``NAME.pub`` in the folder that the house has set.

    Raises:
        BadInput: no folder is set, or it has no key of that name.
    """
    if approvers is None:
        raise BadInput("no folder of approvers' keys is set: set ERASEDIFF_LEDGER_APPROVERS to one that holds NAME.pub for each of them.")
    path = approvers / f"{by}.pub"
    if Path(by).name != by or not path.is_file():
        raise BadInput(f"{by!r} is not among the approvers: put their public key into {approvers} as {by}.pub.")
    return read_public_key(path)


def check_approval(attempt: Attempt, request: str, approval: Approval, approvers: Path | None) -> None:
    """Whether an approval is that of an approver, and of this model.

    Raises:
        BadInput: it is somebody else's, or their key had ended.
        IntegrityError: its signature is over something else: another model, another verdict, another request.
    """
    key = approver_key(approvers, approval.by)
    key.check_unexpired(approval.at)
    payload = base64.b64encode(consent(attempt, request, approval.by, approval.at).canonical()).decode()
    signature = EnvelopeSignature.parse({"keyid": approval.key_id, "sig": approval.signature}, f"the approval by {approval.by}")
    envelope = Envelope(payload=payload, payloadType=APPROVAL, signatures=(signature,)).canonical() + b"\n"
    open_envelope(envelope, key, APPROVAL, f"the approval by {approval.by}")
