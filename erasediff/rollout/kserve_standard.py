"""Roll out with KServe in Standard mode: the candidate is a canary beside the stable predictor, and clients have one Service of ours.

KServe gives every predictor a Service of its own, and each promotion is another predictor: of KServe's addresses inside the cluster none stays.
So clients use a Service that selects the pods of the stable predictor, and the pods of both while the canary has its share. It moves to the
candidate's pods before the other predictor goes, and back before the candidate goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from erasediff.cluster.api import INFERENCE_SERVICE, POD, SERVICE, Cluster, Object
from erasediff.cluster.deadline import Deadline, TimeUp
from erasediff.cluster.events import last_warning, with_warnings
from erasediff.cluster.pods import ready, trouble_of
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate
from erasediff.rollout.kserve import (
    InferenceServiceBackend,
    PredictorFailed,
    failure_of,
    inference_service,
    is_ready,
    owned,
    predictor,
    predictor_name,
    service_name,
)
from erasediff.rollout.objects import PORT
from erasediff.rollout.smoke import SmokeFailed, check_serves
from erasediff.rollout.stable_service import StableService

CONTAINER = "kserve-container"  # KServe always gives the serving container this name
SHARED_LABEL = "serving.kserve.io/inferenceservice"  # KServe gives it to all pods of an InferenceService
_ASK_SECONDS = 10.0  # a pod that is ready answers at once, and one that ends meanwhile never does


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


class StandardBackend(InferenceServiceBackend):
    """The backend with an InferenceService whose predictors are Deployments."""

    def __init__(self, cluster: Cluster, settings: RollOutSettings) -> None:
        """Look at nothing yet."""
        super().__init__(cluster, settings)
        self._service = StableService(cluster, settings)

    def look(self) -> Candidate | None:
        """Remember the InferenceService.

        Raises:
            BadInput: it has another mode, or a Service of somebody else has the name of ours.
        """
        self._service.check_own()
        return super().look()

    def bring_up(self, candidate: Candidate, deadline: Deadline) -> None:
        """Apply the candidate without traffic; if nothing is deployed yet, as the stable predictor.

        A roll-out that was killed may have left a canary, which the new one replaces, and our Service before its pods.
        """
        self._candidate = candidate
        if self._before is None:
            self._bring_up_first(candidate, deadline)
            return
        self._service.point(self._selector(_name(self._before), deadline), deadline)
        if self._has_canary():
            self._apply_canary(0, 1)
            self._wait_canary(0, deadline)

    def address(self) -> str:
        """A pod of the candidate: its Service may be one without an address of its own."""
        assert self._candidate is not None
        name = predictor_name(self._candidate.uri)
        pods = ready(self._pods(name))
        if not pods:
            raise PredictorFailed(f"no pod of the predictor {name} is ready")
        return _address(pods[0])

    def share(self, deadline: Deadline) -> None:
        """Give the candidate its share of the traffic; it must stay ready."""
        if not self._has_canary():
            return
        self._apply_canary(self._settings.canary_percent, 1)
        self._wait_canary(self._settings.canary_percent, deadline)
        if self._settings.canary_percent:
            self._service.point({SHARED_LABEL: self._settings.name}, deadline)
        time = Deadline(self._settings.share_seconds)
        while time.left():
            deadline.check(f"the canary did not have its share of the traffic for {self._settings.share_seconds} s")
            self._wait_canary(self._settings.canary_percent, deadline)
            time.pause(1.0)

    def promote(self, deadline: Deadline) -> str:
        """Bring up all pods of the candidate, let our Service select them alone, and only then drop the other predictor."""
        if self._has_canary():
            self._apply_canary(self._settings.canary_percent, self._settings.replicas)
            self._wait_canary(self._settings.canary_percent, deadline)
            self._take_over(deadline)
        revision = self._make_stable(deadline)
        self._take_over(deadline)
        return revision

    def roll_back(self, deadline: Deadline) -> None:
        """Let our Service select the previous predictor's pods, which a promotion has taken away, and then drop the candidate."""
        if self._before is None:
            self._service.remove()
            self._cluster.delete(INFERENCE_SERVICE, self._settings.name)
            return
        name = _name(self._before)
        if self._may_have_promoted and self._has_canary():
            self._apply_canary(0, self._settings.replicas)
            count = self._before["spec"]["predictor"].get("minReplicas") or 1
            self._wait_pods(name, count, lambda pod: None, deadline, "the previous version did not become ready again")
        self._service.point(self._selector(name, deadline), deadline)
        self._restore(self._before, deadline)

    def remove_canary(self, deadline: Deadline) -> None:
        """Do nothing: the promotion has already removed the canary."""

    def _take_over(self, deadline: Deadline) -> None:
        """Ask every pod of the candidate which model it serves, and let our Service select them alone."""
        assert self._candidate is not None
        name, model = predictor_name(self._candidate.uri), self._candidate.model

        def check(pod: Object) -> None:
            check_serves(_address(pod), model, _ASK_SECONDS)

        self._wait_pods(name, self._settings.replicas, check, deadline, f"not all pods of the predictor {name} became ready")
        self._service.point(self._selector(name, deadline), deadline)

    def _apply_canary(self, percent: int, replicas: int) -> None:
        assert self._before is not None
        assert self._candidate is not None
        new = predictor(self._settings, self._candidate)
        # The schema in older API servers requires the container's name in this list.
        canary = [{"trafficPercent": percent, "predictor": {**new, "minReplicas": replicas, "model": {**new["model"], "name": CONTAINER}}}]
        self._cluster.apply(INFERENCE_SERVICE, inference_service(self._settings, owned(self._before), self._standing, canary=canary))

    def _wait_canary(self, percent: int, deadline: Deadline) -> None:
        """Wait until the canary is ready with its share of the traffic."""
        assert self._candidate is not None
        name = predictor_name(self._candidate.uri)

        def decide(present: Object | None) -> bool | None:
            status = canary_status(self._there(present), name, percent)
            if (reason := self._reason(name, {} if status is None else status.get("modelStatus", {}))) is not None:
                raise PredictorFailed(f"the canary {name} did not become ready: {reason}")
            return True if status is not None and status.get("ready") else None

        with self._telling(name):
            self._cluster.wait(INFERENCE_SERVICE, self._settings.name, decide, deadline, f"the canary {name} did not become ready")

    def _wait_pods(self, name: str | None, count: int, check: Callable[[Object], None], deadline: Deadline, what: str) -> None:
        """Wait until so many pods of a predictor are ready, and each has passed a check."""
        passed: set[str] = set()
        while True:
            if (reason := self._reason(name, {})) is not None:
                raise PredictorFailed(f"{what}: {reason}")
            pods = ready(self._pods(name))
            for pod in pods:
                if pod["metadata"]["name"] not in passed and self._passes(name, pod, check):
                    passed.add(pod["metadata"]["name"])
            if len(pods) >= count and {pod["metadata"]["name"] for pod in pods} <= passed:
                return
            with self._telling(name):
                deadline.check(what)
            deadline.pause(1.0)

    def _wait_serving(self, candidate: Candidate | None, deadline: Deadline, what: str) -> Object:
        with self._telling(None if candidate is None else predictor_name(candidate.uri)):
            return super()._wait_serving(candidate, deadline, what)

    @contextmanager
    def _telling(self, name: str | None) -> Iterator[None]:
        """Say of a wait for a predictor that was in vain what the cluster says of its pods.

        Raises:
            PredictorFailed: the time is over, and the cluster says why.
        """
        try:
            yield
        except TimeUp as error:
            events, since = self._cluster.events(), datetime.now(UTC) - timedelta(seconds=self._settings.timeout_seconds)
            trouble = trouble_of(with_warnings(self._pods(name), events))
            why = last_warning(events, service_name(self._settings.name, name), since) if trouble is None else trouble.sentence
            if why is None:
                raise
            raise PredictorFailed(f"{error}: {why}") from None

    def _passes(self, name: str | None, pod: Object, check: Callable[[Object], None]) -> bool:
        """Whether a pod passes a check; one that ends meanwhile, as in a rolling update, does not have to."""
        try:
            check(pod)
        except SmokeFailed:
            if any(one["metadata"]["name"] == pod["metadata"]["name"] for one in ready(self._pods(name))):
                raise
            return False
        return True

    def _serves(self, present: Object, candidate: Candidate | None, what: str) -> bool:
        name = _name(present)
        if (reason := self._reason(name, (present.get("status") or {}).get("modelStatus", {}))) is not None:
            raise PredictorFailed(f"{what}: {reason}")
        return serves_alone(present, name)

    def _reason(self, name: str | None, model_status: Object) -> str | None:
        """Why a predictor cannot become ready, or ``None``. KServe itself does not say it of a canary; its pods do."""
        if (reason := failure_of(model_status)) is not None:
            return reason
        trouble = trouble_of(self._pods(name))
        return trouble.sentence if trouble is not None and trouble.lasts_too_long(datetime.now(UTC)) else None

    def _pods(self, name: str | None) -> list[Object]:
        """The pods of a predictor: those that KServe's own Service of it selects."""
        service = self._cluster.get(SERVICE, service_name(self._settings.name, name))
        return [] if service is None else self._cluster.list(POD, service["spec"]["selector"])

    def _selector(self, name: str | None, deadline: Deadline) -> dict[str, str]:
        """What KServe's own Service of a predictor selects."""
        service = service_name(self._settings.name, name)
        while (found := self._cluster.get(SERVICE, service)) is None:
            deadline.check(f"KServe did not make Service {self._settings.namespace}/{service}")
            deadline.pause(1.0)
        return dict(found["spec"]["selector"])


def _name(present: Object) -> str | None:
    """The name of the stable predictor; one that no roll-out made may have none."""
    name: str | None = present["spec"]["predictor"].get("name")
    return name


def _address(pod: Object) -> str:
    ip = str(pod["status"]["podIP"])
    return f"http://[{ip}]:{PORT}" if ":" in ip else f"http://{ip}:{PORT}"
