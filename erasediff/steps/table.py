"""The steps of an erasure, a row each, in the order of the way of the data: the one list of them.

    check_prerequisites -> train_base -> version_forget_set -> erase -> evaluate -> gate -> export_onnx
        -> register -> roll_out -> promote -> (certify -> purge -> certify, where requests are answered)

``regate`` runs where nothing is asked, and ``record_outcome`` whatever happened. The command line, the components and their catalogue, Kubeflow's
settings of a task, ``dvc.yaml``, the journal, the outcome and the documents read this table. Whoever adds a step adds a row here and the function
``erasediff.steps.<name>.<name>(attempt) -> Record``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import Any, Protocol, TypeVar

from erasediff.records import nouns
from erasediff.records.base import Record, Strict
from erasediff.records.certificate import CertificateRecord
from erasediff.records.config import RunConfig
from erasediff.records.measurements import Measurements
from erasediff.records.policy import GatePolicy
from erasediff.records.purging import PurgeRecord
from erasediff.records.regate import RegateRecord
from erasediff.records.requests import Reason, State

CHECKPOINT = "checkpoint.safetensors"
"""Of a killed erasure. It holds optimiser moments, which are functions of the forget images."""


class Role(StrEnum):
    """What a step is to the run that it belongs to."""

    OPENS = "opens"
    """It checks the documents and opens the attempt that the others work on."""
    WORKS = "works"
    """It makes a record for every attempt of the batch."""
    DECIDES = "decides"
    """It works, and what follows runs only if its record says PASS of every attempt of the batch."""
    PROMOTES = "promotes"
    """It works, and tells whether the attempt answers requests."""
    ANSWERS = "answers"
    """It runs only where requests are answered, for each of them apart: one that has to wait keeps no other from its end."""
    IDLES = "idles"
    """It runs in place of all others where nothing is asked."""
    CLOSES = "closes"
    """It runs whatever happened before."""


@dataclass(frozen=True)
class Size:
    """What a step asks of its node; requests are limits, so that a pod is never the first to be evicted.

    ``cpu`` and ``memory`` are Kubernetes quantities, ``minutes`` the time after which the step is ended.
    """

    cpu: str
    memory: str
    gpus: int = 0
    minutes: int = 30


SMALL = Size(cpu="1", memory="2Gi")
MEDIUM = Size(cpu="2", memory="4Gi", minutes=120)
ROLLING = Size(cpu="1", memory="2Gi", minutes=60)  # a roll-out that ends in its last minute still has to go back
TRAINING = Size(cpu="4", memory="16Gi", gpus=1, minutes=24 * 60)
"""The steps that train and sample; a profile may give them another size and image."""


Facts = Mapping[str, str | int | bool]
R = TypeVar("R", bound=Record)


class Records(Protocol):
    """Whoever has the records of an attempt."""

    def need(self, kind: type[R]) -> R:
        """The record of this kind."""
        ...


@dataclass(frozen=True)
class Move:
    """Where the end of a step takes a request from and to, and what the ledger writes down of it."""

    before: tuple[State, ...]
    after: State
    facts: Callable[[Records], Facts]


ENVIRONMENT = ("MLFLOW_TRACKING_URI", "ERASEDIFF_DVC_REMOTE", "ERASEDIFF_DVC_REMOTE_ENDPOINT_URL")
_ROLL_OUT = tuple(  # what the roll-out and the promotion after it have to know alike; see RollOutSettings in erasediff/records/settings.py
    f"ERASEDIFF_ROLL_OUT_{name}"
    for name in (
        *("BACKEND", "NAMESPACE", "NAME", "PUBLISH_TO", "CLAIM", "CLAIM_MOUNT", "IMAGE"),
        *("REPLICAS", "SHARE_SECONDS", "MODE", "TIMEOUT_SECONDS"),
    )
)
_STORE = ("AWS_ENDPOINT_URL_S3",)  # where models are published to, if that is not Amazon's S3
_SIGNER = ("ERASEDIFF_SIGNING_KEY", "ERASEDIFF_SIGNING_PUBLIC_KEY")  # whether anybody could sign, for those that have no key
_LEDGER_TERMS = ("ERASEDIFF_LEDGER_ZONE", "ERASEDIFF_LEDGER_OWN_DAYS", "ERASEDIFF_LEDGER_APPROVALS", "ERASEDIFF_LEDGER_APPROVERS")
_RELEASE = (*ENVIRONMENT, *_LEDGER_TERMS, *_ROLL_OUT, *_SIGNER)
_TRACKING_TOKEN = ("MLFLOW_TRACKING_TOKEN",)
_LEDGER = ("ERASEDIFF_LEDGER",)  # an address with a password in it
_STORES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *_TRACKING_TOKEN)


@dataclass(frozen=True)
class Step:
    """A row.

    Attributes:
        name: of its module and function, its component and its stage; the subcommand has dashes for underscores.
        title: what people who watch a run see.
        help: one sentence, for the command line and the catalogue of components.
        role: what it is to a run.
        makes: the kind of record that it makes.
        inputs: the kinds of records and documents whose digests decide its record: it has nothing left to do where its record was made from
            exactly these. Empty for a step that finds out by itself and keeps its own record.
        inputs_of_others: a kind of record of the batch's other attempts that decides it too.
        size: what it asks of its node.
        retries: how often Kubeflow tries it again. Every step finds its own record and does nothing twice, so trying again is always safe. It is
            worth it where a step speaks to a store that may be away for a minute, or is long and may be evicted. A gate decides the same from the
            same numbers, and a second evaluation draws the same committed seeds: neither can be asked until it says PASS. A roll-out that went
            back is a person's to look at.
        credentials: variables from the namespace's Secret.
        settings: variables from the namespace's ConfigMap.
        signs: whether the key of certificates is mounted, which it is nowhere else.
        releases: whether the public keys of who may approve are mounted.
        leaves: files in the attempt's folder that go once its record is there.
        distributed: whether a profile may have it run as a TrainJob on several nodes.
        again_after: a step after which it runs a second time.
        move: what its end means for the requests that the attempt answers.
        sent_back: why the requests wait for another run, by the verdict of its record.
    """

    name: str
    title: str
    help: str
    role: Role = Role.WORKS
    makes: type[Record] | None = None
    inputs: tuple[type[Strict], ...] = ()
    inputs_of_others: type[Record] | None = None
    size: Size = SMALL
    retries: int = 0
    credentials: tuple[str, ...] = ()
    settings: tuple[str, ...] = ENVIRONMENT
    signs: bool = False
    releases: bool = False
    leaves: tuple[str, ...] = ()
    distributed: bool = False
    again_after: str | None = None
    move: Move | None = None
    sent_back: Mapping[nouns.Verdict, Reason] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The subcommand, which is Kubeflow's name of the task as well."""
        return self.name.replace("_", "-")

    @property
    def function(self) -> Callable[..., Any]:
        """What does the work, loaded when it is asked for: some steps import torch, others the clients of a cloud."""
        found: Callable[..., Any] = getattr(import_module(f"erasediff.steps.{self.name}"), self.name)
        return found


def _erased(records: Records) -> Facts:
    return {"erased_sha256": records.need(nouns.ErasedRecord).digest()}


def _judged(records: Records) -> Facts:
    verdict = records.need(nouns.VerdictRecord)
    return {"verdict": verdict.verdict.value, "verdict_sha256": verdict.digest()}


def _promoted(records: Records) -> Facts:
    return {"epoch": records.need(nouns.ErasedRecord).model.epoch}


STEPS: tuple[Step, ...] = (
    Step(
        "check_prerequisites",
        "Check prerequisites",
        "Check everything a run needs and open an attempt.",
        role=Role.OPENS,
        makes=nouns.PlanRecord,
        credentials=(*_TRACKING_TOKEN, *_LEDGER),
        settings=_RELEASE,  # it suppresses what is asked, where it serves
    ),
    Step(
        "train_base",
        "Train or find the base",
        "Pin the champion as the base; train and register one where there is none.",
        makes=nouns.BaseRecord,
        inputs=(nouns.PlanRecord,),
        size=TRAINING,
        retries=2,
        credentials=_STORES,
    ),
    Step(
        "version_forget_set",
        "Version the forget set",
        "Split the dataset, version the forget set with DVC and push it.",
        makes=nouns.ForgetSetRecord,
        inputs=(nouns.PlanRecord, nouns.BaseRecord),
        retries=3,
        credentials=_STORES,
    ),
    Step(
        "erase",
        "Erase",
        "Make the base forget; a killed step goes on from its last checkpoint.",
        makes=nouns.ErasedRecord,
        inputs=(nouns.BaseRecord, nouns.ForgetSetRecord, RunConfig),
        inputs_of_others=nouns.ForgetSetRecord,
        size=TRAINING,
        retries=2,
        credentials=(*_STORES, *_LEDGER),
        leaves=(CHECKPOINT,),
        distributed=True,
        move=Move((State.BATCHED,), State.ERASED, _erased),
    ),
    Step(
        "evaluate",
        "Evaluate",
        "Sample base and erased model and measure what the policy asks about.",
        makes=Measurements,
        inputs=(nouns.BaseRecord, nouns.ErasedRecord, GatePolicy),
        size=TRAINING,
        retries=1,
        credentials=_TRACKING_TOKEN,
    ),
    Step(
        "gate",
        "Gate",
        "Decide PASS (0), FAIL (10) or INCONCLUSIVE (11).",
        role=Role.DECIDES,
        makes=nouns.VerdictRecord,
        inputs=(Measurements, GatePolicy, nouns.BaseRecord),
        credentials=(*_TRACKING_TOKEN, *_LEDGER),
        move=Move((State.ERASED,), State.GATED, _judged),
        sent_back={nouns.Verdict.FAIL: Reason.GATE_FAILED, nouns.Verdict.INCONCLUSIVE: Reason.GATE_INCONCLUSIVE},
    ),
    Step(
        "export_onnx",
        "Export to ONNX",
        "Export the erased model to ONNX and measure the graph: PASS (0), FAIL (10) or INCONCLUSIVE (11).",
        role=Role.DECIDES,
        makes=nouns.ExportedRecord,
        inputs=(nouns.ErasedRecord, nouns.VerdictRecord),
        size=MEDIUM,
        credentials=_LEDGER,
        sent_back={nouns.Verdict.FAIL: Reason.NOT_EXPORTED, nouns.Verdict.INCONCLUSIVE: Reason.NOT_EXPORTED},
    ),
    Step(
        "register",
        "Register",
        "Register the model that passed in MLflow as challenger.",
        makes=nouns.RegisteredRecord,
        inputs=(nouns.ExportedRecord, nouns.VerdictRecord),
        retries=3,
        credentials=_STORES,
    ),
    Step(
        "roll_out",
        "Roll out",
        "Bring the exported model up beside the champion, where ERASEDIFF_ROLL_OUT_BACKEND says how; it serves, or is rolled back (12).",
        makes=nouns.RollOutRecord,
        size=ROLLING,
        credentials=(*_STORES, *_LEDGER),
        settings=(*_RELEASE, *_STORE),
        releases=True,
    ),
    Step(
        "promote",
        "Promote",
        "Make the challenger the champion.",
        role=Role.PROMOTES,
        makes=nouns.PromotionRecord,
        retries=3,
        credentials=(*_TRACKING_TOKEN, *_LEDGER),
        settings=_RELEASE,
        releases=True,
        move=Move((State.GATED, State.APPROVED), State.ROLLED_OUT, _promoted),
    ),
    Step(
        "certify",
        "Certify",
        "Issue the signed certificate of an attempt that passed: provisional until its purge is complete, then final.",
        role=Role.ANSWERS,
        makes=CertificateRecord,
        credentials=(*_LEDGER, "ERASEDIFF_SIGNING_PASSPHRASE"),
        settings=(*_SIGNER, "ERASEDIFF_SIGNING_TIMESTAMP_URL", "ERASEDIFF_ROLL_OUT_IMAGE"),
        signs=True,
        again_after="purge",
    ),
    Step(
        "purge",
        "Purge",
        "Delete what was forgotten, wherever it lies, and show that it is gone; goes on where it was, and ends with 13 while anything is left.",
        role=Role.ANSWERS,
        makes=PurgeRecord,
        size=MEDIUM,
        retries=3,
        credentials=(*_STORES, *_LEDGER, "ERASEDIFF_MLFLOW_BACKEND_STORE_URI"),
        settings=(*ENVIRONMENT, *_ROLL_OUT, *_STORE, "ERASEDIFF_MLFLOW_ARTIFACTS_DESTINATION"),
    ),
    Step(
        "regate",
        "Re-run the gate",
        "Re-run the gate on the deployed model with fresh seeds, for everything that it has forgotten.",
        role=Role.IDLES,
        makes=RegateRecord,
        size=MEDIUM,
        retries=1,
        credentials=_STORES,
    ),
    Step(
        "record_outcome",
        "Record the outcome",
        "Write outcome.json and report.html of an attempt, whatever happened before.",
        role=Role.CLOSES,
        credentials=_STORES,
    ),
)


def step_named(name: str) -> Step:
    """The row of a step."""
    return next(row for row in STEPS if row.name == name)


def step_for(role: Role) -> Step:
    """The only row that has a role."""
    (found,) = (row for row in STEPS if row.role is role)
    return found


def maker_of(kind: type[Record]) -> Step:
    """The step that makes a kind of record."""
    return next(row for row in STEPS if row.makes is kind)


def work_steps() -> Iterator[Step]:
    """Every step between opening and closing an attempt, in the order in which a run performs them; a step may come twice."""
    for row in STEPS:
        if row.role in (Role.WORKS, Role.DECIDES, Role.PROMOTES, Role.ANSWERS):
            yield row
            yield from (again for again in STEPS if again.again_after == row.name)
