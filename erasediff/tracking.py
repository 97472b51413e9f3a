"""The adapter over MLflow: runs with metrics in batches, and the registry with its aliases.

It uses ``MlflowClient`` only: the fluent API would resume the run that ``MLFLOW_RUN_ID`` names.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from erasediff.environment import disable_telemetry
from erasediff.errors import PASSING_STATUS, BadInput, IntegrityError, Outage, Unreachable
from erasediff.records.core import ModelRecord
from erasediff.records.settings import MLFLOW_DATABASE, ServiceSettings
from erasediff.retries import retried

disable_telemetry()

CHAMPION, CHALLENGER = "champion", "challenger"
EXPERIMENT = "erasediff"
MODEL_ARTIFACTS = "model"
MODEL_RECORD = "modelrecord.json"
"""The artifact of a version's run that holds its :class:`ModelRecord`: a tag is too short for a thousand names of classes."""
MODEL_TAG, EPOCH_TAG, WEIGHTS_TAG = "erasediff.model", "erasediff.epoch", "erasediff.weights_sha256"
"""The digests of a version's model record and weights, and the model's erasure epoch."""
_PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "source"), ("model_versions", "storage_location"))
"""The columns of MLflow's tables that hold the location of artifacts."""
_BATCH = 1000  # the server's limit of metrics a call
_TAG_LENGTH = 5000
# The registry answers with the second one if a model lacks an alias.
_NOTHING_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")

# What MLflow's error of a download quotes of `requests`; it gives no other reason.
_REFUSED_DOWNLOAD = re.compile(r"\b4(?!29)\d\d Client Error")

T = TypeVar("T")


class Tracking:
    """MLflow as this project uses it: one experiment, one run per attempt, one registered model per dataset."""

    def __init__(self, workdir: Path) -> None:
        """Connect to the server that the settings name, or to a SQLite file in the workdir."""
        settings = ServiceSettings.load()
        self.uri = settings.tracking_uri(workdir)
        self._workdir = workdir
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(settings.http_timeout_seconds))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # after the import, which sets the level; MLflow logs the traceback of what it raises
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.client = self._call(lambda: MlflowClient(tracking_uri=self.uri, registry_uri=self.uri))
        if self.uri == _own_database(workdir) and (workdir / MLFLOW_DATABASE).is_file():
            self._call(self._follow_the_workdir)

    def _call(self, action: Callable[[], T]) -> T:
        """Run one MLflow call, again while the server is away.

        Raises:
            Unreachable: the server does not answer or refuses.
        """
        return retried(lambda: self._once(action))

    def _once(self, action: Callable[[], T]) -> T:
        import requests
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return action()
        except (MlflowException, requests.RequestException, SQLAlchemyError) as error:
            if "database or disk is full" in str(error):
                raise BadInput(f"no space is left for {_without_credentials(self.uri)}: free some space and run the same command again.") from error
            reason = _without_credentials(str(error).splitlines()[0])[:200]
            kind = Outage if self.uri.startswith("http") and _passes(error) else Unreachable
            raise kind(
                f"MLflow at {_without_credentials(self.uri)} does not answer ({reason}): start the server or correct MLFLOW_TRACKING_URI."
            ) from error

    def _found(self, look_up: Callable[[], T]) -> T | None:
        """The result of a look-up, or ``None`` if nothing has that name."""
        return self._call(lambda: self._look(look_up))

    @staticmethod
    def _look(look_up: Callable[[], T]) -> T | None:
        from mlflow.exceptions import MlflowException

        try:
            return look_up()
        except MlflowException as error:
            if error.error_code in _NOTHING_THERE:
                return None
            raise

    @property
    def _artifacts(self) -> str:
        """Where the artifacts of the workdir's own database lie."""
        return (self._workdir / "mlflow-artifacts").as_uri()

    def _follow_the_workdir(self) -> None:
        """After the workdir was moved, update the artifact locations in its database: MLflow stores absolute paths."""
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None or experiment.artifact_location == self._artifacts:
            return
        from sqlalchemy import create_engine, text

        before, after = str(experiment.artifact_location), self._artifacts
        engine = create_engine(self.uri)
        with engine.begin() as connection:
            for table, column in _PLACES:
                moved = f"UPDATE {table} SET {column} = :after || substr({column}, :kept) WHERE substr({column}, 1, :length) = :before"  # noqa: S608
                connection.execute(text(moved), {"after": after, "before": before, "kept": len(before) + 1, "length": len(before)})
        engine.dispose()

    def _experiment(self) -> str:
        # Without a server, artifacts go beside the database.
        local = None if self.uri.startswith("http") else self._artifacts

        def found_or_made() -> str:
            existing = self.client.get_experiment_by_name(EXPERIMENT)
            return str(self.client.create_experiment(EXPERIMENT, artifact_location=local) if existing is None else existing.experiment_id)

        return self._call(found_or_made)

    def start_run(self, name: str, tags: Mapping[str, str]) -> str:
        """Create a run and return its id; where the answer was lost, an empty run is left beside it."""
        experiment = self._experiment()
        run = self._call(lambda: self.client.create_run(experiment, run_name=name, tags=dict(tags)))
        return str(run.info.run_id)

    def end_run(self, run_id: str, status: str) -> None:
        """Close a run as ``FINISHED`` or ``FAILED``."""
        self._call(lambda: self.client.set_terminated(run_id, status))

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        """Log parameters in one call; a parameter that is already there with the same value is left alone."""
        from mlflow.entities import Param

        known = self._call(lambda: self.client.get_run(run_id)).data.params
        fresh = [Param(key, str(value)) for key, value in params.items() if key not in known]
        if fresh:
            self._call(lambda: self.client.log_batch(run_id, params=fresh))

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log single numbers."""
        self.log_curves(run_id, {name: [value] for name, value in metrics.items()})

    def log_curves(self, run_id: str, curves: Mapping[str, Iterable[float]]) -> None:
        """Log one number per step and name, in batches: a call for each number would cost 30 to 140 ms."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, values in curves.items() for step, value in enumerate(values)]
        for start in range(0, len(metrics), _BATCH):
            part = metrics[start : start + _BATCH]
            self._call(lambda part=part: self.client.log_batch(run_id, metrics=part))  # type: ignore[misc]

    def log_artifacts(self, run_id: str, folder: Path, name: str) -> str:
        """Upload a folder and return its address."""
        self._call(lambda: self.client.log_artifacts(run_id, str(folder), name))
        return f"{self._call(lambda: self.client.get_run(run_id)).info.artifact_uri}/{name}"

    def log_artifact(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Upload one file, into a folder of the run's artifacts if one is named."""
        self._call(lambda: self.client.log_artifact(run_id, str(path), folder))

    def log_model_record(self, run_id: str, record: ModelRecord) -> None:
        """Upload the record of a model to the run of its version."""
        with tempfile.TemporaryDirectory(prefix="erasediff-record-") as folder:
            record.write(Path(folder) / MODEL_RECORD)
            self.log_artifact(run_id, Path(folder) / MODEL_RECORD)

    def recorded_model(self, version: Any) -> ModelRecord:
        """The record of a registered version's model.

        Raises:
            BadInput: the version was not registered by this EraseDiff.
            IntegrityError: the record is not the one that its tag states.
        """
        where, digest = f"version {version.version} of {version.name}", version.tags.get(MODEL_TAG)
        if digest is None:
            raise BadInput(f"{where} has no tag {MODEL_TAG}: register a base with `erasediff import-base` or `train-base`.")
        if digest.startswith("{"):
            raise BadInput(f"{where} tells its classes by positions, as an earlier version of EraseDiff did: run `erasediff migrate`.")
        with tempfile.TemporaryDirectory(prefix="erasediff-record-") as folder:
            record = ModelRecord.read(self.download(self.artifacts_of(version, MODEL_RECORD), Path(folder)))
        if record.digest() != digest:
            raise IntegrityError(f"the artifact {MODEL_RECORD} of {where} is not the one that was registered: register the model again.")
        return record

    def has_artifact(self, run_id: str, *place: str) -> bool:
        """Whether the artifacts of a run hold a file; its name comes after that of its folder, if it has one."""
        found = self._found(lambda: self.client.list_artifacts(run_id, "/".join(place[:-1]) or None)) if run_id else None
        return any(artifact.path == "/".join(place) for artifact in found or ())

    def register(self, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> str:
        """Register a model version with its tags; if the run already has a version with the same digests, return that one.

        Raises:
            BadInput: a tag is longer than MLflow's limit; MLflow would cut it.
        """
        if long := next((key for key, value in tags.items() if len(value) > _TAG_LENGTH), None):
            raise BadInput(f"the tag {long} of {name!r} has {len(tags[long])} characters, MLflow keeps {_TAG_LENGTH}: report this.")
        digests = {key: value for key, value in tags.items() if key.endswith("sha256")}

        def found_or_made() -> str:
            if self._look(lambda: self.client.get_registered_model(name)) is None:
                self.client.create_registered_model(name)
            for version in self.client.search_model_versions(f"name='{name}'"):
                if version.run_id == run_id and digests.items() <= version.tags.items():
                    return str(version.version)
            return str(self.client.create_model_version(name, source, run_id, dict(tags)).version)

        return self._call(found_or_made)

    def versions_with_tag(self, name: str, tag: str) -> list[str]:
        """The versions of a model that carry a tag, oldest first; none if there is no such model."""
        found = self._call(lambda: self.client.search_model_versions(f"name='{name}'"))
        return sorted((str(version.version) for version in found if tag in version.tags), key=int)

    def versions(self, name: str) -> list[Any]:
        """The versions of a model, newest first; none if there is no such model."""
        found = self._call(lambda: self.client.search_model_versions(f"name='{name}'"))
        return sorted(found, key=lambda version: int(version.version), reverse=True)

    def champions(self) -> list[Any]:
        """The champion of every registered model that has one."""
        found, page = [], None
        while page != "":
            models = self._call(lambda page=page: self.client.search_registered_models(page_token=page))  # type: ignore[misc]
            found += [self.resolve(f"models:/{model.name}@{CHAMPION}") for model in models if CHAMPION in model.aliases]
            page = models.token or ""
        return found

    def find_run(self, run_id: str) -> Any | None:
        """A run, even if soft-deleted, or ``None``."""
        return self._found(lambda: self.client.get_run(run_id))

    def runs_of_request(self, request: str) -> list[Any]:
        """Every run that was started for a request, by the id that its plan gives it, even if soft-deleted."""
        from mlflow.entities import ViewType

        experiment, asked = self._experiment(), f"tags.`erasediff.request` = '{request}'"
        found, page = [], None
        while page != "":
            runs = self._call(lambda page=page: self.client.search_runs([experiment], asked, ViewType.ALL, page_token=page))  # type: ignore[misc]
            found += list(runs)
            page = runs.token or ""
        return found

    def tag_run(self, run_id: str, key: str, value: str) -> None:
        """Put a tag on a run."""
        self._call(lambda: self.client.set_tag(run_id, key, value))

    def tag_version(self, name: str, version: str, key: str, value: str) -> None:
        """Put a tag on a version."""
        self._call(lambda: self.client.set_model_version_tag(name, version, key, value))

    def artifacts_of(self, version: Any, name: str) -> str:
        """The address of a folder that was uploaded to the run of a version."""
        return f"{self._call(lambda: self.client.get_run(version.run_id)).info.artifact_uri}/{name}"

    def alias(self, name: str, alias: str) -> Any | None:
        """The model version that an alias points to, or ``None``."""
        return self._found(lambda: self.client.get_model_version_by_alias(name, alias))

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias to a version."""
        self._call(lambda: self.client.set_registered_model_alias(name, alias, version))

    def download(self, source: str, target: Path) -> Path:
        """Download artifacts from an address."""
        from mlflow.artifacts import download_artifacts

        return Path(self._call(lambda: download_artifacts(artifact_uri=source, dst_path=str(target), tracking_uri=self.uri)))

    def resolve(self, uri: str) -> Any:
        """The model version that ``models:/name@alias`` or ``models:/name/version`` means.

        Raises:
            BadInput: there is no such model.
        """
        name, separator, alias = uri.removeprefix("models:/").partition("@")
        if separator:
            found = self.alias(name, alias)
        else:
            name, _, number = name.partition("/")
            found = self._found(lambda: self.client.get_model_version(name, number)) if number else None
        if found is None:
            raise BadInput(f"MLflow has no model {uri}: name one as models:/NAME@champion or models:/NAME/VERSION.")
        return found


def _own_database(workdir: Path) -> str:
    """The address of the database in a workdir, the default if no server is set."""
    return f"sqlite:///{workdir / MLFLOW_DATABASE}"


def _passes(error: Exception) -> bool:
    """Whether a call that failed so may succeed later: MLflow's own errors have what ``requests`` raised as their context."""
    import requests
    from mlflow.exceptions import MlflowException

    cause = error.__context__ if isinstance(error.__context__, requests.RequestException) else error
    if isinstance(cause, requests.RequestException):
        away = (requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError, requests.exceptions.ChunkedEncodingError)
        answered = cause.response is not None and cause.response.status_code in PASSING_STATUS
        return answered or (isinstance(cause, away) and not isinstance(cause, requests.exceptions.SSLError))
    answers_later = isinstance(cause, MlflowException) and cause.get_http_status_code() in PASSING_STATUS
    return answers_later and not _REFUSED_DOWNLOAD.search(str(cause))


def _without_credentials(text: str) -> str:
    """The text without the user and password of any address in it."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


FORGOTTEN_TAG, DRIFT_TAG = "erasediff.forgotten", "erasediff.drift"


def model_tags(record: ModelRecord) -> dict[str, str]:
    """The tags that describe a model. They hold no name of a class, which may be a person's."""
    forgotten = {FORGOTTEN_TAG: str(len(record.forgotten))} if record.forgotten else {}
    return forgotten | {
        MODEL_TAG: record.digest(),
        EPOCH_TAG: str(record.epoch),
        WEIGHTS_TAG: record.weights.sha256,
        "erasediff.folder_sha256": record.folder_sha256,
    }
