"""Time stamps (RFC 3161) over the certificate's file."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from cryptography import x509
from rfc3161_client import TimeStampRequest, TimestampRequestBuilder, TimeStampResponse, VerificationError, VerifierBuilder, decode_timestamp_response

from erasediff.errors import PASSING_STATUS, BadInput, IntegrityError, Outage, Unreachable
from erasediff.files import read_bounded
from erasediff.retries import retried

MAX_STAMP_BYTES, TIMEOUT_SECONDS = 1 << 20, 30
_HEADERS = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}


def stamp(data: bytes, url: str) -> bytes:
    """Get a time stamp over ``data`` from an authority; again while it is away.

    Raises:
        Unreachable: the authority does not answer, refuses, or stamps other data.
    """
    asked = TimestampRequestBuilder().data(data).cert_request(cert_request=True).nonce(nonce=True).build()
    token, found = retried(lambda: _answer(asked, url))
    if found.tst_info.nonce != asked.nonce or found.tst_info.message_imprint.message != hashlib.sha512(data).digest():
        raise Unreachable("the time stamp authority stamped other data: check ERASEDIFF_SIGNING_TIMESTAMP_URL, or unset it.")
    return token


def _answer(asked: TimeStampRequest, url: str) -> tuple[bytes, TimeStampResponse]:
    """The authority's answer, as bytes and read."""
    import requests

    try:
        with requests.post(url, asked.as_bytes(), headers=_HEADERS, timeout=TIMEOUT_SECONDS, stream=True) as answer:
            answer.raise_for_status()
            token = answer.raw.read(MAX_STAMP_BYTES, decode_content=True)
        return token, _decoded(token)
    except (requests.RequestException, OSError, ValueError) as error:
        problem = f"the time stamp authority does not answer correctly ({type(error).__name__})"
        status = None if not isinstance(error, requests.HTTPError) or error.response is None else error.response.status_code
        away = isinstance(error, requests.ConnectionError | requests.Timeout) and not isinstance(error, requests.exceptions.SSLError)
        kind = Outage if away or status in PASSING_STATUS else Unreachable
        raise kind(f"{problem}: check ERASEDIFF_SIGNING_TIMESTAMP_URL, or unset it.") from None


def check_stamp(data: bytes, token: Path, root: Path) -> datetime:
    """Check a time stamp over ``data`` by an authority under this root, and return its time.

    Raises:
        BadInput: a file is missing, too large, or not a certificate.
        IntegrityError: the stamp is over other data, or by another authority.
    """
    raw = read_bounded(token, MAX_STAMP_BYTES, "the time stamp")
    try:
        authority = x509.load_pem_x509_certificate(read_bounded(root, MAX_STAMP_BYTES, "the authority's certificate"))
    except ValueError:
        raise BadInput(f"{root} is not a certificate in PEM: give the root certificate of the time stamp authority.") from None
    try:
        found = _decoded(raw)
        VerifierBuilder().add_root_certificate(authority).build().verify_message(found, data)
    except (VerificationError, ValueError):
        raise IntegrityError(f"{token} is not a time stamp over this certificate by the authority of {root}: fetch it again.") from None
    return found.tst_info.gen_time


def _decoded(raw: bytes) -> TimeStampResponse:
    """Read an answer.

    Raises:
        ValueError: it is not an answer, or a refusal.
    """
    found = decode_timestamp_response(raw)
    if found.status not in (0, 1):  # granted, granted with changes
        raise ValueError("refused")
    return found
