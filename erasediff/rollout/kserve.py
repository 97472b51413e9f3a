"""Roll out with KServe (0.20 or newer): one InferenceService, by server-side apply; what both of its modes share.

Standard mode has a list of canaries beside the stable predictor, Knative mode a traffic share for the newest revision. Each mode silently ignores
the other's fields, so the mode is a setting and never guessed.

Nothing waits for ``status.observedGeneration``: in Standard mode it is the generation of the predictor's Deployment, not of the InferenceService.
What counts is the part of the status that names what was asked for: the predictor or the revision, and its share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from erasediff.cluster.answers import ObjectConflict
from erasediff.cluster.api import INFERENCE_SERVICE, Cluster, Object
from erasediff.cluster.deadline import Deadline
from erasediff.errors import BadInput, EraseDiffError
from erasediff.files import sha256_bytes
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate, serving_candidate

MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
FORMAT = "erasediff"  # of our ServingRuntime, which manifests/ installs
_FAILED = {"BlockedByFailedLoad", "InvalidSpec"}


class PredictorFailed(EraseDiffError):
    """KServe reports that a predictor failed."""


def storage_uri(settings: RollOutSettings, uri: str) -> str:
    """KServe's storage URI of a published model."""
    return uri if uri.startswith("s3://") else f"pvc://{settings.claim}/{Path(uri).relative_to(settings.claim_mount)}"


def predictor_name(uri: str) -> str:
    """A predictor's name, unique for each published model."""
    return f"m{sha256_bytes(uri.encode())[:10]}"


def predictor(settings: RollOutSettings, candidate: Candidate) -> Object:
    """A predictor that serves a candidate with our ServingRuntime."""
    named = {"name": predictor_name(candidate.uri)} if settings.mode == "Standard" else {}
    model = {"modelFormat": {"name": FORMAT}, "protocolVersion": "v2", "storageUri": storage_uri(settings, candidate.uri)}
    return {**named, "minReplicas": settings.replicas, "serviceAccountName": settings.service_account, "model": model}


def inference_service(settings: RollOutSettings, stable: Object | None, standing: Candidate | None, **spec: Any) -> Object:
    """The fields that a roll-out applies; a stable predictor of another tool is left out."""
    annotations = {MODE_ANNOTATION: settings.mode, **(standing.annotations() if standing else {})}
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": {"name": settings.name, "labels": {"app.kubernetes.io/name": "erasediff"}, "annotations": annotations},
        "spec": ({} if stable is None else {"predictor": stable}) | spec,
    }


def owned(present: Object) -> Object | None:
    """The fields of an existing predictor that a roll-out applies; ``None`` if no roll-out made it."""
    if serving_candidate(present["metadata"].get("annotations")) is None:
        return None
    found = present["spec"]["predictor"]
    kept = {name: found[name] for name in ("name", "minReplicas", "serviceAccountName") if name in found}
    model = {name: found["model"][name] for name in ("modelFormat", "protocolVersion", "storageUri") if name in found.get("model", {})}
    return {**kept, "model": model}


def service_name(name: str, predictor: str | None) -> str:
    """The name that KServe gives the Service of a predictor; only in Standard mode a predictor can have a name."""
    return f"{name}-{predictor}-predictor" if predictor else f"{name}-predictor"


def is_ready(present: Object) -> bool:
    """Whether the condition ``Ready`` is true; the caller checks what it speaks of."""
    conditions = (present.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def failure_of(model_status: Object) -> str | None:
    """Why KServe failed to load a model, or ``None``."""
    if model_status.get("transitionStatus") not in _FAILED:
        return None
    info = model_status.get("lastFailureInfo", {})
    return str(info.get("message") or info.get("reason") or model_status["transitionStatus"]).strip().rstrip(".")


class InferenceServiceBackend(ABC):
    """What a roll-out does with an InferenceService of either mode."""

    def __init__(self, cluster: Cluster, settings: RollOutSettings) -> None:
        """Look at nothing yet."""
        self._cluster, self._settings = cluster, settings
        self._before: Object | None = None
        self._standing: Candidate | None = None
        self._candidate: Candidate | None = None
        self._may_have_promoted = False

    def look(self) -> Candidate | None:
        """Remember the InferenceService.

        Raises:
            BadInput: it has another mode, which ignores our fields.
        """
        self._before = self._cluster.get(INFERENCE_SERVICE, self._settings.name)
        if self._before is None:
            return None
        mode = self._before["metadata"].get("annotations", {}).get(MODE_ANNOTATION)
        if mode not in (None, self._settings.mode):
            raise BadInput(
                f"{self._describe()} is in mode {mode} and the roll-out is set to {self._settings.mode}: set ERASEDIFF_ROLL_OUT_MODE to {mode}."
            )
        self._standing = serving_candidate(self._before["metadata"].get("annotations"))
        return self._standing

    def changed(self) -> bool:
        """Whether the stable predictor may have been changed; in Knative mode the canary uses the same field."""
        return self._may_have_promoted

    @abstractmethod
    def _serves(self, present: Object, candidate: Candidate | None, what: str) -> bool:
        """Whether the InferenceService serves a model alone; raise PredictorFailed, beginning with ``what``, if it never will."""

    def _has_canary(self) -> bool:
        """Whether the candidate comes up beside another model: a first version does not, nor one that is served already, since names are unique."""
        assert self._candidate is not None
        return self._before is not None and not (self._standing is not None and self._standing.uri == self._candidate.uri)

    def _bring_up_first(self, candidate: Candidate, deadline: Deadline) -> None:
        """Apply the first version as the stable predictor."""
        self._may_have_promoted = True
        self._apply_stable(candidate)
        self._wait_serving(candidate, deadline, "the first version did not become ready")

    def _make_stable(self, deadline: Deadline) -> str:
        """Make the candidate's predictor the stable one without a canary, and return the new revision."""
        assert self._candidate is not None
        self._may_have_promoted = True
        written = self._apply_stable(self._candidate)
        present = self._wait_serving(self._candidate, deadline, "the promoted version did not become ready")
        if present["spec"] != written["spec"]:
            raise ObjectConflict(f"{self._describe()} was changed by another process")
        return f"inferenceservice/{self._settings.name} generation {present['metadata']['generation']}"

    def _restore(self, before: Object, deadline: Deadline) -> None:
        """Apply the previous predictor, without a canary."""
        self._cluster.apply(INFERENCE_SERVICE, inference_service(self._settings, owned(before), self._standing))
        self._wait_serving(self._standing, deadline, "the previous version did not become ready again")

    def _apply_stable(self, candidate: Candidate) -> Object:
        return self._cluster.apply(INFERENCE_SERVICE, inference_service(self._settings, predictor(self._settings, candidate), candidate))

    def _wait_serving(self, candidate: Candidate | None, deadline: Deadline, what: str) -> Object:
        """Wait until the InferenceService serves a model alone; one that no roll-out made has no name of ours."""

        def decide(present: Object | None) -> Object | None:
            there = self._there(present)
            return there if self._serves(there, candidate, what) else None

        return self._cluster.wait(INFERENCE_SERVICE, self._settings.name, decide, deadline, what)

    def _there(self, present: Object | None) -> Object:
        if present is None:
            raise ObjectConflict(f"{self._describe()} was deleted by another process")
        return present

    def _describe(self) -> str:
        return f"InferenceService {self._settings.namespace}/{self._settings.name}"
