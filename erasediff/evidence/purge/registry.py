"""The store "mlflow registry": rows of versions that know the class, and of runs that are no longer needed."""

from __future__ import annotations

from functools import partial

from erasediff.errors import BadInput
from erasediff.evidence.purge.database import MlflowDatabase
from erasediff.evidence.purge.store import Kept, Listing, PurgeItem, Store
from erasediff.evidence.purge.survey import REVOKED_TAG
from erasediff.records.purging import PurgePlan
from erasediff.records.settings import ServiceSettings
from erasediff.tracking import Tracking

KNOWING, HIDDEN, RUNS = "versions that know the class", "soft-deleted versions", "runs"


def database_uri(tracking_uri: str, settings: ServiceSettings) -> str:
    """The address of MLflow's database.

    Raises:
        BadInput: MLflow is a server, and the setting for its database is missing.
    """
    if settings.mlflow_backend_store_uri is not None:
        return settings.mlflow_backend_store_uri.get_secret_value()
    if tracking_uri.startswith(("http://", "https://")):
        raise BadInput(
            "MLflow's server only hides deleted rows: set ERASEDIFF_MLFLOW_BACKEND_STORE_URI to its database, so that the purge can delete them."
        )
    return tracking_uri


def registry_store(plan: PurgePlan, name: str, superseded: str, tracking: Tracking, settings: ServiceSettings) -> Store:
    """MLflow's registry and runs, in its database."""

    def look() -> Listing:
        database = MlflowDatabase(database_uri(tracking.uri, settings))
        rows = [PurgeItem(RUNS, partial(database.delete_run, run.id)) for run in plan.runs if not run.parts and database.rows_of_run(run.id)]
        partly = sum(bool(run.parts) for run in plan.runs)
        kept = Kept(RUNS, partly, "they hold the deployed model, or another request's evidence; only some of their artifacts were deleted")
        return Listing((*_versions(plan, name, superseded, tracking, database), *rows), (kept,))

    return Store("mlflow registry", look, "searched every table of MLflow's database by a new connection", ("mlflow artifacts",))


def _versions(plan: PurgePlan, name: str, superseded: str, tracking: Tracking, database: MlflowDatabase) -> list[PurgeItem]:
    """Versions to delete, or to tag.

    The highest number is never deleted: MLflow would give it to the next model.
    """
    present = database.versions(name)
    newest = max(present, default=0)
    planned = {version.number for version in plan.versions}
    loose = sorted(number for number in planned - present.keys() if database.rows_of_version(name, number))
    items = [PurgeItem(KNOWING, partial(database.delete_version, name, number)) for number in loose]
    for number, hidden in sorted(present.items()):
        if hidden and number != newest:
            items.append(PurgeItem(HIDDEN, partial(database.delete_version, name, number)))
        elif number in planned and superseded == "delete" and number != newest:
            items.append(PurgeItem(KNOWING, partial(database.delete_version, name, number)))
        elif number in planned and not hidden and not _tagged(tracking, name, number):
            items.append(PurgeItem(KNOWING, partial(tracking.tag_version, name, str(number), REVOKED_TAG, "true"), "revoked"))
    return items


def _tagged(tracking: Tracking, name: str, number: int) -> bool:
    return REVOKED_TAG in tracking.resolve(f"models:/{name}/{number}").tags
