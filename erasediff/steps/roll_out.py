"""Roll the exported graph out beside the champion; only a graph that comes up is promoted."""

from __future__ import annotations

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of, lead_of
from erasediff.cluster.api import Cluster
from erasediff.errors import BadInput, IntegrityError, RolledBack
from erasediff.records.core import MANIFEST, ExportedRecord, RegisteredRecord, RollOutRecord
from erasediff.records.settings import RollOutSettings
from erasediff.retries import retried
from erasediff.rollout.backend import Candidate
from erasediff.rollout.run import Address, RollOut
from erasediff.rollout.store import Exported, store_for
from erasediff.serve.admission import check_servable
from erasediff.steps.request_lifecycle import check_approved


def roll_out(attempt: Attempt, address: Address | None = None) -> RollOutRecord:
    """Publish this attempt's graph and roll it out, if a roll-out is configured; a batch is rolled out once.

    Raises:
        AwaitingApproval: the model needs approvals first.
        BadInput: an earlier step is missing, the settings are wrong, or the cluster cannot be used.
        RolledBack: the new version did not come up; the record says so.
    """
    registered, settings = attempt.need(RegisteredRecord), RollOutSettings.load()
    for one in batch_of(attempt):
        check_approved(one)
    made_from = {"registered": registered.digest(), "settings": settings.digest()}
    record = RollOutRecord(made_from=made_from, backend=settings.backend, uri="", onnx_sha256=registered.onnx_sha256, revision="", outcome="none")
    if settings.backend == "none":
        return _write(attempt, record.model_copy(update={"reason": "no roll-out is configured"}))
    exported = Exported.read((attempt.folder / attempt.need(ExportedRecord).onnx.uri).parent)
    made_from |= {"manifest": exported.digests[MANIFEST]}  # a manifest that was signed again is published again
    record = record.model_copy(update={"made_from": made_from})
    present = attempt.find(RollOutRecord)
    if present is not None and present.made_from == made_from and present.outcome != "rolled back":
        return present
    if lead_of(attempt) != attempt:
        return _write(attempt, lead_of(attempt).need(RollOutRecord).model_copy(update={"made_from": made_from}))
    attempt.path(RollOutRecord).unlink(missing_ok=True)  # the old record is no longer true
    if exported.model.onnx.sha256 != registered.onnx_sha256:
        raise IntegrityError(f"{exported.folder} does not hold the graph that was registered: run `erasediff register` again.")

    def bring_up() -> RollOutRecord:
        """An outage leaves this only before the first change to the cluster; after it, the roll-out is rolled back."""
        with Cluster.connected(settings.namespace) as cluster:
            published = record.model_copy(update={"uri": store_for(settings.publish_to or "").publish(exported)})
            try:
                revision = RollOut(cluster, settings, attempt.name, check_servable, address).run(Candidate(published.uri, exported.model))
            except RolledBack as error:
                _write(attempt, published.model_copy(update={"outcome": "rolled back", "reason": str(error)}))
                raise
        return published.model_copy(update={"outcome": "promoted", "revision": revision})

    return _write(attempt, retried(bring_up))


def check_rolled_out(attempt: Attempt, registered: RegisteredRecord) -> RollOutRecord:
    """The roll-out record of a registered version; it must have succeeded if a roll-out is configured.

    Raises:
        BadInput: it did not succeed, or is of another version or backend.
    """
    record, settings = attempt.need(RollOutRecord), RollOutSettings.load()
    wanted = "none" if settings.backend == "none" else "promoted"
    of_this = record.made_from.get("registered") == registered.digest() and record.backend == settings.backend
    if record.outcome == "rolled back" or record.outcome != wanted or not of_this:
        found = record.outcome if of_this else f"{record.outcome}, by backend {record.backend} and of another version or setting"
        raise BadInput(f"version {registered.version} was not rolled out by backend {settings.backend} ({found}): run `erasediff roll-out` first.")
    return record


def _write(attempt: Attempt, record: RollOutRecord) -> RollOutRecord:
    record.write(attempt.path(RollOutRecord))
    return record
