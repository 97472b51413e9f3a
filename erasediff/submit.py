"""Submit, schedule and list runs on Kubeflow Pipelines: ``pipelines/submit.py`` calls the API in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from erasediff.errors import BadInput, EraseDiffError
from erasediff.files import sha256_file, shipped, write_atomic
from erasediff.models.footprint import parameters, training_size
from erasediff.records.config import RunConfig
from erasediff.records.core import ErasureRequest
from erasediff.records.names import shown_names
from erasediff.records.policy import GatePolicy
from erasediff.records.positions import PositionedRequest
from erasediff.records.schedule import checked_cron
from erasediff.records.settings import KubeflowSettings, ServiceSettings
from erasediff.records.sizes import PROFILE_SIZES, TrainingSize
from erasediff.records.submission import (
    PROFILES,
    Backend,
    Inquiry,
    ListedRun,
    ListedRuns,
    ListedSchedule,
    ListedSchedules,
    PodLog,
    Scheduled,
    SeenRun,
    Submission,
    Submitted,
)

_REQUESTS = 30
"""An upper limit of the HTTP requests of one submission; each may take as long as the settings say."""


_ANSWER = "the answer of pipelines/submit.py"


def backend(host: str | None, namespace: str | None, experiment: str, service_account: str | None) -> Backend:
    """The Kubeflow API to submit to, from the options or the environment.

    Raises:
        BadInput: no address is given, or it is not valid.
    """
    address = host or KubeflowSettings.load().host
    if not address:
        raise BadInput("no address of Kubeflow Pipelines is set: give --host, or set ERASEDIFF_KFP_HOST.")
    fields = {"host": address, "namespace": namespace, "experiment": experiment, "service_account": service_account}
    return Backend.parse(fields | {"timeout_seconds": ServiceSettings.load().http_timeout_seconds}, "what names the cluster")


def request_for(config: RunConfig, label: str | None, class_names: Sequence[str] | None) -> PositionedRequest:
    """The request of a run on a cluster. If the dataset lies on the cluster only, its classes are given by a list of their names.

    Raises:
        BadInput: the class cannot be looked up here, or there is no class of this name.
    """
    if label is None:
        raise BadInput("no class to forget is given: use --forget-label or --requests.")
    if class_names is None:
        if config.dataset.path is not None and not Path(config.dataset.path).exists():
            raise BadInput(
                f"dataset {config.dataset.path} is not on this machine, so the class cannot be looked up: give --classes, a file with the names of "
                "its classes in their order, one a line."
            )
        from erasediff.data.datasets import load_dataset

        class_names = load_dataset(config.dataset).class_names
    request = ErasureRequest.parse({"dataset": config.dataset.name, "label": label}, "the request")
    if request.label not in class_names:
        raise BadInput(f"class {shown_names([request.label])} is not in dataset {config.dataset.name}: choose one of {shown_names(class_names)}.")
    return PositionedRequest.of(request, class_names)


@dataclass(frozen=True)
class ChosenSize:
    """The size of the training steps, and where it comes from."""

    size: TrainingSize
    source: str


def chosen_size(profile: str, config: RunConfig, cpu: str | None = None, memory: str | None = None, gpus: int | None = None) -> ChosenSize:
    """The size of a run's training steps: what was asked for, and the rest from the model.

    Raises:
        BadInput: there is no such profile, it has no such GPUs, or a quantity is not one.
    """
    if profile not in PROFILES:
        raise BadInput(f"there is no profile {profile!r}: choose one of {', '.join(PROFILES)}.")
    usual = PROFILE_SIZES[profile]
    if gpus and not usual.gpus:
        raise BadInput(f"profile {profile!r} has no GPUs: leave --gpus out, or choose another --profile.")
    if gpus == 0 and usual.gpus:
        raise BadInput(f"profile {profile!r} needs a GPU: give --gpus 1 or more, or choose --profile cpu.")
    cards = usual.gpus if gpus is None else gpus
    if config.base_training is None:
        default, source = usual.model_copy(update={"gpus": cards}), "the profile's, for the champion is not known here"
    else:
        default, source = training_size(config, cards), f"from the model's {parameters(config.denoiser) / 1e6:.1f} M parameters"
    asked = {"cpu": cpu, "memory": memory}
    named = {name: value for name, value in asked.items() if value is not None}
    if len(named) == len(asked):
        source = "as asked for"
    return ChosenSize(TrainingSize.parse(default.model_dump() | named, "the size of the training steps"), source)


def submission(
    where: Backend,
    profile: str,
    request: PositionedRequest | None,
    config: RunConfig,
    policy: GatePolicy,
    size: TrainingSize,
    cron: str | None = None,
) -> Submission:
    """The document of a run or of a schedule. Its name holds the class's position and the dataset, so each class has a schedule of its own.

    Without a request, each run takes the next batch from the ledger on the cluster.

    Raises:
        BadInput: the cron expression is not one of Kubeflow's.
    """
    file = shipped(f"pipelines/compiled/erasure-{profile}.yaml")
    name = f"erase what is asked of {config.dataset.name}" if request is None else f"erase class {request.position} of {request.dataset}"
    asked = "" if request is None else request.canonical().decode()
    return Submission(
        **where.model_dump(),
        action="run" if cron is None else "schedule",
        pipeline_file=str(file),
        pipeline=f"erasediff-{profile}",
        version=f"sha256-{sha256_file(file)[:48]}",  # of a name's 63 characters
        name=name,
        parameters={
            "request": asked,
            "config": config.canonical().decode(),
            "policy": policy.canonical().decode(),
            "if_busy": "fail" if cron is None else "skip",
            "training_cpu": size.cpu,
            "training_memory": size.memory,
            "training_gpus": str(size.gpus),
        },
        cron=None if cron is None else checked_cron(cron),
    )


def submit(asked: Submission) -> Submitted:
    """Create a run.

    Raises:
        BadInput: Kubeflow cannot be reached or refuses.
    """
    return Submitted.parse(_handed_in(asked), _ANSWER)


def schedule(asked: Submission) -> Scheduled:
    """Create a schedule, or update the schedule of this name.

    Raises:
        BadInput: Kubeflow cannot be reached or refuses.
    """
    return Scheduled.parse(_handed_in(asked), _ANSWER)


def list_runs(where: Backend) -> tuple[ListedRun, ...]:
    """The newest runs of an experiment, the newest first.

    Raises:
        BadInput: Kubeflow cannot be reached or refuses.
    """
    return ListedRuns.parse(_handed_in(Inquiry(**where.model_dump(), action="list_runs")), _ANSWER).runs


def look(where: Backend, run: str) -> SeenRun:
    """A run and its tasks, as they are now.

    Raises:
        BadInput: there is no such run; Kubeflow cannot be reached or refuses.
    """
    return SeenRun.parse(_handed_in(Inquiry(**where.model_dump(), action="look", run=run)), _ANSWER)


def read_log(where: Backend, run: str, node: str) -> str:
    """The end of the log of a pod of a run; empty where Kubeflow does not hand it out.

    Raises:
        BadInput: Kubeflow cannot be reached.
    """
    return PodLog.parse(_handed_in(Inquiry(**where.model_dump(), action="read_log", run=run, node=node)), _ANSWER).text


def terminate(where: Backend, run: str) -> None:
    """End a run.

    Raises:
        BadInput: there is no such run; Kubeflow cannot be reached or refuses.
    """
    _handed_in(Inquiry(**where.model_dump(), action="terminate", run=run))


def list_schedules(where: Backend) -> tuple[ListedSchedule, ...]:
    """The schedules of an experiment.

    Raises:
        BadInput: Kubeflow cannot be reached or refuses.
    """
    return ListedSchedules.parse(_handed_in(Inquiry(**where.model_dump(), action="list_schedules")), _ANSWER).schedules


def change_schedule(where: Backend, action: str, schedule: str) -> ListedSchedule:
    """Pause, resume or delete the schedule of this name or identifier; returns it as it was.

    Raises:
        BadInput: there is none, or more than one of this name; Kubeflow cannot be reached or refuses.
    """
    asked = Inquiry.parse(where.model_dump() | {"action": action, "schedule": schedule}, "the change of a schedule")
    return ListedSchedule.parse(_handed_in(asked), _ANSWER)


def _handed_in(asked: Submission | Inquiry) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="erasediff-submit-") as folder:
        document, result = Path(folder) / "document.json", Path(folder) / "result.json"
        asked.write(document)
        command = [sys.executable, str(shipped("pipelines/submit.py")), str(document), str(result)]
        token = KubeflowSettings.load().token
        # kfp reads a namespace and cookies from the user's home; only the options and the environment may decide.
        environment = os.environ | {"HOME": folder, "ERASEDIFF_KFP_TOKEN": token.get_secret_value() if token else ""}
        try:
            seconds = asked.timeout_seconds * _REQUESTS
            done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise BadInput(f"{asked.host} did not answer within {seconds} seconds: check there whether the run was created.") from None
        answer = json.loads(result.read_text()) if result.is_file() else None
    if answer is None:
        raise EraseDiffError(f"handing the pipeline to {asked.host} failed unexpectedly: the log is {_log(done.stdout + done.stderr)}.")
    if "error" in answer:
        raise BadInput(answer["error"])
    return dict(answer)


def _log(text: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(prefix="erasediff-submit-", suffix=".log")
    os.close(descriptor)
    write_atomic(Path(name), text, mode=0o600)
    return Path(name)
