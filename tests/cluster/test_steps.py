"""The lies: 'promoted', in the registry and not in the cluster; 'rolled back', the other way round. A real cluster and a real MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput, RolledBack
from erasediff.files import sha256_file
from erasediff.records.core import (
    BaseRecord,
    ErasureRequest,
    ExportedRecord,
    ForgetSetRecord,
    ModelRecord,
    PlanRecord,
    Pointer,
    RegisteredRecord,
    RollOutRecord,
    Verdict,
    VerdictRecord,
)
from erasediff.rollout.store import Exported
from erasediff.steps.promote import promote
from erasediff.steps.roll_out import roll_out
from erasediff.steps.rollback import rollback
from erasediff.tracking import CHAMPION, Tracking
from tests.cluster.conftest import Place
from tests.digits import DIGITS
from tests.exported import SOLVER, describe

DIGEST = "0" * 64


@pytest.fixture
def settled(place: Place, monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> Place:
    """The environment says what the place is."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    for name, value in place.settings.model_dump(exclude_none=True).items():
        monkeypatch.setenv(f"ERASEDIFF_ROLL_OUT_{name.upper()}", str(value))
    return place


class Attempts:
    """Attempts that have come as far as a registered version of a real export."""

    def __init__(self, root: Path) -> None:
        self.workdir = Workdir.open(root)
        self.tracking = Tracking(root)

    def attempt(self, name: str, exported: Exported, base: str) -> Attempt:
        run_id = self.tracking.start_run(name, {})
        request = ErasureRequest(dataset="digits", label="8")
        digests = {"config_digest": DIGEST, "policy_digest": DIGEST, "seed_commitment": DIGEST}
        PlanRecord(run=name, attempt=1, request=request, position=8, request_id=DIGEST, mlflow_run_id=run_id, **digests).write(
            self.workdir.runs / name / "plan.json"
        )
        run = self.workdir.attempt(name)
        shutil.copytree(exported.folder, run.folder / "onnx")
        served = exported.model
        model = ModelRecord(
            dataset="digits", class_names=DIGITS, epoch=served.epoch, weights=Pointer(uri="w", sha256=served.weights_sha256), folder_sha256=DIGEST
        )
        verdict = VerdictRecord(verdict=Verdict.PASS, attempt=1, alpha=0.05, alpha_spent=0.05, evaluation_key=DIGEST, policy_digest=DIGEST, checks=())
        self.tracking.log_artifacts(run_id, run.folder / "onnx", "onnx")
        version = self.tracking.register(
            "digits",
            str(run.folder / "onnx"),
            run_id,
            {
                "erasediff.epoch": str(model.epoch),
                "erasediff.weights_sha256": served.weights_sha256,
                "erasediff.onnx_sha256": served.onnx.sha256,
                "erasediff.verdict": "PASS",
                "erasediff.record.verdict": verdict.digest(),
                "erasediff.forget_set_version": f"{0:032x}.dir",
            },
        )
        verdict.write(run.path(VerdictRecord))
        BaseRecord(name="digits", version=base, model=model).write(run.path(BaseRecord))
        ForgetSetRecord(
            label=8,
            version=f"{0:032x}.dir",
            remote="x",
            manifest_sha256=DIGEST,
            count=1,
            retain_count=1,
            gone_count=0,
            forget_indices_hmac=DIGEST,
            retain_indices_hmac=DIGEST,
        ).write(run.path(ForgetSetRecord))
        ExportedRecord(
            onnx=served.onnx,
            solvers=served.solvers,
            solver=SOLVER,
            weights_sha256=DIGEST,
            parity=(),
            forget_onnx=None,
            verdict=Verdict.PASS,
            checks=(),
        ).write(run.path(ExportedRecord))
        digests = {"weights_sha256": served.weights_sha256, "onnx_sha256": served.onnx.sha256}
        RegisteredRecord(name="digits", version=version, source="x", **digests).write(run.path(RegisteredRecord))
        return run

    def champion(self) -> str:
        return str(self.tracking.alias("digits", CHAMPION).version)


def test_registry_and_cluster_go_together(settled: Place, versions: tuple[Exported, Exported], tmp_path: Path) -> None:
    """Rolled out and promoted; then a version that does not serve: no promotion; then back to an admissible one."""
    attempts = Attempts(tmp_path / "work")
    first = attempts.attempt("first", versions[0], base="1")
    attempts.tracking.set_alias("digits", CHAMPION, "1")
    with pytest.raises(BadInput, match="run `erasediff roll-out` first"):
        promote(first)
    record = roll_out(first, settled.address)
    assert (record.backend, record.outcome) == ("deployment", "promoted")
    assert sha256_file(Path(record.uri) / "model.onnx") == record.onnx_sha256
    assert roll_out(first, settled.address) == record
    promote(first)
    assert attempts.champion() == "1"

    second = attempts.attempt("second", versions[1], base="1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERASEDIFF_ROLL_OUT_IMAGE", "erasediff-no-such-image:1")
        with pytest.raises(RolledBack, match="ErrImageNeverPull"):
            roll_out(second, settled.address)
    written = second.need(RollOutRecord)
    assert written.outcome == "rolled back"
    assert "ErrImageNeverPull" in written.reason
    with pytest.raises(BadInput, match="rolled back"):
        promote(second)
    assert attempts.champion() == "1"
    assert settled.served() == {versions[0].model.onnx.sha256}

    assert roll_out(second, settled.address).outcome == "promoted"
    promote(second)
    assert attempts.champion() == "2"
    with pytest.raises(BadInput, match="version 1 is of epoch 1, below 2"):
        rollback(attempts.workdir, "digits", address=settled.address)

    folder = tmp_path / "again"
    shutil.copytree(versions[0].folder, folder)
    describe(folder, epoch=2, forgotten=("3", "8"), weights_sha256="3" * 64)
    attempts.attempt("third", Exported.read(folder), base="2")
    went = rollback(attempts.workdir, "digits", address=settled.address)
    assert (went.version, went.previous, attempts.champion()) == ("3", "2", "3")
    assert settled.served() == {versions[0].model.onnx.sha256}
