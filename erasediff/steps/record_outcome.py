"""Write ``outcome.json`` and ``report.html``, whatever happened before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from erasediff.attempts.attempt import GRIDS, Attempt
from erasediff.attempts.batch import batch_of, lead_of, others_of
from erasediff.attempts.journal import read_failure, read_seconds
from erasediff.attempts.workdir import Workdir
from erasediff.evaluate.gate import final_verdict
from erasediff.evidence.keys import PUBLIC
from erasediff.files import write_atomic
from erasediff.records.certificate import CERTIFICATE, CertificateRecord
from erasediff.records.core import (
    BaseRecord,
    ChampionOutcome,
    Check,
    ErasedRecord,
    ErasureRequest,
    ExportedRecord,
    Failure,
    ForgetOutcome,
    ForgetSetOutcome,
    ForgetSetRecord,
    Outcome,
    PromotionRecord,
    RegisteredRecord,
    RetainOutcome,
    RollOutRecord,
    Verdict,
    VerdictRecord,
)
from erasediff.records.measurements import Measurements, Probed
from erasediff.records.purging import PurgeRecord
from erasediff.records.yaml import dump_yaml
from erasediff.steps.request_lifecycle import answered_requests
from erasediff.steps.table import STEPS, Role, Step, maker_of, step_for, work_steps

if TYPE_CHECKING:
    from erasediff.evaluate.report import Curves, ReportContent, SampleGrid

REPORT = "report.html"


def record_outcome(workdir: Workdir, attempt: Attempt | None, requests: Sequence[ErasureRequest]) -> Outcome:
    """Write the outcome of an attempt into its folder and into the workdir; the workdir's is that of the batch's lead.

    Args:
        workdir: the run's workdir.
        attempt: any attempt of the batch; ``None`` if none could be opened.
        requests: the run's requests; none where their classes could not be looked up.

    Raises:
        Exception: the report could not be drawn; the outcome is written all the same.
    """
    if attempt is None:
        return _record_missing_run(workdir, requests[0].label if requests else None)
    recorded = {one.name: _record(one) for one in batch_of(attempt)}
    lead = lead_of(attempt)
    outcome, _ = recorded[lead.name]
    outcome.write(workdir.outcome)
    if outcome.report is not None:
        write_atomic(workdir.report, (lead.folder / REPORT).read_bytes())
    for failure in (failure for _, failure in recorded.values() if failure is not None):
        raise failure
    for one in batch_of(attempt):
        _close(one, recorded[one.name][0])
    return recorded[attempt.name][0]


def _record(attempt: Attempt) -> tuple[Outcome, Exception | None]:
    """Write report and outcome into an attempt's folder. If the report fails, its error is returned and the outcome is still written."""
    outcome, failure = outcome_of(attempt), None
    try:
        write_atomic(attempt.folder / REPORT, _render(attempt, outcome, _grid_file(attempt)))
    except Exception as error:
        outcome, failure = outcome.model_copy(update={"report": None}), error
    outcome.write(attempt.folder / "outcome.json")
    return outcome, failure


def _record_missing_run(workdir: Workdir, label: str | None) -> Outcome:
    """Write the outcome of a run that ended before an attempt could be opened."""
    error = read_failure(workdir.root) or Failure(
        step=step_for(Role.OPENS).name,
        message="the run ended early, for no recorded reason: read the step's log.",
        exit_code=1,
    )
    outcome = Outcome(
        verdict=None,
        attempt=None,
        forget=ForgetOutcome(label=label, n=None, detections=None, upper=None),
        retain=None,
        champion=None,
        forget_set=None,
        report=None,
        seconds={},
        error=error,
    )
    outcome.write(workdir.outcome)
    return outcome


def outcome_of(attempt: Attempt) -> Outcome:
    """The outcome of an attempt, from its records."""
    plan, verdict, exported = attempt.plan(), attempt.find(VerdictRecord), attempt.find(ExportedRecord)
    forget_set = attempt.find(ForgetSetRecord)
    decided = final_verdict(verdict.verdict if verdict else None, exported)
    champion, requests, certificate = _champion(attempt), answered_requests(attempt), attempt.find(CertificateRecord)
    owed = bool(requests) and (certificate is None or certificate.phase != "final")
    error = next((failure for one in (attempt, *others_of(attempt)) if (failure := read_failure(one.folder)) is not None), None)
    if error is None and champion is None and decided in (None, Verdict.PASS):
        error = _failure_in_batch(attempt)
    if error is None and (owed if champion else decided in (None, Verdict.PASS)):
        error = Failure(step=_next_step(attempt), message="the step ended for no recorded reason: read its log.", exit_code=1)
    return Outcome(
        verdict=decided,
        attempt=plan.attempt,
        forget=_forget(attempt, plan.request.label, verdict),
        retain=_retain(attempt, verdict),
        champion=champion,
        forget_set=ForgetSetOutcome(version=forget_set.version, count=forget_set.count) if forget_set else None,
        report=REPORT,
        seconds=seconds_of(attempt),
        error=error if champion is None or owed else None,
        certificate=None if certificate is None else _in_workdir(attempt, CERTIFICATE),
        public_key=None if certificate is None else _in_workdir(attempt, PUBLIC),
        request=requests[0].id if requests else None,
    )


def _failure_in_batch(attempt: Attempt) -> Failure | None:
    """The failure of another attempt of the batch, which keeps this one's model from promotion."""
    for other in others_of(attempt):
        verdict, exported = other.find(VerdictRecord), other.find(ExportedRecord)
        decided = final_verdict(verdict.verdict if verdict else None, exported)
        if decided in (Verdict.FAIL, Verdict.INCONCLUSIVE):
            message = (
                f"the class at position {other.plan().position}, which was erased in the same run, ended {decided}, so the model is not promoted: "
                "run `erasediff process` again; it leaves that class out."
            )
            return Failure(step=maker_of(VerdictRecord).name, message=message, exit_code=int(decided.exit_code))
    return None


def _in_workdir(attempt: Attempt, name: str) -> str:
    return str((attempt.folder / name).relative_to(attempt.workdir.root))


def seconds_of(attempt: Attempt) -> dict[str, float]:
    """How long every step took, in the order of the table."""
    seconds = read_seconds(attempt)
    return {row.name: seconds[row.name] for row in STEPS if row.name in seconds}


def _next_step(attempt: Attempt) -> str:
    """The first step that the attempt has not finished."""
    rows = tuple(work_steps())
    return next((row.name for row in rows if not _done(row, attempt)), rows[-1].name)


def _done(row: Step, attempt: Attempt) -> bool:
    if row.role is Role.PROMOTES:
        return _champion(attempt) is not None
    record = None if row.makes is None else attempt.find(row.makes)
    return record is not None and not (isinstance(record, PurgeRecord) and not record.complete)


def _check(verdict: VerdictRecord | None, id: str) -> Check | None:
    return next((check for check in verdict.checks if check.id == id), None) if verdict else None


def _forget(attempt: Attempt, label: str, verdict: VerdictRecord | None) -> ForgetOutcome:
    measured, check = attempt.find(Measurements), _check(verdict, "F1")
    found = measured.forget_erased if measured else None
    return ForgetOutcome(
        label=label, n=found.n if found else None, detections=found.detections if found else None, upper=check.bound if check else None
    )


def _retain(attempt: Attempt, verdict: VerdictRecord | None) -> RetainOutcome | None:
    measured = attempt.find(Measurements)
    if measured is None or not measured.retained.accuracy:
        return None
    rows, frechet = measured.retained.accuracy, measured.retained.frechet
    n = sum(row.n for row in rows)
    accuracy, fidelity = _check(verdict, "R1"), _check(verdict, "R2")
    return RetainOutcome(
        accuracy_base=sum(row.correct_base for row in rows) / n,
        accuracy_erased=sum(row.correct_erased for row in rows) / n,
        lower_bound=accuracy.bound if accuracy else None,
        fd_base=frechet.fd_base if frechet else None,
        fd_erased=frechet.fd_erased if frechet else None,
        fd_change_upper=fidelity.bound if fidelity else None,
    )


def _champion(attempt: Attempt) -> ChampionOutcome | None:
    """The champion, if this attempt was promoted.

    The step's recorded time shows that it ended; the promotion record alone does not, since it is written before the alias moves.
    """
    registered, promotion = attempt.find(RegisteredRecord), attempt.find(PromotionRecord)
    if registered is None or promotion is None or step_for(Role.PROMOTES).name not in read_seconds(attempt):
        return None
    return ChampionOutcome(
        name=registered.name, version=registered.version, weights_sha256=registered.weights_sha256, onnx_sha256=registered.onnx_sha256
    )


def _close(attempt: Attempt, outcome: Outcome) -> None:
    from erasediff.tracking import Tracking

    tracking, run_id = Tracking(attempt.workdir.root), attempt.plan().mlflow_run_id
    tracking.log_artifact(run_id, attempt.folder / "outcome.json")
    if outcome.report is not None:
        tracking.log_artifact(run_id, attempt.folder / REPORT)
    tracking.end_run(run_id, "FINISHED" if outcome.error is None else "FAILED")


def report_with(attempt: Attempt, grid: Path) -> bytes:
    """The report of an attempt with a recorded outcome, with the samples of another file."""
    return _render(attempt, Outcome.read(attempt.folder / "outcome.json"), grid)


def _render(attempt: Attempt, outcome: Outcome, grid: Path | None) -> bytes:
    from erasediff.evaluate.report import render_report

    return render_report(_content(attempt, outcome, grid)).encode()


def _grid_file(attempt: Attempt) -> Path | None:
    """The samples for the report: those that a purge left, else all that were kept."""
    return next((path for name in reversed(GRIDS) if (path := attempt.folder / name).is_file()), None)


def _content(attempt: Attempt, outcome: Outcome, grid: Path | None) -> ReportContent:
    from erasediff.evaluate.report import ReportContent

    plan, config = attempt.plan(), attempt.config()
    verdict, exported, measured = attempt.find(VerdictRecord), attempt.find(ExportedRecord), attempt.find(Measurements)
    retained, forgotten = _grids(attempt, measured, grid)
    return ReportContent(
        title=f"Erasure of class {plan.request.label} from {plan.request.dataset}",
        outcome=outcome,
        checks=(*(verdict.checks if verdict else ()), *(exported.checks if exported else ())),
        curves=_curves(attempt),
        retained=retained,
        forgotten=forgotten,
        chain=_chain(attempt),
        config=dump_yaml(config.shown()),
        accuracy=measured.retained.accuracy if measured else (),
        probes=_probes(measured),
        class_names=measured.class_names if measured else (),
        level=confidence(attempt),
        reported=verdict.reported if verdict else (),
        attacks=measured.attacks if measured else None,
        compared=_compared(attempt),
        left_out=verdict.left_out if verdict else (),
    )


def _compared(attempt: Attempt) -> str:
    forget_set = attempt.find(ForgetSetRecord)
    return forget_set.comparison.in_words() if forget_set is not None and forget_set.comparison is not None else ""


def confidence(attempt: Attempt) -> float:
    """The confidence of each bound; later tries at a request are judged at a higher one."""
    verdict = attempt.find(VerdictRecord)
    return 1 - (attempt.policy().alpha if verdict is None else verdict.alpha)


def _probes(measured: Measurements | None) -> tuple[Probed, ...]:
    if measured is None:
        return ()
    return (*((measured.unasked,) if measured.unasked else ()), *measured.probes)


def _curves(attempt: Attempt) -> Curves | None:
    import numpy as np

    from erasediff.evaluate.report import Curves

    erased = attempt.find(ErasedRecord)
    if erased is None:
        return None
    with np.load(attempt.folder / erased.curves.uri, allow_pickle=False) as stored:
        curves = {name: stored[name] for name in stored.files}
    return Curves(step=np.arange(1, len(curves["retain_loss"]) + 1, dtype=np.float64), **curves)


def _grids(attempt: Attempt, measured: Measurements | None, grid: Path | None) -> tuple[SampleGrid | None, SampleGrid | None]:
    import numpy as np

    from erasediff.evaluate.report import SampleGrid

    if measured is None or grid is None:
        return None, None
    names = measured.class_names
    with np.load(grid, allow_pickle=False) as stored:
        labels = tuple(int(label) for label in stored["labels"])
        retained = SampleGrid(labels, tuple(names[c] for c in labels), stored["retained_before"], stored["retained_after"])
        if "forgotten_before" not in stored.files:
            return retained, None
        label = measured.label
        return retained, SampleGrid((label,), (names[label],), stored["forgotten_before"], stored["forgotten_after"])


def _chain(attempt: Attempt) -> tuple[tuple[str, str, str], ...]:
    plan = attempt.plan()
    chain = [
        ("request", "what to forget", plan.request.digest()),
        ("config", "how to erase it", plan.config_digest),
        ("policy", "the gate's checks, fixed before the erasure", plan.policy_digest),
        ("plan", "the attempt, with a commitment to its seeds", plan.digest()),
    ]
    if (base := attempt.find(BaseRecord)) is not None:
        chain.append(("base weights", f"version {base.version} of {base.name}", base.model.weights.sha256))
    if (forget_set := attempt.find(ForgetSetRecord)) is not None:
        chain.append(("forget set", f"{forget_set.count} images, versioned by DVC", forget_set.version))
    if (erased := attempt.find(ErasedRecord)) is not None:
        chain.append(("erased weights", f"after {erased.steps} steps", erased.model.weights.sha256))
    if (measured := attempt.find(Measurements)) is not None:
        chain.append(("detector", "the classifier that measured", measured.detector.sha256))
        chain.append(("measurements", "all counts and distances", measured.digest()))
    if (verdict := attempt.find(VerdictRecord)) is not None:
        chain.append(("verdict", str(verdict.verdict), verdict.digest()))
    if (exported := attempt.find(ExportedRecord)) is not None:
        chain.append(("ONNX graph", "the model that is served", exported.onnx.sha256))
    if (rolled_out := attempt.find(RollOutRecord)) is not None and rolled_out.backend != "none":
        chain.append(("roll-out", f"{rolled_out.outcome}, {rolled_out.revision or rolled_out.uri}", rolled_out.digest()))
    if (promotion := attempt.find(PromotionRecord)) is not None:
        chain.append(("promotion", f"version {promotion.version} after version {promotion.previous_version}", promotion.digest()))
    return tuple(chain)
