"""The store "mlflow artifacts": files that runs uploaded to MLflow."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from erasediff.errors import BadInput
from erasediff.evidence.purge.places import place_for
from erasediff.evidence.purge.store import Kept, Listing, Store
from erasediff.records.purging import PlannedRun, PurgePlan
from erasediff.records.settings import ServiceSettings


def artifacts_store(plan: PurgePlan, settings: ServiceSettings) -> Store:
    """The artifacts of the planned runs, all or some of them."""

    def look() -> Listing:
        addresses = [(run, address) for run in plan.runs for address in _addresses(run, settings)]
        items = [item for run, address in addresses for item in place_for(address, _root(run, settings), _endpoint()).items()]
        kept = Kept("runs", sum(bool(run.parts) for run in plan.runs), "their other artifacts hold the deployed model, or another request's evidence")
        return Listing(tuple(items), (kept,))

    return Store("mlflow artifacts", look, "listed again in MLflow's storage directly, by a new client")


def _addresses(run: PlannedRun, settings: ServiceSettings) -> list[str]:
    whole = real_address(run.artifacts, settings)
    return [f"{whole}/{part}" for part in run.parts] or [whole]


def _root(run: PlannedRun, settings: ServiceSettings) -> str:
    """The folder of all runs: MLflow puts a run's artifacts at ``…/<run id>/artifacts``."""
    return real_address(run.artifacts, settings).removesuffix("/artifacts").removesuffix(f"/{run.id}")


def real_address(address: str, settings: ServiceSettings) -> str:
    """The real address of artifacts that a server proxies, which its clients do not know.

    Raises:
        BadInput: the setting for it is missing.
    """
    if not address.startswith(("mlflow-artifacts:", "http://", "https://")):
        return address.rstrip("/")
    if settings.mlflow_artifacts_destination is None:
        raise BadInput(
            "MLflow's server stores the artifacts, and it does not list old versions: set ERASEDIFF_MLFLOW_ARTIFACTS_DESTINATION to its storage."
        )
    path = urlsplit(address).path.partition("/mlflow-artifacts/artifacts/")[2] or urlsplit(address).path
    return f"{settings.mlflow_artifacts_destination.rstrip('/')}/{path.strip('/')}"


def _endpoint() -> str | None:
    return os.environ.get("MLFLOW_S3_ENDPOINT_URL")
