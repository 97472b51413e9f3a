"""Verify a certificate and the artifacts it names, offline, with the public key only.

This module imports nothing that trains, evaluates or serves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from erasediff.envelopes import (
    MAX_ENVELOPE_BYTES,
    PublicKey,
    SignedByAnother,
    open_envelope,
    read_manifest,
    read_public_key,
    read_revocations,
    read_signed,
)
from erasediff.errors import BadInput, IntegrityError
from erasediff.files import read_bounded, sha256_bytes, sha256_file, sha256_folder
from erasediff.records.base import MAX_DOCUMENT_BYTES
from erasediff.records.certificate import IN_TOTO, Statement
from erasediff.records.core import DATA_SUFFIX, Verdict
from erasediff.records.former import FORMER_PREDICATE, FormerStatement
from erasediff.records.purging import PurgeRecord

LATEST_STAMP = timedelta(hours=24)
NO_PUBLIC_KEY = "no public key is given: use --key signing-key.pub, from the issuer, received separately from the certificate."


@dataclass(frozen=True)
class CertificateFiles:
    """A certificate and the files to verify with it.

    ``onnx`` is the folder of the exported model, or the graph alone. The signatures are model-signing's; ``timestamp`` is an RFC 3161 token.
    """

    certificate: Path
    key: Path | None
    model: Path | None = None
    onnx: Path | None = None
    purge: Path | None = None
    revocations: Path | None = None
    model_signature: Path | None = None
    onnx_signature: Path | None = None
    timestamp: Path | None = None
    timestamp_root: Path | None = None


@dataclass(frozen=True)
class VerifiedCertificate:
    """A verified certificate, and the names of the checks that passed."""

    statement: Statement
    checks_passed: tuple[str, ...]


def verify(presented: CertificateFiles) -> VerifiedCertificate:
    """Verify a certificate and every given file.

    Raises:
        BadInput: something is missing, does not follow its schema, was revoked, or does not certify a passing model.
        IntegrityError: something differs from what was certified.
    """
    pinned = presented.key
    if pinned is None:
        raise BadInput(NO_PUBLIC_KEY)
    key = read_public_key(pinned)
    statement = read_certificate(presented.certificate, key)
    held = ["signature"]
    if presented.model is not None:
        _check_model(presented.model, statement)
        held.append("weights folder")
    if presented.onnx is not None:
        graph, names = _check_exported(presented.onnx, key, statement)
        presented, held = replace(presented, onnx=graph), [*held, *names]
    if presented.purge is not None:
        _check_purge(presented.purge, statement)
        held.append("purge ledger")
    if presented.revocations is not None:
        number = _check_revocations(presented.revocations, key, statement)
        held.append(f"revocation list {number}")
    held += _check_signatures(presented, pinned)
    held += _check_timestamp(presented, key, statement)
    return VerifiedCertificate(statement, tuple(held))


def read_certificate(path: Path, key: PublicKey) -> Statement:
    """Read a certificate: signed by this key before it expired, for a model that passed.

    Raises:
        BadInput: it is not a certificate, is signed by another or an expired key, or its model did not pass.
        IntegrityError: it was changed.
    """
    data = read_bounded(path, MAX_ENVELOPE_BYTES, "the certificate")
    source = f"the certificate {path}"
    former = f'"predicateType":"{FORMER_PREDICATE}"'.encode()  # in canonical JSON no text can hold this: its quotes would be escaped
    kind = FormerStatement if former in open_envelope(data, key, IN_TOTO, source) else Statement
    statement = read_signed(data, key, IN_TOTO, kind, source)
    key.check_unexpired(statement.predicate.issued_at)
    judged = statement.predicate.judged
    refused = [check.id for check in (*judged.controls, *judged.checks) if check.verdict is not Verdict.PASS]
    if judged.verdict is not Verdict.PASS or refused:
        raise BadInput(f"the certificate {path} names a model that did not pass ({judged.verdict}, {', '.join(refused[:5])}): do not rely on it.")
    return statement


def check_final(statement: Statement) -> None:
    """Refuse a provisional certificate.

    Raises:
        BadInput: it is provisional.
    """
    if statement.predicate.phase != "final":
        raise BadInput("the certificate is provisional, issued before the forget data were purged: ask the issuer for the final one.")


def _check_model(folder: Path, statement: Statement) -> None:
    if not folder.is_dir():
        raise BadInput(f"--model {folder} is not a folder: give the folder of the weights, in diffusers layout.")
    if link := next((path for path in folder.rglob("*") if path.is_symlink()), None):
        raise BadInput(f"{link} is a symbolic link, which a digest does not cover: give a copy of the folder without links.")
    if sha256_folder(folder) != statement.digest_of("weights folder"):
        raise IntegrityError(f"the model in {folder} is not the certified one: a file differs, is missing, or was added.")


def _check_exported(path: Path, key: PublicKey, statement: Statement) -> tuple[Path, list[str]]:
    """Check a folder with its manifest, or the graph alone; returns the graph's path and what was checked."""
    if path.is_dir():
        return _check_served(path, key, statement)
    if not path.is_file():
        raise BadInput(f"--onnx {path} does not exist: give the folder of the exported model, or its graph, model.onnx.")
    if sha256_file(path) != statement.digest_of("ONNX graph"):
        raise IntegrityError(f"the graph {path} is not the certified one: fetch it again from the issuer.")
    weights, data = statement.digest_of("ONNX weights"), path.with_name(f"{path.name}{DATA_SUFFIX}")
    if weights is not None and (not data.is_file() or sha256_file(data) != weights):
        raise IntegrityError(f"{data}, which holds the weights of the graph, is not the certified one: fetch it again from the issuer.")
    return path, ["ONNX graph"]


def _check_served(folder: Path, key: PublicKey, statement: Statement) -> tuple[Path, list[str]]:
    """Check the manifest by its signature, what it says by the certificate, and the files by what it says."""
    try:
        served = read_manifest(folder, key)
    except SignedByAnother:
        raise BadInput(
            f"the manifest in {folder} is signed by another key than the certificate: ask the issuer for a certificate by the key that signs the "
            "manifests now (`erasediff certify`), or for a manifest by this key (`erasediff migrate`)."
        ) from None
    data, decoder = (None if pointer is None else pointer.sha256 for pointer in (served.onnx_data, served.decoder))
    said = (served.onnx.sha256, data, served.solvers.sha256, served.weights_sha256, served.epoch, served.verdict)
    certified = [statement.digest_of(name) for name in ("ONNX graph", "ONNX weights", "solver tables", "weights")]
    other_decoder = statement.digest_of("ONNX decoder") not in (None, decoder)  # an earlier certificate leaves it to the manifest
    if said != (*certified, statement.predicate.scope.epoch, Verdict.PASS) or other_decoder:
        raise IntegrityError(f"the manifest in {folder} is not of the certified model: fetch the folder again from the issuer.")
    for pointer in served.files:
        path = folder / Path(pointer.uri).name
        if not path.is_file() or sha256_file(path) != pointer.sha256:
            raise IntegrityError(f"{path} is not the file that the signed manifest names: fetch it again from the issuer.")
    return folder / Path(served.onnx.uri).name, ["manifest", "ONNX graph", "solver tables", *(("decoder",) if served.decoder else ())]


def _check_purge(path: Path, statement: Statement) -> None:
    check_final(statement)
    data, claimed = read_bounded(path, MAX_DOCUMENT_BYTES, "the purge ledger"), statement.predicate.purge
    if claimed is None or data[-1:] != b"\n" or sha256_bytes(data[:-1]) != claimed.record:
        raise IntegrityError(f"the purge ledger {path} is not the certified one: fetch it again from the issuer.")
    record = PurgeRecord.parse_json(data, f"the purge ledger {path}")
    if not record.complete or record.lines != claimed.lines:
        raise IntegrityError(f"the purge ledger {path} contradicts the certificate: ask the issuer.")


def _check_revocations(path: Path, key: PublicKey, statement: Statement) -> int:
    listed, predicate = read_revocations(path, key), statement.predicate
    certified = {value for subject in statement.subject for value in subject.digests.values()}
    if certified & set(listed.revoked):
        raise BadInput(f"the certified model was revoked by list {listed.number}: do not serve it.")
    if predicate.scope.epoch < listed.minimum_epoch:
        epoch, least = predicate.scope.epoch, listed.minimum_epoch
        raise BadInput(f"the certified model has erasure epoch {epoch}, and list {listed.number} allows {least} or more: do not serve it.")
    return listed.number


def _check_timestamp(presented: CertificateFiles, key: PublicKey, statement: Statement) -> list[str]:
    if presented.timestamp is None:
        return []
    if presented.timestamp_root is None:
        raise BadInput("--timestamp needs --timestamp-root, the authority's root certificate: give both.")
    from erasediff.evidence.timestamp import check_stamp

    data = read_bounded(presented.certificate, MAX_ENVELOPE_BYTES, "the certificate")
    stamped, issued = check_stamp(data, presented.timestamp, presented.timestamp_root), statement.predicate.issued_at
    key.check_unexpired(stamped)
    if abs(stamped - issued) > LATEST_STAMP:
        raise IntegrityError(
            f"the certificate says that it was issued at {issued.isoformat()}, but was stamped at {stamped.isoformat()}: ask the issuer."
        )
    return [f"time stamp of {stamped.isoformat()}"]


def _check_signatures(presented: CertificateFiles, key: Path) -> list[str]:
    pairs = (
        ("the weights' signature", "--model-signature", presented.model, presented.model_signature),
        ("the graph's signature", "--onnx-signature", presented.onnx, presented.onnx_signature),
    )
    held = []
    for name, option, path, signature in pairs:
        if signature is None:
            continue
        if path is None:
            raise BadInput(f"{option} needs {option.removesuffix('-signature')}, the file that it signs: give both.")
        from erasediff.evidence.model_signature import check_model

        check_model(path, signature, key)
        held.append(name)
    return held
