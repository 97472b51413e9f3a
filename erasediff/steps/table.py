"""The table of steps: the only list of them, in the order in which a run performs them.

    check_prerequisites -> train_base -> version_forget_set -> erase -> evaluate -> gate -> export_onnx
        -> register -> roll_out -> promote -> (certify -> purge -> certify, if the attempt has requests)

``regate`` runs if there are no open requests; ``record_outcome`` always runs. The command line, the components and their catalogue, Kubeflow's task
settings, ``dvc.yaml``, the journal, the outcome and the documents read this table. To add a step, add a row here and the function
``erasediff.steps.<name>.<name>(attempt) -> Record``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import Any, Protocol, TypeVar

from erasediff.records import core
from erasediff.records.base import Record, Strict
from erasediff.records.certificate import CertificateRecord
from erasediff.records.config import RunConfig
from erasediff.records.measurements import Measurements
from erasediff.records.policy import GatePolicy
from erasediff.records.purging import PurgeRecord
from erasediff.records.regate import RegateRecord
from erasediff.records.requests import Reason, State
from erasediff.records.settings import LedgerSettings, LogSettings, RetrySettings, RollOutSettings, RunSettings, ServiceSettings, SigningSettings
from erasediff.records.sizes import PROFILE_SIZES

CHECKPOINT = "checkpoint.safetensors"
"""The checkpoint of a killed erasure. It holds optimiser moments, which depend on the forget images."""


class Role(StrEnum):
    """The role of a step in a run."""

    OPENS = "opens"
    """It checks the documents and opens the attempt."""
    WORKS = "works"
    """It makes a record for every attempt of the batch."""
    DECIDES = "decides"
    """Like WORKS; the run ends here if the verdict is not PASS for every attempt of the batch."""
    PROMOTES = "promotes"
    """Like WORKS; the following steps run only if the attempt has requests."""
    ANSWERS = "answers"
    """It runs for each attempt that has requests, independently: one that has to wait does not block the others."""
    IDLES = "idles"
    """It runs instead of all others if there are no open requests."""
    CLOSES = "closes"
    """It runs at the end, even after a failure."""


@dataclass(frozen=True)
class Size:
    """The resources of a step. Requests equal limits, so that its pod is evicted last.

    ``cpu`` and ``memory`` are Kubernetes quantities; ``minutes`` is the time limit.
    """

    cpu: str
    memory: str
    gpus: int = 0
    minutes: int = 30


SMALL = Size(cpu="1", memory="2Gi")
MEDIUM = Size(cpu="2", memory="4Gi", minutes=120)
ROLLING = Size(cpu="1", memory="2Gi", minutes=60)  # leaves time to roll back after a roll-out that fails late
_GPU = PROFILE_SIZES["gpu"]
TRAINING = Size(cpu=_GPU.cpu, memory=_GPU.memory, gpus=_GPU.gpus, minutes=24 * 60)
"""For steps that train and sample; a profile gives them another size and image, and a run's parameters another size."""


Facts = Mapping[str, str | int | bool]
R = TypeVar("R", bound=Record)


class Records(Protocol):
    """An attempt's records."""

    def need(self, kind: type[R]) -> R:
        """The record of this kind."""
        ...


@dataclass(frozen=True)
class Move:
    """How a finished step moves a request: from which states, to which state, with which facts in the ledger."""

    before: tuple[State, ...]
    after: State
    facts: Callable[[Records], Facts]


_OF_EVERY_STEP = (*LogSettings.variables(), *RetrySettings.variables(), *RunSettings.variables())
ENVIRONMENT = (*_OF_EVERY_STEP, *ServiceSettings.variables())
_ROLL_OUT = RollOutSettings.variables()
_STORE = ("AWS_ENDPOINT_URL_S3",)  # the address of the S3 store, if it is not Amazon's
_SIGNER = SigningSettings.variables()  # lets steps without the key check that one is set
_RELEASE = (*ENVIRONMENT, *LedgerSettings.variables(), *_ROLL_OUT, *_SIGNER)
_TRACKING_TOKEN = ("MLFLOW_TRACKING_TOKEN",)
_LEDGER = ("ERASEDIFF_LEDGER",)  # the address may hold a password
_PASSPHRASE = ("ERASEDIFF_SIGNING_PASSPHRASE",)  # of the key, or the token's PIN
_STORES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *_TRACKING_TOKEN)


@dataclass(frozen=True)
class Step:
    """A row of the table.

    Attributes:
        name: the name of its module, function, component and DVC stage; the subcommand has dashes for underscores.
        title: its name for people who watch a run.
        help: one sentence, for the command line and the catalogue of components.
        role: its role in a run.
        makes: the kind of record that it makes.
        inputs: the kinds of records and documents that its record depends on; the step is up to date if its record was made from exactly these.
            Empty for a step that checks and writes its record itself.
        inputs_of_others: a kind of record of the batch's other attempts that it depends on too.
        size: its resources.
        credentials: variables from the namespace's Secret.
        settings: variables from the namespace's ConfigMap.
        mounts_signing_key: whether the signing key is mounted, for a step that signs; no other step has it.
        mounts_approver_keys: whether the approvers' public keys are mounted.
        scratch_files: files in the attempt's folder that are deleted once its record exists.
        distributed: whether a profile may run it as a TrainJob on several nodes.
        again_after: a step after which it runs a second time.
        move: how it moves the attempt's requests when it ends.
        sent_back: the reason for which requests are sent back, by the verdict of its record.
    """

    name: str
    title: str
    help: str
    role: Role = Role.WORKS
    makes: type[Record] | None = None
    inputs: tuple[type[Strict], ...] = ()
    inputs_of_others: type[Record] | None = None
    size: Size = SMALL
    credentials: tuple[str, ...] = ()
    settings: tuple[str, ...] = ENVIRONMENT
    mounts_signing_key: bool = False
    mounts_approver_keys: bool = False
    scratch_files: tuple[str, ...] = ()
    distributed: bool = False
    again_after: str | None = None
    move: Move | None = None
    sent_back: Mapping[core.Verdict, Reason] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The subcommand, which is also the name of Kubeflow's task."""
        return self.name.replace("_", "-")

    @property
    def function(self) -> Callable[..., Any]:
        """The function that does the work; imported on access, since some steps import torch or cloud clients."""
        found: Callable[..., Any] = getattr(import_module(f"erasediff.steps.{self.name}"), self.name)
        return found


def _erased(records: Records) -> Facts:
    return {"erased_sha256": records.need(core.ErasedRecord).digest()}


def _judged(records: Records) -> Facts:
    verdict = records.need(core.VerdictRecord)
    return {"verdict": verdict.verdict.value, "verdict_sha256": verdict.digest()}


def _promoted(records: Records) -> Facts:
    return {"epoch": records.need(core.ErasedRecord).model.epoch}


STEPS: tuple[Step, ...] = (
    Step(
        "check_prerequisites",
        "Check prerequisites",
        "Check everything a run needs and open an attempt.",
        role=Role.OPENS,
        makes=core.PlanRecord,
        credentials=(*_TRACKING_TOKEN, *_LEDGER),
        settings=_RELEASE,  # it suppresses labels in the cluster's rules
    ),
    Step(
        "train_base",
        "Train or find the base",
        "Pin the champion as the base; train and register one if there is none.",
        makes=core.BaseRecord,
        inputs=(core.PlanRecord,),
        size=TRAINING,
        credentials=_STORES,
    ),
    Step(
        "version_forget_set",
        "Version the forget set",
        "Split the dataset, version the forget set with DVC and push it.",
        makes=core.ForgetSetRecord,
        inputs=(core.PlanRecord, core.BaseRecord),
        credentials=_STORES,
    ),
    Step(
        "erase",
        "Erase",
        "Make the base forget the class; a killed step resumes from its last checkpoint.",
        makes=core.ErasedRecord,
        inputs=(core.BaseRecord, core.ForgetSetRecord, RunConfig),
        inputs_of_others=core.ForgetSetRecord,
        size=TRAINING,
        credentials=(*_STORES, *_LEDGER),
        scratch_files=(CHECKPOINT,),
        distributed=True,
        move=Move((State.BATCHED,), State.ERASED, _erased),
    ),
    Step(
        "evaluate",
        "Evaluate",
        "Sample the base and the erased model, and measure what the gate's policy names.",
        makes=Measurements,
        inputs=(core.BaseRecord, core.ErasedRecord, GatePolicy),
        size=TRAINING,
        credentials=_TRACKING_TOKEN,
    ),
    Step(
        "gate",
        "Gate",
        "Decide whether the erased model passes: PASS (0), FAIL (10) or INCONCLUSIVE (11).",
        role=Role.DECIDES,
        makes=core.VerdictRecord,
        inputs=(Measurements, GatePolicy, core.BaseRecord),
        credentials=(*_TRACKING_TOKEN, *_LEDGER),
        move=Move((State.ERASED,), State.GATED, _judged),
        sent_back={core.Verdict.FAIL: Reason.GATE_FAILED, core.Verdict.INCONCLUSIVE: Reason.GATE_INCONCLUSIVE},
    ),
    Step(
        "export_onnx",
        "Export to ONNX",
        "Export the erased model to ONNX, gate the graph and sign its manifest: PASS (0), FAIL (10), INCONCLUSIVE (11).",
        role=Role.DECIDES,
        makes=core.ExportedRecord,
        inputs=(core.ErasedRecord, core.VerdictRecord),
        size=MEDIUM,
        credentials=(*_LEDGER, *_PASSPHRASE),
        settings=(*ENVIRONMENT, *_SIGNER),
        mounts_signing_key=True,
        sent_back={core.Verdict.FAIL: Reason.NOT_EXPORTED, core.Verdict.INCONCLUSIVE: Reason.NOT_EXPORTED},
    ),
    Step(
        "register",
        "Register",
        "Register the model that passed in MLflow as the challenger.",
        makes=core.RegisteredRecord,
        inputs=(core.ExportedRecord, core.VerdictRecord),
        credentials=_STORES,
    ),
    Step(
        "roll_out",
        "Roll out",
        "Roll the exported model out if ERASEDIFF_ROLL_OUT_BACKEND is set; a failure is rolled back (12).",
        makes=core.RollOutRecord,
        size=ROLLING,
        credentials=(*_STORES, *_LEDGER),
        settings=(*_RELEASE, *_STORE),
        mounts_approver_keys=True,
    ),
    Step(
        "promote",
        "Promote",
        "Make the challenger the champion.",
        role=Role.PROMOTES,
        makes=core.PromotionRecord,
        credentials=(*_TRACKING_TOKEN, *_LEDGER),
        settings=_RELEASE,
        mounts_approver_keys=True,
        move=Move((State.GATED, State.APPROVED), State.ROLLED_OUT, _promoted),
    ),
    Step(
        "certify",
        "Certify",
        "Issue the signed certificate; it is provisional until the purge is complete, then final.",
        role=Role.ANSWERS,
        makes=CertificateRecord,
        credentials=(*_LEDGER, *_PASSPHRASE),
        settings=(*_OF_EVERY_STEP, *_SIGNER, *_ROLL_OUT),
        mounts_signing_key=True,
        again_after="purge",
    ),
    Step(
        "purge",
        "Purge",
        "Delete the forgotten data from every store and check that they are gone; 13: unfinished, run again.",
        role=Role.ANSWERS,
        makes=PurgeRecord,
        size=MEDIUM,
        credentials=(*_STORES, *_LEDGER, "ERASEDIFF_MLFLOW_BACKEND_STORE_URI"),
        settings=(*ENVIRONMENT, *_ROLL_OUT, *_STORE),
    ),
    Step(
        "regate",
        "Re-run the gate",
        "Re-run the gate on the deployed model with fresh seeds, for every class it has forgotten.",
        role=Role.IDLES,
        makes=RegateRecord,
        size=MEDIUM,
        credentials=_STORES,
    ),
    Step(
        "record_outcome",
        "Record the outcome",
        "Write outcome.json and report.html of an attempt, even after a failure.",
        role=Role.CLOSES,
        credentials=_STORES,
    ),
)


def step_named(name: str) -> Step:
    """The row with this name."""
    return next(row for row in STEPS if row.name == name)


def step_for(role: Role) -> Step:
    """The row with this role; only for roles that one row has."""
    (found,) = (row for row in STEPS if row.role is role)
    return found


def maker_of(kind: type[Record]) -> Step:
    """The step that makes a kind of record."""
    return next(row for row in STEPS if row.makes is kind)


def work_steps() -> Iterator[Step]:
    """The steps between opening and closing an attempt, in the order of a run; a step may come twice."""
    for row in STEPS:
        if row.role in (Role.WORKS, Role.DECIDES, Role.PROMOTES, Role.ANSWERS):
            yield row
            yield from (again for again in STEPS if again.again_after == row.name)
