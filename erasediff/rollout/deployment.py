"""Roll out on any cluster: one Deployment and Service for the stable version, one of each for the canary."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from erasediff.cluster.answers import ObjectConflict
from erasediff.cluster.api import DEPLOYMENT, ENDPOINTS, POD, SERVICE, Cluster, Object
from erasediff.cluster.deadline import Deadline, TimeUp
from erasediff.cluster.events import with_warnings
from erasediff.cluster.pods import names_behind, restarts, trouble_of
from erasediff.errors import EraseDiffError
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Candidate, serving_candidate
from erasediff.rollout.objects import Track, check_own, deployment, deployment_name, selector, service


class CanaryFailed(EraseDiffError):
    """Pods of a new version do not become or stay ready."""


class DeploymentBackend:
    """The backend with plain Deployments.

    The stable Service selects only the stable pods, and both tracks while the canary has its share of the traffic. So the canary gets no traffic
    before it is tested, and the numbers of pods determine the shares.
    """

    def __init__(self, cluster: Cluster, settings: RollOutSettings) -> None:
        """Take the cluster and the settings, without calls."""
        self._cluster, self._settings = cluster, settings
        self._stable, self._canary = deployment_name(settings, "stable"), deployment_name(settings, "canary")
        self._before: Object | None = None
        self._candidate: Candidate | None = None
        self._may_have_written = False

    def look(self) -> Candidate | None:
        """Remember the stable Deployment.

        Raises:
            BadInput: a roll-out did not make the Deployment of this name.
        """
        self._before = self._cluster.get(DEPLOYMENT, self._stable)
        check_own(DEPLOYMENT, self._before)
        check_own(SERVICE, self._cluster.get(SERVICE, self._stable))
        return None if self._before is None else serving_candidate(self._before["spec"]["template"]["metadata"].get("annotations"))

    def bring_up(self, candidate: Candidate, deadline: Deadline) -> None:
        """Start one pod of the candidate, after removing leftovers of a killed roll-out."""
        self._candidate = candidate
        self.remove_canary(deadline)
        self._ensure_service("stable")
        self._ensure_service("canary")
        self._cluster.create(DEPLOYMENT, deployment(self._settings, "canary", candidate, 1))
        self._wait("canary", deadline, f"the canary {self._canary} did not become ready")

    def address(self) -> str:
        """The canary's Service."""
        return f"http://{self._canary}.{self._settings.namespace}.svc"

    def share(self, deadline: Deadline) -> None:
        """Let the stable Service select both tracks; the canary must stay ready without restarts."""
        self._select(None)
        time = Deadline(self._settings.share_seconds)
        while time.left():
            deadline.check(f"the canary {self._canary} did not have its share of the traffic for {self._settings.share_seconds} s")
            pods, present = self._pods("canary"), self._cluster.get(DEPLOYMENT, self._canary)
            if present is None or not is_rolled_out(present) or restarts(pods):
                trouble = trouble_of(pods)
                raise CanaryFailed(f"the canary {self._canary} did not stay ready under traffic" + (f" ({trouble.sentence})" if trouble else ""))
            time.pause(1.0)

    def promote(self, deadline: Deadline) -> str:
        """Update the stable Deployment, then remove the canary."""
        assert self._candidate is not None
        wanted = deployment(self._settings, "stable", self._candidate, self._settings.replicas)
        if self._before is None:
            self._may_have_written = True
            written = self._cluster.create(DEPLOYMENT, wanted)
        else:
            written = self._cluster.change(DEPLOYMENT, self._stable, lambda present: self._updated(present, wanted))
        present = self._wait("stable", deadline, f"the new version of {self._stable} did not become available")
        if _spec_without_replicas(present) != _spec_without_replicas(written):
            raise self._changed_by_others()
        self.remove_canary(deadline)
        return f"deployment/{self._stable} generation {present['metadata']['generation']}"

    def _updated(self, present: Object, wanted: Object) -> Object:
        """The current Deployment with our spec. The number of replicas stays: an autoscaler may own it."""
        if _spec_without_replicas(present) != _spec_without_replicas(self._before or {}):
            raise self._changed_by_others()
        self._may_have_written = True  # from here on: a lost answer may have been a success
        metadata = present["metadata"]
        metadata = {**metadata, "annotations": {**metadata.get("annotations", {}), **wanted["metadata"]["annotations"]}}
        return {**present, "metadata": metadata, "spec": {**wanted["spec"], "replicas": present["spec"].get("replicas", 1)}}

    def _changed_by_others(self) -> ObjectConflict:
        return ObjectConflict(f"Deployment {self._settings.namespace}/{self._stable} was changed by another process")

    def changed(self) -> bool:
        """Whether the stable Deployment may have been written."""
        return self._may_have_written

    def roll_back(self, deadline: Deadline) -> None:
        """Restore the stable Deployment, unless another process changed it after us, and remove the canary."""
        if self._may_have_written:
            self._restore(deadline)
        self.remove_canary(deadline)
        if self._before is None:
            self._cluster.delete(SERVICE, self._stable)

    def _restore(self, deadline: Deadline) -> None:
        before = self._before
        if before is None:
            self._delete("stable", deadline)
            return

        def edit(present: Object) -> Object | None:
            if _spec_without_replicas(present) == _spec_without_replicas(before):
                return None
            if serving_candidate(present["spec"]["template"]["metadata"].get("annotations")) != self._candidate:
                raise self._changed_by_others()
            annotations = {**present["metadata"].get("annotations", {}), **_own_annotations(before["metadata"].get("annotations", {}))}
            spec = {**before["spec"], "replicas": present["spec"].get("replicas", 1)}
            return {**present, "metadata": {**present["metadata"], "annotations": annotations}, "spec": spec}

        self._cluster.change(DEPLOYMENT, self._stable, edit)
        self._wait("stable", deadline, f"the previous version of {self._stable} did not become available again")

    def remove_canary(self, deadline: Deadline) -> None:
        """Take the canary out of the stable Service, then delete it."""
        if self._cluster.get(SERVICE, self._stable) is not None:
            self._select("stable")
            self._without_canary(deadline)
        self._cluster.delete(SERVICE, self._canary)
        self._delete("canary", deadline)

    def _without_canary(self, deadline: Deadline) -> None:
        """Wait until the stable Service has no canary among its endpoints: a pod must not end while it gets traffic."""
        names = {pod["metadata"]["name"] for pod in self._pods("canary")}

        def apart(endpoints: Object | None) -> bool | None:
            return None if names_behind(endpoints) & names else True

        self._cluster.wait(ENDPOINTS, self._stable, apart, deadline, f"the canary did not leave Service {self._stable}")

    def _ensure_service(self, track: Track) -> None:
        if self._cluster.get(SERVICE, deployment_name(self._settings, track)) is None:
            self._cluster.create(SERVICE, service(self._settings, track))

    def _select(self, track: Track | None) -> None:
        wanted = selector(self._settings, track)

        def edit(present: Object) -> Object | None:
            if present["spec"].get("selector") == wanted:
                return None
            return {**present, "spec": {**present["spec"], "selector": wanted}}

        self._cluster.change(SERVICE, self._stable, edit)

    def _pods(self, track: Track) -> list[Object]:
        pods = self._cluster.list(POD, selector(self._settings, track))
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def _wait(self, track: Track, deadline: Deadline, what: str) -> Object:
        """Wait until the newest generation of a track is available.

        Raises:
            CanaryFailed: it failed; the message quotes its newest pods.
        """

        def decide(present: Object | None) -> Object | None:
            if present is None:
                raise ObjectConflict(f"Deployment {self._settings.namespace}/{deployment_name(self._settings, track)} was deleted by another process")
            if is_rolled_out(present):
                return present
            trouble = trouble_of(self._newest(track, present))
            if gave_up(present) or (trouble is not None and trouble.lasts_too_long(datetime.now(UTC))):
                raise CanaryFailed(f"{what}: {self._why(track, present) or 'Kubernetes saw no progress (ProgressDeadlineExceeded)'}")
            return None

        name = deployment_name(self._settings, track)
        try:
            return self._cluster.wait(DEPLOYMENT, name, decide, deadline, what)
        except TimeUp:
            present = self._cluster.get(DEPLOYMENT, name)
            if present is None or (why := self._why(track, present)) is None:
                raise
            raise CanaryFailed(f"{what} in time: {why}") from None

    def _why(self, track: Track, present: Object) -> str | None:
        """Why a track's newest pods are not ready, as far as the cluster says it."""
        trouble = trouble_of(with_warnings(self._newest(track, present), self._cluster.events()))
        return refused_pods(present) if trouble is None else trouble.sentence

    def _newest(self, track: Track, present: Object) -> list[Object]:
        """The pods of the current Deployment; a rolling update also has older ones."""
        wanted = serving_candidate(present["spec"]["template"]["metadata"].get("annotations"))
        return [pod for pod in self._pods(track) if serving_candidate(pod["metadata"].get("annotations")) == wanted]

    def _delete(self, track: Track, deadline: Deadline) -> None:
        """Delete a track's Deployment and wait until its pods are gone.

        Kubernetes deletes them a moment later, and the next roll-out of the same version would take their status for its own.
        """
        name = deployment_name(self._settings, track)
        self._cluster.delete(DEPLOYMENT, name)
        self._cluster.wait(DEPLOYMENT, name, lambda present: True if present is None else None, deadline, f"Deployment {name} was not deleted")
        while self._pods(track):
            deadline.check(f"the pods of Deployment {name} were not deleted")
            deadline.pause(0.5)


def _spec_without_replicas(present: Object) -> dict[str, Any]:
    """The spec without the number of replicas, which an autoscaler may change."""
    return {name: value for name, value in present.get("spec", {}).items() if name != "replicas"}


def _own_annotations(annotations: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if name.startswith("erasediff.io/")}


def is_rolled_out(deployment: Object) -> bool:
    """Whether all pods are available and of the newest generation."""
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and updated == wanted
        and status.get("replicas", 0) == updated
        and status.get("availableReplicas", 0) >= wanted
    )


def refused_pods(deployment: Object) -> str | None:
    """Why the cluster lets no pods of a Deployment in, such as a quota or a limit; ``None`` if it does."""
    conditions = deployment.get("status", {}).get("conditions") or ()
    messages = (str(c.get("message", "")) for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True")
    return next((f"the cluster refuses its pods ({message.rstrip('.')})" for message in messages), None)


def gave_up(deployment: Object) -> bool:
    """Whether Kubernetes reports that the newest generation makes no progress."""
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return False
    return any(c["type"] == "Progressing" and c.get("reason") == "ProgressDeadlineExceeded" for c in status.get("conditions") or ())
