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
    """A list of the experiment's runs or schedules, a look at one run or its end, or a change of the schedule of this name or identifier."""

    action: Literal["list_runs", "look", "terminate", "list_schedules", "pause", "resume", "delete"]
    run: str = ""
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
    """A task of a run, as Kubeflow's API tells of it: a step, or one of Kubeflow's own; without a state it never began."""

    name: str
    state: str | None
    seconds: float | None


class SeenRun(Strict):
    """A run and its tasks at one moment."""

    run_id: str
    state: str | None
    tasks: tuple[SeenTask, ...]


class ListedSchedule(Strict):
    """A schedule in Kubeflow."""

    schedule_id: str
    name: str
    cron: str
    enabled: bool


class ListedSchedules(Strict):
    """The schedules of an experiment."""

    schedules: tuple[ListedSchedule, ...]
