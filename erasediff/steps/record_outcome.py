"""Write ``outcome.json`` and ``report.html``, whatever happened before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from erasediff.errors import ExitCode
from erasediff.evaluate.gate import final_verdict
from erasediff.evidence.keys import PUBLIC
from erasediff.files import write_atomic
from erasediff.records.certificate import CERTIFICATE, CertificateRecord
from erasediff.records.measurements import Measurements, Probed
from erasediff.records.nouns import (
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
from erasediff.records.purging import PurgeRecord
from erasediff.records.workdir import GRIDS, Run, Workdir
from erasediff.records.yaml import dump_yaml
from erasediff.steps.filed import answered
from erasediff.steps.journal import STEPS, read_failure, read_seconds

if TYPE_CHECKING:
    from erasediff.evaluate.report import Curves, ReportContent, SampleGrid

REPORT = "report.html"


def record_outcome(run: Run) -> Outcome:
    """Write what came of an attempt, into its folder and into the workdir; of a batch the workdir has what came of its first attempt."""
    recorded = {one.name: _record(one) for one in run.batch()}
    lead, _ = recorded[run.lead.name]
    lead.write(run.workdir.outcome)
    if lead.report is not None:
        write_atomic(run.workdir.report, (run.lead.folder / REPORT).read_bytes())
    for failure in (failure for _, failure in recorded.values() if failure is not None):
        raise failure
    for one in run.batch():
        _close(one, recorded[one.name][0])
    return recorded[run.name][0]


def _record(run: Run) -> tuple[Outcome, Exception | None]:
    """Write report and outcome into an attempt's folder; the outcome even if a picture cannot be drawn, which is the error that is returned."""
    outcome, failure = outcome_of(run), None
    try:
        write_atomic(run.folder / REPORT, _render(run, outcome, _grid_file(run)))
    except Exception as error:
        outcome, failure = outcome.model_copy(update={"report": None}), error
    outcome.write(run.folder / "outcome.json")
    return outcome, failure


def record_missing_run(workdir: Workdir, request: ErasureRequest) -> Outcome:
    """Write the outcome of a run that ended before an attempt could be opened."""
    error = read_failure(workdir.root) or Failure(
        step="check_prerequisites", message="the run ended before an attempt was opened, without saying why: read the step's log.", exit_code=1
    )
    outcome = Outcome(
        verdict=None,
        attempt=None,
        forget=ForgetOutcome(label=request.label, n=None, detections=None, upper=None),
        retain=None,
        champion=None,
        forget_set=None,
        report=None,
        seconds={},
        error=error,
    )
    outcome.write(workdir.outcome)
    return outcome


def outcome_of(run: Run) -> Outcome:
    """What came of an attempt, from its records alone."""
    plan, verdict, exported = run.plan(), run.find(VerdictRecord), run.find(ExportedRecord)
    forget_set = run.find(ForgetSetRecord)
    decided = final_verdict(verdict.verdict if verdict else None, exported)
    champion, requests, certificate = _champion(run), answered(run), run.find(CertificateRecord)
    owed = bool(requests) and (certificate is None or certificate.phase != "final")
    error = next((failure for one in (run, *run.others()) if (failure := read_failure(one.folder)) is not None), None)
    if error is None and champion is None and decided in (None, Verdict.PASS):
        error = _held_back(run)
    if error is None and (owed if champion else decided in (None, Verdict.PASS)):
        error = Failure(step=_next_step(run), message="the step ended without saying why, it may have been killed: read its log.", exit_code=1)
    return Outcome(
        verdict=decided,
        attempt=plan.attempt,
        forget=_forget(run, plan.request.label, verdict),
        retain=_retain(run, verdict),
        champion=champion,
        forget_set=ForgetSetOutcome(version=forget_set.version, count=forget_set.count) if forget_set else None,
        report=REPORT,
        seconds=_in_order(read_seconds(run)),
        error=error if champion is None or owed else None,
        certificate=None if certificate is None else _in_workdir(run, CERTIFICATE),
        public_key=None if certificate is None else _in_workdir(run, PUBLIC),
        request=requests[0].id if requests else None,
    )


def _held_back(run: Run) -> Failure | None:
    """Why nothing came of a model that this attempt's gate has passed: the gate of another attempt of its batch has not."""
    for other in run.others():
        verdict, exported = other.find(VerdictRecord), other.find(ExportedRecord)
        decided = final_verdict(verdict.verdict if verdict else None, exported)
        if decided in (Verdict.FAIL, Verdict.INCONCLUSIVE):
            message = (
                f"class {other.plan().request.label}, which was erased in the same run, ended {decided}, so its model is not promoted: "
                "run `erasediff process` again, which leaves that class out."
            )
            code = ExitCode.GATE_FAIL if decided is Verdict.FAIL else ExitCode.GATE_INCONCLUSIVE
            return Failure(step="gate", message=message, exit_code=int(code))
    return None


def _in_workdir(run: Run, name: str) -> str:
    return str((run.folder / name).relative_to(run.workdir.root))


def _in_order(seconds: dict[str, float]) -> dict[str, float]:
    return {step: seconds[step] for step in ("check_prerequisites", *STEPS) if step in seconds}


def _next_step(run: Run) -> str:
    order = (
        ("train_base", BaseRecord),
        ("version_forget_set", ForgetSetRecord),
        ("erase", ErasedRecord),
        ("evaluate", Measurements),
        ("gate", VerdictRecord),
        ("export_onnx", ExportedRecord),
        ("register", RegisteredRecord),
        ("roll_out", RollOutRecord),
    )
    missing = next((step for step, kind in order if run.find(kind) is None), None)
    if missing is not None or _champion(run) is None:
        return missing or "promote"
    purge = run.find(PurgeRecord)
    return "certify" if purge is not None and purge.complete else "purge"


def _check(verdict: VerdictRecord | None, id: str) -> Check | None:
    return next((check for check in verdict.checks if check.id == id), None) if verdict else None


def _forget(run: Run, label: int, verdict: VerdictRecord | None) -> ForgetOutcome:
    measured, check = run.find(Measurements), _check(verdict, "F1")
    found = measured.forget_erased if measured else None
    return ForgetOutcome(
        label=label, n=found.n if found else None, detections=found.detections if found else None, upper=check.bound if check else None
    )


def _retain(run: Run, verdict: VerdictRecord | None) -> RetainOutcome | None:
    measured = run.find(Measurements)
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


def _champion(run: Run) -> ChampionOutcome | None:
    """The champion, if this attempt's promotion ended.

    The step's own time says that it did; the promotion record is written before the alias moves.
    """
    registered, promotion = run.find(RegisteredRecord), run.find(PromotionRecord)
    if registered is None or promotion is None or "promote" not in read_seconds(run):
        return None
    return ChampionOutcome(
        name=registered.name, version=registered.version, weights_sha256=registered.weights_sha256, onnx_sha256=registered.onnx_sha256
    )


def _close(run: Run, outcome: Outcome) -> None:
    from erasediff.tracking import Tracking

    tracking, run_id = Tracking(run.workdir.root), run.plan().mlflow_run_id
    tracking.log_artifact(run_id, run.folder / "outcome.json")
    if outcome.report is not None:
        tracking.log_artifact(run_id, run.folder / REPORT)
    tracking.end_run(run_id, "FINISHED" if outcome.error is None else "FAILED")


def report_with(run: Run, grid: Path) -> bytes:
    """The report of an attempt whose outcome was recorded, with the samples of another file."""
    return _render(run, Outcome.read(run.folder / "outcome.json"), grid)


def _render(run: Run, outcome: Outcome, grid: Path | None) -> bytes:
    from erasediff.evaluate.report import render_report

    return render_report(_content(run, outcome, grid)).encode()


def _grid_file(run: Run) -> Path | None:
    """The samples that may be shown: those that a purge left, or all that were kept."""
    return next((path for name in reversed(GRIDS) if (path := run.folder / name).is_file()), None)


def _content(run: Run, outcome: Outcome, grid: Path | None) -> ReportContent:
    from erasediff.evaluate.report import ReportContent

    plan, config = run.plan(), run.config()
    verdict, exported, measured = run.find(VerdictRecord), run.find(ExportedRecord), run.find(Measurements)
    retained, forgotten = _grids(run, measured, grid)
    return ReportContent(
        title=f"Erasure of class {plan.request.label} from {plan.request.dataset}",
        outcome=outcome,
        checks=(*(verdict.checks if verdict else ()), *(exported.checks if exported else ())),
        curves=_curves(run),
        retained=retained,
        forgotten=forgotten,
        chain=_chain(run),
        config=dump_yaml(config.shown()),
        accuracy=measured.retained.accuracy if measured else (),
        probes=_probes(measured),
        level=confidence(run),
        reported=verdict.reported if verdict else (),
        attacks=measured.attacks if measured else None,
    )


def confidence(run: Run) -> float:
    """The confidence of each bound: that of the try, where the gate has judged it, for later tries are judged harder."""
    verdict = run.find(VerdictRecord)
    return 1 - (run.policy().alpha if verdict is None else verdict.alpha)


def _probes(measured: Measurements | None) -> tuple[Probed, ...]:
    if measured is None:
        return ()
    return (*((measured.unasked,) if measured.unasked else ()), *measured.probes)


def _curves(run: Run) -> Curves | None:
    import numpy as np

    from erasediff.evaluate.report import Curves

    erased = run.find(ErasedRecord)
    if erased is None:
        return None
    with np.load(run.folder / erased.curves.uri, allow_pickle=False) as stored:
        curves = {name: stored[name] for name in stored.files}
    return Curves(step=np.arange(1, len(curves["retain_loss"]) + 1, dtype=np.float64), **curves)


def _grids(run: Run, measured: Measurements | None, grid: Path | None) -> tuple[SampleGrid | None, SampleGrid | None]:
    import numpy as np

    from erasediff.data.datasets import load_dataset
    from erasediff.evaluate.report import SampleGrid

    if measured is None or grid is None:
        return None, None
    names = load_dataset(run.config().dataset).class_names
    with np.load(grid, allow_pickle=False) as stored:
        labels = tuple(int(label) for label in stored["labels"])
        retained = SampleGrid(labels, tuple(names[c] for c in labels), stored["retained_before"], stored["retained_after"])
        if "forgotten_before" not in stored.files:
            return retained, None
        label = measured.label
        return retained, SampleGrid((label,), (names[label],), stored["forgotten_before"], stored["forgotten_after"])


def _chain(run: Run) -> tuple[tuple[str, str, str], ...]:
    plan = run.plan()
    chain = [
        ("request", "what was asked to be forgotten", plan.request.digest()),
        ("config", "how it was to be done", plan.config_digest),
        ("policy", "what the gate would ask, fixed before the erasure", plan.policy_digest),
        ("plan", "the attempt, with its seeds committed", plan.digest()),
    ]
    if (base := run.find(BaseRecord)) is not None:
        chain.append(("base weights", f"version {base.version} of {base.name}", base.model.weights.sha256))
    if (forget_set := run.find(ForgetSetRecord)) is not None:
        chain.append(("forget set", f"{forget_set.count} images, versioned by DVC", forget_set.version))
    if (erased := run.find(ErasedRecord)) is not None:
        chain.append(("erased weights", f"after {erased.steps} steps", erased.model.weights.sha256))
    if (measured := run.find(Measurements)) is not None:
        chain.append(("detector", "the classifier that measured", measured.detector.sha256))
        chain.append(("measurements", "what was measured", measured.digest()))
    if (verdict := run.find(VerdictRecord)) is not None:
        chain.append(("verdict", str(verdict.verdict), verdict.digest()))
    if (exported := run.find(ExportedRecord)) is not None:
        chain.append(("ONNX graph", "what is served", exported.onnx.sha256))
    if (rolled_out := run.find(RollOutRecord)) is not None and rolled_out.backend != "none":
        chain.append(("roll-out", f"{rolled_out.outcome}, {rolled_out.revision or rolled_out.uri}", rolled_out.digest()))
    if (promotion := run.find(PromotionRecord)) is not None:
        chain.append(("promotion", f"version {promotion.version} after version {promotion.previous_version}", promotion.digest()))
    return tuple(chain)
