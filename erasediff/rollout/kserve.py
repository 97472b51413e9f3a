"""Roll out with KServe (0.20 or newer): one InferenceService, by server-side apply.

Standard mode has a list of canaries beside the stable predictor, Knative mode a traffic share for the newest revision. Each mode silently ignores
the other's fields, so the mode is a setting and never guessed.

Nothing waits for ``status.observedGeneration``: in Standard mode it is the generation of the predictor's Deployment, not of the InferenceService.
What counts is the part of the status that names what was asked for: the predictor or the revision, and its share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from erasediff.cluster.answers import ObjectConflict
from erasediff.cluster.api import INFERENCE_SERVICE, POD, SERVICE, Cluster, Object
from erasediff.cluster.deadline import Deadline
from erasediff.cluster.pods import trouble_of
from erasediff.errors import BadInput, EraseDiffError
from erasediff.files import sha256_bytes
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate, serving_candidate

MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
FORMAT = "erasediff"  # of our ServingRuntime, which manifests/ installs
CONTAINER = "kserve-container"  # KServe always gives the serving container this name
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
    """The name that KServe gives the Service of a predictor in Standard mode."""
    return f"{name}-{predictor}-predictor" if predictor else f"{name}-predictor"


def is_ready(present: Object) -> bool:
    """Whether the condition ``Ready`` is true; the caller checks what it speaks of."""
    conditions = (present.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def serves_alone(present: Object, predictor: str | None) -> bool:
    """Whether the InferenceService serves one predictor and no canary (Standard mode)."""
    status = present.get("status") or {}
    host = urlsplit(status.get("address", {}).get("url", "")).hostname or ""
    addressed = host.partition(".")[0] == service_name(present["metadata"]["name"], predictor)
    return addressed and not status.get("canaryStatuses") and is_ready(present)


def canary_status(present: Object, name: str, percent: int) -> Object | None:
    """The status of a canary with its share of the traffic, if the controller has seen both (Standard mode)."""
    statuses = (present.get("status") or {}).get("canaryStatuses") or ()
    return next((dict(found) for found in statuses if found.get("name") == name and found.get("trafficPercent", 0) == percent), None)


def revision_with(present: Object, percent: int) -> str | None:
    """The newest revision, if it is ready and has this share of the traffic (Knative mode)."""
    status = (present.get("status") or {}).get("components", {}).get("predictor", {})
    created, ready = status.get("latestCreatedRevision"), status.get("latestReadyRevision")
    share = next((route.get("percent", 0) for route in status.get("traffic") or () if route.get("latestRevision")), 0)
    return str(created) if created and created == ready and share == percent else None


def failure_of(model_status: Object) -> str | None:
    """Why KServe failed to load a model, or ``None``."""
    if model_status.get("transitionStatus") not in _FAILED:
        return None
    info = model_status.get("lastFailureInfo", {})
    return str(info.get("message") or info.get("reason") or model_status["transitionStatus"]).strip().rstrip(".")


class KServeBackend:
    """The backend with an InferenceService."""

    def __init__(self, cluster: Cluster, settings: RollOutSettings) -> None:
        """Look at nothing yet."""
        self._cluster, self._settings = cluster, settings
        self._before: Object | None = None
        self._standing: Candidate | None = None
        self._candidate: Candidate | None = None
        self._may_have_promoted = False
        self._revision_before: str | None = None
        self._new_revision: str | None = None

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
        self._revision_before = self._predictor_status(self._before).get("latestReadyRevision")
        return self._standing

    def bring_up(self, candidate: Candidate, deadline: Deadline) -> None:
        """Apply the candidate without traffic; if nothing is deployed yet, as the stable predictor."""
        self._candidate = candidate
        if self._before is None:
            self._may_have_promoted = True
            self._apply_stable(candidate)
            self._wait_serving(candidate, deadline, "the first version did not become ready")
        elif not self._is_served():
            self._apply_canary(0)
            self._wait_canary(0, deadline)

    def address(self) -> str:
        """The canary's address: a tagged route in Knative mode, the predictor's Service in Standard mode."""
        assert self._candidate is not None
        present = self._cluster.get(INFERENCE_SERVICE, self._settings.name) or {}
        tagged = [route["url"] for route in self._predictor_status(present).get("traffic") or () if route.get("latestRevision") and route.get("url")]
        if tagged:
            return str(tagged[0])
        return f"http://{service_name(self._settings.name, predictor_name(self._candidate.uri))}.{self._settings.namespace}.svc"

    def share(self, deadline: Deadline) -> None:
        """Give the candidate its share of the traffic; it must stay ready."""
        if self._before is None or self._is_served():
            return
        self._apply_canary(self._settings.canary_percent)
        time = Deadline(self._settings.share_seconds)
        while True:
            deadline.check(f"the canary did not have its share of the traffic for {self._settings.share_seconds} s")
            self._wait_canary(self._settings.canary_percent, deadline)
            if not time.left():
                return
            time.pause(1.0)

    def promote(self, deadline: Deadline) -> str:
        """Make the candidate's predictor the stable one and drop the canary."""
        assert self._candidate is not None
        self._may_have_promoted = True
        written = self._apply_stable(self._candidate)
        present = self._wait_serving(self._candidate, deadline, "the promoted version did not become ready")
        if present["spec"] != written["spec"]:
            raise ObjectConflict(f"{self._describe()} was changed by another process")
        return f"inferenceservice/{self._settings.name} generation {present['metadata']['generation']}"

    def changed(self) -> bool:
        """Whether the stable predictor may have been changed; in Knative mode the canary uses the same field."""
        return self._may_have_promoted

    def roll_back(self, deadline: Deadline) -> None:
        """Apply the previous predictor, without a canary."""
        if self._before is None:
            self._cluster.delete(INFERENCE_SERVICE, self._settings.name)
            return
        self._cluster.apply(INFERENCE_SERVICE, inference_service(self._settings, owned(self._before), self._standing))
        self._wait_serving(self._standing, deadline, "the previous version did not become ready again")

    def remove_canary(self, deadline: Deadline) -> None:
        """Do nothing: the promotion has already removed the canary."""

    def _is_served(self) -> bool:
        """Whether the stable predictor already serves this model: names must be unique."""
        return self._standing is not None and self._candidate is not None and self._standing.uri == self._candidate.uri

    def _apply_stable(self, candidate: Candidate) -> Object:
        return self._cluster.apply(INFERENCE_SERVICE, inference_service(self._settings, predictor(self._settings, candidate), candidate))

    def _apply_canary(self, percent: int) -> None:
        assert self._before is not None
        assert self._candidate is not None
        new = predictor(self._settings, self._candidate)
        if self._settings.mode == "Knative":
            # The annotations still name the promoted model: a roll-out that is killed here has promoted nothing.
            body = inference_service(self._settings, {**new, "canaryTrafficPercent": percent}, self._standing)
            self._may_have_promoted = True
        else:
            # The schema in older API servers requires the container's name in this list.
            canary = [{"trafficPercent": percent, "predictor": {**new, "minReplicas": 1, "model": {**new["model"], "name": CONTAINER}}}]
            body = inference_service(self._settings, owned(self._before), self._standing, canary=canary)
        self._cluster.apply(INFERENCE_SERVICE, body)

    def _wait_canary(self, percent: int, deadline: Deadline) -> None:
        """Wait until the canary is ready with its share of the traffic."""
        assert self._candidate is not None
        name = predictor_name(self._candidate.uri)

        def standard(present: Object | None) -> bool | None:
            status = canary_status(self._there(present), name, percent)
            if (reason := self._reason(name, {} if status is None else status.get("modelStatus", {}))) is not None:
                raise PredictorFailed(f"the canary {name} did not become ready: {reason}")
            return True if status is not None and status.get("ready") else None

        def knative(present: Object | None) -> bool | None:
            there = self._there(present)
            created = self._predictor_status(there).get("latestCreatedRevision")
            if created == self._revision_before:
                return None  # the status is from before the canary
            self._new_revision = created
            if (reason := failure_of(there["status"].get("modelStatus", {}))) is not None:
                raise PredictorFailed(f"the new revision did not become ready: {reason}")
            return True if revision_with(there, percent) == created else None

        decide = standard if self._settings.mode == "Standard" else knative
        self._cluster.wait(INFERENCE_SERVICE, self._settings.name, decide, deadline, f"the canary {name} did not become ready")

    def _wait_serving(self, candidate: Candidate | None, deadline: Deadline, what: str) -> Object:
        """Wait until the InferenceService serves a model alone; one that no roll-out made has no name of ours."""

        def decide(present: Object | None) -> Object | None:
            there = self._there(present)
            if self._settings.mode == "Knative" and not self._is_of(there, candidate):
                return None  # the status is of another revision
            name = there["spec"]["predictor"].get("name")
            if (reason := self._reason(name, (there.get("status") or {}).get("modelStatus", {}))) is not None:
                raise PredictorFailed(f"{what}: {reason}")
            if self._settings.mode == "Standard":
                return there if serves_alone(there, name) else None
            return there if revision_with(there, 100) is not None and is_ready(there) else None

        return self._cluster.wait(INFERENCE_SERVICE, self._settings.name, decide, deadline, what)

    def _is_of(self, present: Object, candidate: Candidate | None) -> bool:
        """Whether the newest revision is a candidate's, or for a roll-back: not the new one (Knative mode)."""
        is_new = self._predictor_status(present).get("latestCreatedRevision") == self._new_revision
        return self._new_revision is None or is_new is (candidate == self._candidate)

    def _reason(self, predictor: str | None, model_status: Object) -> str | None:
        """Why a predictor cannot become ready, or ``None``. KServe itself does not say it of a canary; its pods do."""
        if (reason := failure_of(model_status)) is not None:
            return reason
        if self._settings.mode != "Standard":
            return None
        service = self._cluster.get(SERVICE, service_name(self._settings.name, predictor))
        trouble = None if service is None else trouble_of(self._cluster.list(POD, service["spec"]["selector"]))
        return trouble.sentence if trouble is not None and trouble.hopeless else None

    def _there(self, present: Object | None) -> Object:
        if present is None:
            raise ObjectConflict(f"{self._describe()} was deleted by another process")
        return present

    @staticmethod
    def _predictor_status(present: Object) -> Object:
        return dict(present.get("status", {}).get("components", {}).get("predictor", {}))

    def _describe(self) -> str:
        return f"InferenceService {self._settings.namespace}/{self._settings.name}"
