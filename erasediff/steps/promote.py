"""Make the challenger the champion; the promotion is recorded first."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of
from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput
from erasediff.evidence.served_rules import workdir_rules
from erasediff.files import append_line, explain_disk_errors
from erasediff.records.core import BaseRecord, ForgetSetRecord, PromotionRecord, RegisteredRecord, VerdictRecord
from erasediff.steps.request_lifecycle import check_approved
from erasediff.steps.roll_out import check_rolled_out
from erasediff.tracking import CHAMPION, Tracking


def promote(attempt: Attempt) -> PromotionRecord:
    """Promote this attempt's version.

    MLflow's aliases have no history and no compare-and-set. So a lock allows one promotion at a time in a workdir, an append-only record comes
    first, and the champion is read right before and right after the move.

    Raises:
        AwaitingApproval: the model needs approvals first.
        BadInput: an earlier step is missing, the configured roll-out did not succeed, the version was revoked, or the champion is no longer this
            attempt's base.
    """
    registered, base = attempt.need(RegisteredRecord), attempt.need(BaseRecord)
    for one in batch_of(attempt):
        check_approved(one)
    check_rolled_out(attempt, registered)
    if {registered.weights_sha256, registered.onnx_sha256} & set(workdir_rules(attempt.workdir).revoked):
        raise BadInput(f"version {registered.version} of {registered.name!r} was revoked by a purge: run the same command again from the champion.")
    tracking = Tracking(attempt.workdir.root)
    with one_at_a_time(attempt.workdir):
        _check_champion(tracking, registered, base)
        made_from = {"registered": registered.digest(), "base": base.digest()}
        record = attempt.made(PromotionRecord, made_from, lambda: _announce(attempt, registered, base))
        _check_champion(tracking, registered, base)
        move_champion(tracking, registered.name, registered.version)
    return record


def move_champion(tracking: Tracking, name: str, version: str) -> None:
    """Move the alias ``champion`` and read it back.

    Raises:
        BadInput: another process moved it.
    """
    tracking.set_alias(name, CHAMPION, version)
    champion = tracking.alias(name, CHAMPION)
    if champion is None or str(champion.version) != version:
        raise BadInput(f"the champion of {name!r} was moved by another process: check its versions in MLflow.")


def _check_champion(tracking: Tracking, registered: RegisteredRecord, base: BaseRecord) -> None:
    champion = tracking.alias(registered.name, CHAMPION)
    version = None if champion is None else str(champion.version)
    if version not in (base.version, registered.version):
        raise BadInput(
            f"the champion of {registered.name!r} is version {version}, not {base.version}, the base of this run: "
            "run the same command again to erase from the new champion."
        )


def _announce(attempt: Attempt, registered: RegisteredRecord, base: BaseRecord) -> PromotionRecord:
    """Append the promotion to the list, unless a killed run has already done so."""
    made_from = {"registered": registered.digest(), "base": base.digest()}
    for announced in read_promotions(attempt.workdir):
        if announced.made_from == made_from:
            return announced
    record = PromotionRecord(
        made_from=made_from,
        name=registered.name,
        version=registered.version,
        previous_version=base.version,
        verdict_digest=attempt.need(VerdictRecord).digest(),
        forget_set_version=attempt.need(ForgetSetRecord).version,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    append_line(attempt.workdir.promotions, record.canonical())
    return record


def read_promotions(workdir: Workdir) -> list[PromotionRecord]:
    """Every recorded promotion of this workdir, oldest first."""
    if not workdir.promotions.is_file():
        return []
    return [PromotionRecord.parse_json(line, str(workdir.promotions)) for line in workdir.promotions.read_bytes().splitlines()]


@contextmanager
def one_at_a_time(workdir: Workdir) -> Iterator[None]:
    """Allow one promotion or purge at a time in this workdir."""
    with explain_disk_errors(workdir.root), (workdir.root / ".promotion.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
