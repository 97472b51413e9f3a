"""Roll out with KServe in Knative mode: the candidate is the newest revision, with a share of the traffic."""

from __future__ import annotations

from erasediff.cluster.api import INFERENCE_SERVICE, Cluster, Object
from erasediff.cluster.deadline import Deadline
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate
from erasediff.rollout.kserve import InferenceServiceBackend, PredictorFailed, failure_of, inference_service, is_ready, predictor, service_name


def revision_with(present: Object, percent: int) -> str | None:
    """The newest revision, if it is ready and has this share of the traffic (Knative mode)."""
    status = (present.get("status") or {}).get("components", {}).get("predictor", {})
    created, ready = status.get("latestCreatedRevision"), status.get("latestReadyRevision")
    share = next((route.get("percent", 0) for route in status.get("traffic") or () if route.get("latestRevision")), 0)
    return str(created) if created and created == ready and share == percent else None


class KnativeBackend(InferenceServiceBackend):
    """The backend with an InferenceService whose revisions Knative routes to."""

    def __init__(self, cluster: Cluster, settings: RollOutSettings) -> None:
        """Look at nothing yet."""
        super().__init__(cluster, settings)
        self._revision_before: str | None = None
        self._new_revision: str | None = None

    def look(self) -> Candidate | None:
        """Remember the InferenceService and its newest ready revision."""
        standing = super().look()
        self._revision_before = None if self._before is None else _predictor_status(self._before).get("latestReadyRevision")
        return standing

    def bring_up(self, candidate: Candidate, deadline: Deadline) -> None:
        """Apply the candidate without traffic; if nothing is deployed yet, as the stable predictor."""
        self._candidate = candidate
        if self._before is None:
            self._bring_up_first(candidate, deadline)
        elif self._has_canary():
            self._apply_share(0)
            self._wait_revision(0, deadline)

    def address(self) -> str:
        """The newest revision's tagged route; a first version has the address of Knative's Service."""
        present = self._cluster.get(INFERENCE_SERVICE, self._settings.name) or {}
        tagged = [route["url"] for route in _predictor_status(present).get("traffic") or () if route.get("latestRevision") and route.get("url")]
        return str(tagged[0]) if tagged else f"http://{service_name(self._settings.name, None)}.{self._settings.namespace}.svc"

    def share(self, deadline: Deadline) -> None:
        """Give the candidate its share of the traffic; it must stay ready."""
        if not self._has_canary():
            return
        self._apply_share(self._settings.canary_percent)
        time = Deadline(self._settings.share_seconds)
        while True:
            deadline.check(f"the canary did not have its share of the traffic for {self._settings.share_seconds} s")
            self._wait_revision(self._settings.canary_percent, deadline)
            if not time.left():
                return
            time.pause(1.0)

    def promote(self, deadline: Deadline) -> str:
        """Give the newest revision all the traffic."""
        return self._make_stable(deadline)

    def roll_back(self, deadline: Deadline) -> None:
        """Apply the previous predictor, without a share."""
        if self._before is None:
            self._cluster.delete(INFERENCE_SERVICE, self._settings.name)
            return
        self._restore(self._before, deadline)

    def remove_canary(self, deadline: Deadline) -> None:
        """Do nothing: the promotion has already removed the canary."""

    def _apply_share(self, percent: int) -> None:
        """Apply the candidate with its share; the annotations still name the promoted model: who is killed here has promoted nothing."""
        assert self._candidate is not None
        new = {**predictor(self._settings, self._candidate), "canaryTrafficPercent": percent}
        self._may_have_promoted = True
        self._cluster.apply(INFERENCE_SERVICE, inference_service(self._settings, new, self._standing))

    def _wait_revision(self, percent: int, deadline: Deadline) -> None:
        """Wait until the candidate's revision is ready with its share of the traffic."""

        def decide(present: Object | None) -> bool | None:
            there = self._there(present)
            created = _predictor_status(there).get("latestCreatedRevision")
            if created == self._revision_before:
                return None  # the status is from before the canary
            self._new_revision = created
            if (reason := failure_of(there["status"].get("modelStatus", {}))) is not None:
                raise PredictorFailed(f"the new revision did not become ready: {reason}")
            return True if revision_with(there, percent) == created else None

        self._cluster.wait(INFERENCE_SERVICE, self._settings.name, decide, deadline, "the new revision did not become ready")

    def _serves(self, present: Object, candidate: Candidate | None, what: str) -> bool:
        if not self._is_of(present, candidate):
            return False  # the status is of another revision
        if (reason := failure_of((present.get("status") or {}).get("modelStatus", {}))) is not None:
            raise PredictorFailed(f"{what}: {reason}")
        return revision_with(present, 100) is not None and is_ready(present)

    def _is_of(self, present: Object, candidate: Candidate | None) -> bool:
        """Whether the newest revision is a candidate's, or for a roll-back: not the new one."""
        is_new = _predictor_status(present).get("latestCreatedRevision") == self._new_revision
        return self._new_revision is None or is_new is (candidate == self._candidate)


def _predictor_status(present: Object) -> Object:
    return dict(present.get("status", {}).get("components", {}).get("predictor", {}))
