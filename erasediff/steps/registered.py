"""Whether a registered model has the class of a request."""

from __future__ import annotations

from erasediff.attempts.workdir import Workdir
from erasediff.errors import BadInput
from erasediff.records.core import ErasureRequest
from erasediff.records.names import shown_names
from erasediff.records.settings import MLFLOW_DATABASE, ServiceSettings
from erasediff.tracking import MODEL_TAG, Tracking


def check_registered(workdir: Workdir, request: ErasureRequest) -> None:
    """Refuse a request that no registered champion can fulfil.

    Raises:
        BadInput: no champion is of the dataset, or none of those has the class.
    """
    known = _classes_of_champions(workdir, request.dataset)
    if not known:
        raise BadInput(
            f"no registered model is of dataset {request.dataset!r}: correct --dataset-name or --workdir, register a model with "
            "`erasediff import-base` or `train-base`, or file the request with --unchecked."
        )
    if request.label not in known:
        raise BadInput(
            f"no registered model of dataset {request.dataset} has the class {shown_names([request.label])}: choose one of {shown_names(known)}, "
            "or file the request with --unchecked."
        )


def _classes_of_champions(workdir: Workdir, dataset: str) -> tuple[str, ...]:
    """The classes of all champions of a dataset, each once."""
    uri = ServiceSettings.load().tracking_uri(workdir.root)
    if uri.startswith("sqlite:") and not (workdir.root / MLFLOW_DATABASE).is_file() and str(workdir.root) in uri:
        return ()
    tracking = Tracking(workdir.root)
    models = [tracking.recorded_model(version) for version in tracking.champions() if MODEL_TAG in version.tags]
    return tuple(dict.fromkeys(name for model in models if model.dataset == dataset for name in model.class_names))
