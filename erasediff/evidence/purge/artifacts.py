"""The store "mlflow artifacts": what runs have uploaded, where it lies."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from erasediff.errors import BadInput
from erasediff.evidence.purge.places import place_for
from erasediff.evidence.purge.store import Kept, Listing, Store
from erasediff.records.purging import PlannedRun, PurgePlan
from erasediff.records.settings import Settings


def artifacts_store(plan: PurgePlan, settings: Settings) -> Store:
    """The artifacts of planned runs, whole or in part."""

    def look() -> Listing:
        addresses = [(run, address) for run in plan.runs for address in _addresses(run, settings)]
        items = [item for run, address in addresses for item in place_for(address, _root(run, settings), _endpoint()).items()]
        kept = Kept("runs", sum(bool(run.parts) for run in plan.runs), "their other artifacts hold what serves, or another request's evidence")
        return Listing(tuple(items), (kept,))

    return Store("mlflow artifacts", look, "listed where MLflow keeps them, not through MLflow, by a client of its own")


def _addresses(run: PlannedRun, settings: Settings) -> list[str]:
    whole = real_address(run.artifacts, settings)
    return [f"{whole}/{part}" for part in run.parts] or [whole]


def _root(run: PlannedRun, settings: Settings) -> str:
    """The folder of all runs: MLflow puts a run's artifacts at ``…/<run id>/artifacts``."""
    return real_address(run.artifacts, settings).removesuffix("/artifacts").removesuffix(f"/{run.id}")


def real_address(address: str, settings: Settings) -> str:
    """Where artifacts really lie: a server that hands them on knows it, and its clients do not.

    Raises:
        BadInput: nobody said where.
    """
    if not address.startswith(("mlflow-artifacts:", "http://", "https://")):
        return address.rstrip("/")
    if settings.mlflow_artifacts_destination is None:
        raise BadInput(
            "MLflow's server keeps the artifacts, and a listing through it shows no old versions: set ERASEDIFF_MLFLOW_ARTIFACTS_DESTINATION "
            "to where it keeps them."
        )
    path = urlsplit(address).path.partition("/mlflow-artifacts/artifacts/")[2] or urlsplit(address).path
    return f"{settings.mlflow_artifacts_destination.rstrip('/')}/{path.strip('/')}"


def _endpoint() -> str | None:
    return os.environ.get("MLFLOW_S3_ENDPOINT_URL")
