"""Roll out by KServe (0.20 or newer): one InferenceService, claimed field by field through server-side apply.

Standard mode knows a list of canaries beside the stable predictor, Knative mode a share of the traffic for the newest revision.
Each ignores the other's fields without a word, so a mode is a setting and never guessed.
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
FORMAT = "erasediff"  # the ServingRuntime's own; the manifests bring it
CONTAINER = "kserve-container"  # what KServe calls the container that serves, whatever is asked for
_FAILED = {"BlockedByFailedLoad", "InvalidSpec"}


class PredictorFailed(EraseDiffError):
    """KServe says that a predictor does not come up."""


def storage_uri(settings: RollOutSettings, uri: str) -> str:
    """What KServe calls the place where a model was published."""
    return uri if uri.startswith("s3://") else f"pvc://{settings.claim}/{Path(uri).relative_to(settings.claim_mount)}"


def predictor_name(uri: str) -> str:
    """A name for the predictor of a model; two models that were published never share one."""
    return f"m{sha256_bytes(uri.encode())[:10]}"


def predictor(settings: RollOutSettings, candidate: Candidate) -> Object:
    """A predictor that serves a candidate by our ServingRuntime."""
    named = {"name": predictor_name(candidate.uri)} if settings.mode == "Standard" else {}
    model = {"modelFormat": {"name": FORMAT}, "protocolVersion": "v2", "storageUri": storage_uri(settings, candidate.uri)}
    return {**named, "minReplicas": settings.replicas, "serviceAccountName": settings.service_account, "model": model}


def inference_service(settings: RollOutSettings, stable: Object | None, standing: Candidate | None, **spec: Any) -> Object:
    """The fields that a roll-out claims; a stable predictor that is somebody else's is left out."""
    annotations = {MODE_ANNOTATION: settings.mode, **(standing.annotations() if standing else {})}
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": {"name": settings.name, "labels": {"app.kubernetes.io/name": "erasediff"}, "annotations": annotations},
        "spec": ({} if stable is None else {"predictor": stable}) | spec,
    }


def owned(present: Object) -> Object | None:
    """Of a predictor that is there, the fields that a roll-out claims; ``None`` if none made it."""
    if serving_candidate(present["metadata"].get("annotations")) is None:
        return None
    found = present["spec"]["predictor"]
    kept = {name: found[name] for name in ("name", "minReplicas", "serviceAccountName") if name in found}
    model = {name: found["model"][name] for name in ("modelFormat", "protocolVersion", "storageUri") if name in found.get("model", {})}
    return {**kept, "model": model}


def is_of_this_generation(present: Object) -> bool:
    """Whether the status speaks of the object as it is now; "ready" of an older generation is a known trap."""
    return bool(present.get("status", {}).get("observedGeneration", 0) >= present["metadata"]["generation"])


def is_ready(present: Object) -> bool:
    """Whether the newest generation is ready as a whole."""
    conditions = present.get("status", {}).get("conditions") or ()
    return is_of_this_generation(present) and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def failure_of(model_status: Object) -> str | None:
    """Why KServe gave a model up, or ``None`` while it has not."""
    if model_status.get("transitionStatus") not in _FAILED:
        return None
    info = model_status.get("lastFailureInfo", {})
    return str(info.get("message") or info.get("reason") or model_status["transitionStatus"]).strip().rstrip(".")


def canary_status(present: Object, name: str) -> Object | None:
    """What the status says of a canary, if it speaks of this generation."""
    if not is_of_this_generation(present):
        return None
    return next((dict(status) for status in present["status"].get("canaryStatuses") or () if status.get("name") == name), None)


class KServeBackend:
    """The seam over an InferenceService."""

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
            BadInput: it is in another mode, in which our fields would be ignored.
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
        """Apply the candidate without traffic; where nothing serves yet, as the stable predictor."""
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
        """The canary's own address: a tagged route in Knative mode, the predictor's own Service in Standard mode."""
        assert self._candidate is not None
        present = self._cluster.get(INFERENCE_SERVICE, self._settings.name) or {}
        tagged = [route["url"] for route in self._predictor_status(present).get("traffic") or () if route.get("latestRevision") and route.get("url")]
        if tagged:
            return str(tagged[0])
        names = {"name": self._settings.name, "namespace": self._settings.namespace, "predictor": predictor_name(self._candidate.uri)}
        return self._settings.canary_address.format(**names)

    def share(self, deadline: Deadline) -> None:
        """Give the candidate its percentage; it has to stay ready."""
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
            raise ObjectConflict(f"{self._describe()} was changed by somebody else meanwhile")
        return f"inferenceservice/{self._settings.name} generation {present['metadata']['generation']}"

    def changed(self) -> bool:
        """Whether the stable predictor may have been written; in Knative mode the canary is the same field."""
        return self._may_have_promoted

    def roll_back(self, deadline: Deadline) -> None:
        """Apply what was there, without a canary."""
        if self._before is None:
            self._cluster.delete(INFERENCE_SERVICE, self._settings.name)
            return
        self._cluster.apply(INFERENCE_SERVICE, inference_service(self._settings, owned(self._before), self._standing))
        self._wait_ready(deadline, "the previous version did not become ready again")

    def remove_canary(self, deadline: Deadline) -> None:
        """Nothing stands beside a predictor that has been promoted."""

    def _is_served(self) -> bool:
        """Whether the stable predictor is this model already: a name must not be there twice."""
        return self._standing is not None and self._candidate is not None and self._standing.uri == self._candidate.uri

    def _apply_stable(self, candidate: Candidate) -> Object:
        return self._cluster.apply(INFERENCE_SERVICE, inference_service(self._settings, predictor(self._settings, candidate), candidate))

    def _apply_canary(self, percent: int) -> None:
        assert self._before is not None
        assert self._candidate is not None
        new = predictor(self._settings, self._candidate)
        if self._settings.mode == "Knative":
            # The annotations go on naming what is promoted: a roll-out that is killed here has not promoted anything.
            body = inference_service(self._settings, {**new, "canaryTrafficPercent": percent}, self._standing)
            self._may_have_promoted = True
        else:
            # In this list the schema of an older API server, which knows no empty default, wants the container's name.
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
            raise ObjectConflict(f"{self._describe()} was deleted by somebody else meanwhile")
        return present

    @staticmethod
    def _predictor_status(present: Object) -> Object:
        return dict(present.get("status", {}).get("components", {}).get("predictor", {}))

    def _describe(self) -> str:
        return f"InferenceService {self._settings.namespace}/{self._settings.name}"
