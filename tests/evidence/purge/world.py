"""A workdir in which everything has happened but the purge: real DVC, real MLflow, real records; the models are a few bytes.

One forget image, the base's weights, a grid of samples and rows of MLflow hold a canary: bytes that nothing else on this machine holds.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.export.solvers import solver_table
from erasediff.files import sha256_bytes, sha256_file, sha256_folder
from erasediff.models.process import squared_cosine
from erasediff.records.base import Pointer
from erasediff.records.config import DatasetConfig, PurgeConfig, ReportConfig, RunConfig
from erasediff.records.core import (
    BaseRecord,
    ErasedRecord,
    ErasureRequest,
    ExportedRecord,
    ModelRecord,
    PlanRecord,
    RegisteredRecord,
    Verdict,
    VerdictRecord,
)
from erasediff.records.policy import load_policy
from erasediff.serve.solver import save_table
from erasediff.steps.perform import perform
from erasediff.steps.promote import promote
from erasediff.steps.roll_out import roll_out
from erasediff.steps.table import step_named
from erasediff.steps.train_base import model_tags
from erasediff.tracking import CHAMPION, Tracking
from tests.digits import DIGITS
from tests.exported import SOLVER, describe

POLICY = load_policy(Path(__file__).parents[3] / "policies/class-conditional.yaml")
KEY, DIGEST, LABEL, OTHER = bytes(32), "0" * 64, 2, 1


@dataclass
class World:
    """See the module."""

    root: Path
    canary: bytes = field(default_factory=lambda: os.urandom(48))
    purge: PurgeConfig = field(default_factory=PurgeConfig)

    def __post_init__(self) -> None:
        """Lay the dataset down, open the workdir and connect to MLflow."""
        self.workdir = Workdir.open(self.root / "work")
        self.dataset = self.root / "dataset"
        self._write_dataset()
        self.tracking = Tracking(self.workdir.root)

    def _write_dataset(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
        labels = (np.arange(40) % 4).astype(np.int64)
        image = images[np.flatnonzero(labels == LABEL)[3]]
        image.reshape(-1)[: len(self.canary)] = np.frombuffer(self.canary, dtype=np.uint8)
        self.dataset.mkdir()
        np.savez(self.dataset / "all.npz", images=images, labels=labels)

    @property
    def config(self) -> RunConfig:
        dataset = DatasetConfig(name="numbers", kind="shards", path=str(self.dataset))
        return RunConfig(model_name="numbers", dataset=dataset, report=ReportConfig(show_forgotten=True), purge=self.purge)

    def model(self, name: str, epoch: int, forgotten: tuple[str, ...], content: bytes) -> ModelRecord:
        """A folder of a model."""
        folder = self.workdir.models / sha256_bytes(content)[:16]
        (folder / "unet").mkdir(parents=True, exist_ok=True)
        (folder / "unet" / "weights").write_bytes(content)
        (folder / "model_index.json").write_text(name)
        pointer = Pointer(uri=folder.name, sha256=sha256_bytes(content))
        return ModelRecord(
            dataset="numbers", class_names=DIGITS[:4], forgotten=forgotten, epoch=epoch, weights=pointer, folder_sha256=sha256_folder(folder)
        )

    def base(self) -> BaseRecord:
        """The champion that knows everything, in the registry as version 1."""
        model = self.model("base", 0, (), b"base " + self.canary)
        champion = self.tracking.alias("numbers", CHAMPION)
        if champion is None:
            run_id = self.tracking.start_run("train base", {"canary": self.canary.hex()})
            self.tracking.log_curves(run_id, {"base_loss": [1.0, 0.5]})
            source = self.tracking.log_artifacts(run_id, self.workdir.models / model.weights.uri, "model")
            self.tracking.log_model_record(run_id, model)
            version = self.tracking.register("numbers", source, run_id, model_tags(model) | {"canary": self.canary.hex()})
            self.tracking.set_alias("numbers", CHAMPION, version)
            champion = self.tracking.alias("numbers", CHAMPION)
        return BaseRecord(name="numbers", version=str(champion.version), model=model)

    def open(self, name: str, label: int = LABEL, base: BaseRecord | None = None, number: int = 1) -> Attempt:
        """An attempt with its base and its forget set in the remote."""
        from erasediff.data.datasets import load_dataset

        request = ErasureRequest(dataset="numbers", label=str(label))
        mlflow_run = self.tracking.start_run(f"erase {name}", {"erasediff.request": request.digest()})
        plan = PlanRecord(
            made_from={"dataset": load_dataset(self.config.dataset).digest()},
            run=name,
            attempt=number,
            request=request,
            position=label,
            request_id=request.digest(),
            config_digest=self.config.digest(),
            policy_digest=POLICY.digest(),
            seed_commitment=sha256_bytes(KEY),
            mlflow_run_id=mlflow_run,
        )
        run = self.workdir.open_attempt(plan, self.config, POLICY, KEY)
        base = base or self.base()
        base.model_copy(update={"made_from": {"plan": plan.digest()}}).write(run.path(BaseRecord))
        perform(step_named("version_forget_set"), run)
        return run

    def erase(self, run: Attempt, verdict: Verdict = Verdict.PASS) -> ErasedRecord:
        """What an erasure leaves, with everything that a killed one leaves too."""
        base, label = run.need(BaseRecord), run.plan().request.label
        model = self.model("erased", base.model.epoch + 1, (*base.model.forgotten, label), f"erased {run.name}".encode())
        (run.folder / "curves.npz").write_bytes(b"curves")
        curves = Pointer(uri="curves.npz", sha256=DIGEST)
        erased = ErasedRecord(model=model, steps=1, forward_passes=1, backward_passes=1, ema_base_share=0, curves=curves)
        erased.write(run.path(ErasedRecord))
        judged = VerdictRecord(
            verdict=verdict, attempt=1, alpha=0.05, alpha_spent=0.05, evaluation_key=KEY.hex(), policy_digest=POLICY.digest(), checks=()
        )
        judged.write(run.path(VerdictRecord))
        (run.folder / "checkpoint.safetensors").write_bytes(b"moments " + self.canary)
        (run.folder / ".checkpoint.safetensors.abc.part").write_bytes(b"moments " + self.canary)
        (run.folder / ".scratch" / ".forget-store" / ".dvc" / "cache").mkdir(parents=True)
        (run.folder / ".scratch" / ".forget-store" / ".dvc" / "cache" / "plain").write_bytes(self.canary)
        (run.folder / ".scratch" / "shard-00000.npz").write_bytes(self.canary)
        (run.folder / "erase.traceback.log").write_bytes(self.canary)
        run.detector().parent.mkdir(exist_ok=True)
        run.detector().write_bytes(b"detector " + self.canary)
        self._samples(run)
        self._report(run)
        return erased

    def _samples(self, run: Attempt) -> None:
        shown = np.frombuffer(self.canary, dtype=np.uint8).reshape(1, 1, -1)
        labels = np.array([label for label in range(4) if label != run.plan().position])
        grids = {"retained_before": np.zeros((len(labels), 1, 48), np.uint8), "retained_after": np.zeros((len(labels), 1, 48), np.uint8)}
        np.savez(run.folder / "samples.npz", labels=labels, forgotten_before=shown, forgotten_after=shown, **grids)

    def _report(self, run: Attempt) -> None:
        path = self.root / "report.html"
        path.write_bytes(b"report " + self.canary)
        self.tracking.log_artifact(run.plan().mlflow_run_id, path)
        path.unlink()

    def register(self, run: Attempt) -> RegisteredRecord:
        """Export and register what passed."""
        erased = run.need(ErasedRecord).model
        folder = run.folder / "onnx"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(f"graph {run.name}".encode())
        save_table(SOLVER, solver_table("ddim", 2, squared_cosine(1000)), folder / "solvers.npz")
        served = describe(
            folder,
            dataset="numbers",
            epoch=erased.epoch,
            class_names=erased.class_names,
            forgotten=erased.forgotten,
            weights_sha256=erased.weights.sha256,
        )
        exported = ExportedRecord(
            onnx=served.onnx,
            solvers=served.solvers,
            solver=SOLVER,
            weights_sha256=erased.weights.sha256,
            parity=(),
            forget_onnx=None,
            verdict=Verdict.PASS,
            checks=(),
        )
        exported.write(run.path(ExportedRecord))
        source = self.tracking.log_artifacts(run.plan().mlflow_run_id, self.workdir.models / erased.weights.uri, "model")
        self.tracking.log_artifacts(run.plan().mlflow_run_id, folder, "onnx")
        self.tracking.log_model_record(run.plan().mlflow_run_id, erased)
        onnx = sha256_file(folder / "model.onnx")
        known = {"verdict": "PASS", "onnx_sha256": onnx, "record.verdict": DIGEST, "forget_set_version": "a.dir"}
        version = self.tracking.register(
            "numbers", source, run.plan().mlflow_run_id, model_tags(erased) | {f"erasediff.{key}": said for key, said in known.items()}
        )
        record = RegisteredRecord(name="numbers", version=version, weights_sha256=erased.weights.sha256, onnx_sha256=onnx, source=source)
        record.write(run.path(RegisteredRecord))
        return record

    def end(self, run: Attempt) -> None:
        """An outcome, as the exit handler writes one; its content does not matter here."""
        (run.folder / "outcome.json").write_text("{}")

    def promoted(self, name: str = "winner", label: int = LABEL, base: BaseRecord | None = None) -> Attempt:
        """An attempt that went well up to its promotion."""
        run = self.open(name, label, base)
        self.erase(run)
        self.register(run)
        roll_out(run)
        promote(run)
        self.end(run)
        return run

    def failed(self, name: str = "loser", label: int = LABEL) -> Attempt:
        """An attempt that the gate has failed."""
        run = self.open(name, label)
        self.erase(run, Verdict.FAIL)
        self.end(run)
        return run

    def champion_model(self) -> ModelRecord:
        return self.tracking.recorded_model(self.tracking.alias("numbers", CHAMPION))


def holders(canary: bytes, *folders: Path) -> list[str]:
    """Every file below some folders that holds a canary, as bytes or in hex; also by its name."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                if canary in data or canary.hex().encode() in data or canary.hex() in path.name:
                    found.append(path.relative_to(folder).as_posix())
    return found


def tree(folder: Path) -> dict[str, str]:
    """Every file with the digest of its content; MLflow's database is compared by what is in it."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def copy(source: Path, target: Path) -> Path:
    """A workdir with everything in it, elsewhere."""
    shutil.copytree(source, target, symlinks=True)
    return target
