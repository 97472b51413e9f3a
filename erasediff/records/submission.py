"""What is asked of Kubeflow Pipelines: a run or a schedule of a compiled pipeline, or what there is; and its answers."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from erasediff.records.base import Strict
from erasediff.records.sizes import PROFILE_SIZES

PROFILES = tuple(PROFILE_SIZES)
_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class Backend(Strict):
    """A Kubeflow Pipelines API, namespace and experiment."""

    host: str
    namespace: str | None = Field(default=None, pattern=_NAME, max_length=63)
    experiment: str = Field(default="erasediff", min_length=1, max_length=128)
    service_account: str | None = Field(default=None, pattern=_NAME, max_length=63)
    timeout_seconds: int = Field(default=10, ge=1)

    @field_validator("host")
    @classmethod
    def _address(cls, host: str) -> str:
        parts = urlsplit(host)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.query or parts.fragment:
            raise ValueError("has to be an address such as https://kubeflow.example.org/pipeline, without a user and a password")
        return host.rstrip("/")


class Submission(Backend):
    """One run, or with ``cron`` a schedule, of a pipeline; the version's name is the digest of its file."""

    action: Literal["run", "schedule"]
    pipeline_file: str
    pipeline: str
    version: str
    name: str
    parameters: dict[str, str]
    cron: str | None = None


class Inquiry(Backend):
    """A list of the experiment's runs or schedules, a look at one run or at the log of one of its pods, or a change of a run or a schedule.

    ``node`` is what Argo Workflows calls the pod; ``schedule`` is a name or an identifier.
    """

    action: Literal["list_runs", "look", "read_log", "terminate", "list_schedules", "pause", "resume", "delete"]
    run: str = ""
    node: str = ""
    schedule: str = ""


class Submitted(Strict):
    """A run that Kubeflow accepted."""

    run_id: str
    uploaded: bool


class Scheduled(Strict):
    """A schedule in Kubeflow, and how it was changed."""

    schedule_id: str
    change: Literal["created", "replaced", "enabled", "unchanged"]


class ListedRun(Strict):
    """A run in Kubeflow; ``state`` is Kubeflow's own word, such as ``RUNNING``."""

    run_id: str
    name: str
    state: str
    created_at: datetime
    finished_at: datetime | None


class ListedRuns(Strict):
    """The newest runs of an experiment, the newest first."""

    runs: tuple[ListedRun, ...]


class SeenTask(Strict):
    """A task of a run, as Kubeflow's API tells of it: a step, or one of Kubeflow's own; without a state it never began.

    ``children`` are Argo's names of the nodes beneath the task. A pod is such a node; it is no task with a name of its own.
    """

    name: str
    state: str | None
    seconds: float | None
    started: datetime | None = None
    children: tuple[str, ...] = ()


class SeenRun(Strict):
    """A run and its tasks at one moment."""

    run_id: str
    state: str | None
    tasks: tuple[SeenTask, ...]


class PodLog(Strict):
    """The end of a pod's log; empty where Kubeflow does not hand it out."""

    text: str


class ListedSchedule(Strict):
    """A schedule in Kubeflow."""

    schedule_id: str
    name: str
    cron: str
    enabled: bool


class ListedSchedules(Strict):
    """The schedules of an experiment."""

    schedules: tuple[ListedSchedule, ...]
