"""Keys, certificates and revocations."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Optional

import typer

from erasediff.cli.app import Group, app
from erasediff.cli.inputs import open_workdir
from erasediff.cli.options import WORKDIR, WorkdirOption
from erasediff.errors import ExitCode

keys = typer.Typer(help="Make signing keys.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys, name="keys", rich_help_panel=Group.EVIDENCE)

PASSPHRASE = "ERASEDIFF_SIGNING_PASSPHRASE"  # noqa: S105 - the name of a variable


@keys.command("new")
def keys_new(
    to: Annotated[Path, typer.Option("--to", help="The folder for the key; an existing key is never replaced.")],
    not_after: Annotated[
        Optional[datetime],
        typer.Option("--not-after", formats=["%Y-%m-%d"], help="The last day (UTC) on which it may sign; no end if unset."),
    ] = None,
) -> int:
    """Make a signing key; ERASEDIFF_SIGNING_PASSPHRASE, if set, encrypts it."""
    from erasediff.evidence.keys import PRIVATE, PUBLIC, new_key

    now = datetime.now(UTC).replace(microsecond=0)
    end = None if not_after is None else not_after.replace(hour=23, minute=59, second=59, tzinfo=UTC)
    document = new_key(to, os.environ.get(PASSPHRASE) or None, now, end)
    print(f"key {document.key_id[:12]}: keep {to / PRIVATE} secret, give {to / PUBLIC} and signing-key.json to others")
    return ExitCode.OK


@app.command(rich_help_panel=Group.REQUESTS)
def approve(
    request: Annotated[str, typer.Argument(metavar="ID", help="The request's id.")],
    by: Annotated[str, typer.Option("--as", help="The approver: the name of their public key.")],
    key: Annotated[Path, typer.Option("--key", help="The approver's signing key, in PEM.")],
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Approve the model of a request after the gate, with your own key; read its report first."""
    from erasediff.evidence.signing import load_signing_key
    from erasediff.records.settings import SigningSettings
    from erasediff.steps.request_lifecycle import give_approval

    settings = SigningSettings.load().model_copy(update={"key": str(key)})
    facts = give_approval(open_workdir(workdir), request, by, load_signing_key(settings, datetime.now(UTC)))
    print(f"{facts.id}: {facts.state}, {len(facts.approvals)} approved")
    return ExitCode.OK


@app.command(rich_help_panel=Group.EVIDENCE)
def verify(
    certificate: Annotated[Path, typer.Argument(help="The file certificate.dsse.json.")],
    model: Annotated[Optional[Path], typer.Option("--model", help="The folder of the erased weights.")] = None,
    onnx: Annotated[Optional[Path], typer.Option("--onnx", help="The folder of the exported model, or its graph alone, model.onnx.")] = None,
    purge: Annotated[Optional[Path], typer.Option("--purge", help="The record of the purge, purge.json.")] = None,
    key: Annotated[Optional[Path], typer.Option("--key", envvar="ERASEDIFF_PUBLIC_KEY", help="The issuer's public key, in PEM.")] = None,
    revocations: Annotated[Optional[Path], typer.Option("--revocations", help="The issuer's signed list of revocations.")] = None,
    model_signature: Annotated[Optional[Path], typer.Option("--model-signature", help="model-signing's signature of the folder.")] = None,
    onnx_signature: Annotated[Optional[Path], typer.Option("--onnx-signature", help="model-signing's signature of the graph.")] = None,
    timestamp: Annotated[Optional[Path], typer.Option("--timestamp", help="The certificate's time stamp (RFC 3161).")] = None,
    timestamp_root: Annotated[Optional[Path], typer.Option("--timestamp-root", help="The authority's root certificate, in PEM.")] = None,
    final: Annotated[bool, typer.Option("--final", help="Refuse a provisional certificate.")] = False,
) -> int:
    """Verify a certificate, and the files you give with it, offline.

    The extra 'verify' is enough. The exit code is 0 if everything is as certified.
    """
    from erasediff.evidence.verification import CertificateFiles, check_final
    from erasediff.evidence.verification import verify as check

    signatures = (model_signature, onnx_signature, timestamp, timestamp_root)
    verified = check(CertificateFiles(certificate, key, model, onnx, purge, revocations, *signatures))
    if final:
        check_final(verified.statement)
    predicate = verified.statement.predicate
    print(f"{predicate.phase} certificate {verified.statement.digest()[:12]} of {predicate.issued_at.isoformat()}: {predicate.judged.verdict}")
    print(f"verified: {', '.join(verified.checks_passed)}")
    if missing := [name for name, path in (("--model", model), ("--onnx", onnx)) if path is None]:
        print(f"not verified: {' and '.join(missing)} not given")
    if onnx is not None and not onnx.is_dir():
        print("not verified: the manifest and the solver tables, for --onnx is the graph alone")
    print(f"attacks not carried out: {', '.join(row.threat for row in predicate.coverage if not row.executed) or 'none'}")
    return ExitCode.OK


@app.command(rich_help_panel=Group.EVIDENCE)
def revoke(
    to: Annotated[Path, typer.Option("--to", help="The signed list; made if missing.")],
    digest: Annotated[Optional[list[str]], typer.Option("--digest", help="SHA-256 of weights or of a graph; may be given several times.")] = None,
    minimum_epoch: Annotated[int, typer.Option("--minimum-epoch", min=0, help="The lowest erasure epoch that may be served.")] = 0,
) -> int:
    """Add to the signed list of revoked models, with the key of certify."""
    from erasediff.evidence.revocation import revoke as issue
    from erasediff.evidence.signing import load_signing_key
    from erasediff.records.settings import SigningSettings

    now = datetime.now(UTC).replace(microsecond=0)
    listed = issue(to, load_signing_key(SigningSettings.load(), now), tuple(digest or ()), minimum_epoch, now)
    print(f"list {listed.number} in {to}: {len(listed.revoked)} digests revoked, minimum epoch {listed.minimum_epoch}")
    return ExitCode.OK
