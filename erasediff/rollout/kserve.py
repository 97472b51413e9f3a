"""Roll out with KServe (0.20 or newer): one InferenceService, by server-side apply.

Standard mode has a list of canaries beside the stable predictor, Knative mode a traffic share for the newest revision. Each mode silently ignores
the other's fields, so the mode is a setting and never guessed.
"""

from __future__ import annotations

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


def is_of_this_generation(present: Object) -> bool:
    """Whether the status is of the current generation: a "ready" of an older one does not count."""
    return bool(present.get("status", {}).get("observedGeneration", 0) >= present["metadata"]["generation"])


def is_ready(present: Object) -> bool:
    """Whether the newest generation is ready as a whole."""
    conditions = present.get("status", {}).get("conditions") or ()
    return is_of_this_generation(present) and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def failure_of(model_status: Object) -> str | None:
    """Why KServe failed to load a model, or ``None``."""
    if model_status.get("transitionStatus") not in _FAILED:
        return None
    info = model_status.get("lastFailureInfo", {})
    return str(info.get("message") or info.get("reason") or model_status["transitionStatus"]).strip().rstrip(".")


def canary_status(present: Object, name: str) -> Object | None:
    """The status of a canary, if it is of the current generation."""
    if not is_of_this_generation(present):
        return None
    return next((dict(status) for status in present["status"].get("canaryStatuses") or () if status.get("name") == name), None)


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
            self._wait_ready(deadline, "the first version did not become ready")
        elif self._settings.mode == "Standard" and not self._is_served():
            self._apply_canary(0)
            self._wait_canary(deadline)
        elif self._settings.mode == "Knative":
            self._apply_canary(0)
            self._cluster.wait(INFERENCE_SERVICE, self._settings.name, self._has_new_revision, deadline, "the new revision did not become ready")

    def address(self) -> str:
        """The canary's address: a tagged route in Knative mode, the predictor's Service in Standard mode."""
        assert self._candidate is not None
        present = self._cluster.get(INFERENCE_SERVICE, self._settings.name) or {}
        tagged = [route["url"] for route in self._predictor_status(present).get("traffic") or () if route.get("latestRevision") and route.get("url")]
        if tagged:
            return str(tagged[0])
        names = {"name": self._settings.name, "namespace": self._settings.namespace, "predictor": predictor_name(self._candidate.uri)}
        return self._settings.canary_address.format(**names)

    def share(self, deadline: Deadline) -> None:
        """Give the candidate its share of the traffic; it must stay ready."""
        if self._before is None or self._is_served():
            return
        self._apply_canary(self._settings.canary_percent)
        time = Deadline(self._settings.share_seconds)
        while True:
            deadline.check(f"the canary did not have its share of the traffic for {self._settings.share_seconds} s")
            if self._settings.mode == "Standard":
                self._wait_canary(deadline)
            else:
                self._wait_ready(deadline, "the canary did not stay ready under traffic")
            if not time.left():
                return
            time.pause(1.0)

    def promote(self, deadline: Deadline) -> str:
        """Make the candidate's predictor the stable one and drop the canary."""
        assert self._candidate is not None
        self._may_have_promoted = True
        written = self._apply_stable(self._candidate)
        present = self._wait_ready(deadline, "the promoted version did not become ready")
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
        self._wait_ready(deadline, "the previous version did not become ready again")

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

    def _wait_canary(self, deadline: Deadline) -> None:
        assert self._candidate is not None
        name = predictor_name(self._candidate.uri)

        def decide(present: Object | None) -> bool | None:
            status = canary_status(self._there(present), name)
            if status is None:
                return None
            if (reason := failure_of(status.get("modelStatus", {}))) is not None:
                raise PredictorFailed(f"the canary {name} did not become ready: {reason}")
            return True if status.get("ready") else None

        self._cluster.wait(INFERENCE_SERVICE, self._settings.name, decide, deadline, f"the canary {name} did not become ready")

    def _wait_ready(self, deadline: Deadline, what: str) -> Object:
        def decide(present: Object | None) -> Object | None:
            there = self._there(present)
            if is_of_this_generation(there) and (reason := failure_of(there["status"].get("modelStatus", {}))) is not None:
                raise PredictorFailed(f"{what}: {reason}")
            return there if is_ready(there) else None

        return self._cluster.wait(INFERENCE_SERVICE, self._settings.name, decide, deadline, what)

    def _has_new_revision(self, present: Object | None) -> bool | None:
        there = self._there(present)
        status = self._predictor_status(there)
        if not is_of_this_generation(there):
            return None
        if (reason := failure_of(there["status"].get("modelStatus", {}))) is not None:
            raise PredictorFailed(f"the new revision did not become ready: {reason}")
        ready, created = status.get("latestReadyRevision"), status.get("latestCreatedRevision")
        fresh = ready is not None and ready == created and (self._is_served() or ready != self._revision_before)
        return True if fresh and is_ready(there) else None

    def _there(self, present: Object | None) -> Object:
        if present is None:
            raise ObjectConflict(f"{self._describe()} was deleted by another process")
        return present

    @staticmethod
    def _predictor_status(present: Object) -> Object:
        return dict(present.get("status", {}).get("components", {}).get("predictor", {}))

    def _describe(self) -> str:
        return f"InferenceService {self._settings.namespace}/{self._settings.name}"
