"""The objects of a cluster: plain dictionaries in and out, failures as sentences, and waiting that survives a lost watch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from erasediff.cluster.answers import ConnectionLost, Forbidden, ObjectConflict, ObjectRejected, UnknownKind, dropped, sentences
from erasediff.cluster.connection import configuration
from erasediff.cluster.deadline import Deadline

T = TypeVar("T")
Object = dict[str, Any]
Propagation = Literal["Background", "Foreground"]

MANAGER = "erasediff"
_CALL_SECONDS = 20
_ATTEMPTS = 5
_LOOK_SECONDS = 5  # a watch of one object does not see its pods, so they are polled this often


@dataclass(frozen=True)
class Kind:
    """A kind of object in a version of its API."""

    api_version: str
    kind: str


DEPLOYMENT, SERVICE, POD = Kind("apps/v1", "Deployment"), Kind("v1", "Service"), Kind("v1", "Pod")
ENDPOINTS, CONFIG_MAP, LEASE = Kind("v1", "Endpoints"), Kind("v1", "ConfigMap"), Kind("coordination.k8s.io/v1", "Lease")
NODE, EVENT = Kind("v1", "Node"), Kind("v1", "Event")
INFERENCE_SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService")


class Cluster:
    """The objects of one namespace."""

    def __init__(self, client: Any, namespace: str) -> None:
        """Use an ``ApiClient`` of the kubernetes package."""
        self.namespace = namespace
        self._api = client
        # The package's default discovery cache is a file in /tmp, where any user may have put it.
        self._cache = tempfile.TemporaryDirectory(prefix="erasediff-discovery-")

    @classmethod
    @contextmanager
    def configured(cls, namespace: str | None = None) -> Iterator[Cluster]:
        """The cluster of :func:`configuration`, without a call to it; its own namespace if none is named.

        Raises:
            BadInput: there is none.
        """
        from kubernetes import client

        settings, own = configuration()
        api = client.ApiClient(settings)
        cluster = cls(api, namespace or own)
        try:
            yield cluster
        finally:
            cluster.close()
            api.close()

    @classmethod
    @contextmanager
    def connected(cls, namespace: str) -> Iterator[Cluster]:
        """The same, once the cluster has answered a call.

        Raises:
            BadInput: there is none.
            Unreachable: it does not answer.
        """
        with cls.configured(namespace) as cluster:
            _ = cluster._client
            yield cluster

    def close(self) -> None:
        """Remove the discovery cache."""
        self._cache.cleanup()

    @cached_property
    def _client(self) -> Any:
        """The client that discovers kinds; made on first use, and again after the server was unreachable."""
        from kubernetes.dynamic import DynamicClient

        with sentences("list the kinds of objects", "the API"):
            return DynamicClient(self._api, cache_file=f"{tempfile.mkdtemp(dir=self._cache.name)}/cache.json")

    def _resource(self, kind: Kind) -> Any:
        try:
            return self._discover(kind)
        except ConnectionLost:
            self.__dict__.pop("_client", None)  # an interrupted discovery leaves it incomplete
            raise

    def _discover(self, kind: Kind) -> Any:
        from kubernetes.dynamic.exceptions import NotFoundError, ResourceNotFoundError, ResourceNotUniqueError

        client = self._client
        with sentences("list the kinds of objects", kind.kind):
            try:
                return client.resources.get(api_version=kind.api_version, kind=kind.kind)
            except (ResourceNotFoundError, ResourceNotUniqueError):
                prefix = "apis" if "/" in kind.api_version else "api"
                with suppress(NotFoundError):  # the discovery accepts a 503 as an answer; this call does not
                    client.request("get", f"/{prefix}/{kind.api_version}")
        raise UnknownKind(f"the cluster knows no {kind.kind} of {kind.api_version}: install its operator, or choose another backend.")

    def _describe(self, kind: Kind, name: str) -> str:
        return f"{kind.kind} {self.namespace}/{name}"

    def get(self, kind: Kind, name: str) -> Object | None:
        """An object, or ``None`` if there is none of that name."""
        from kubernetes.dynamic.exceptions import NotFoundError

        resource = self._resource(kind)
        with sentences("read", self._describe(kind, name)):
            try:
                return _plain(resource.get(name=name, namespace=self.namespace, _request_timeout=_CALL_SECONDS))
            except NotFoundError:
                return None

    def list(self, kind: Kind, labels: dict[str, str]) -> list[Object]:
        """The objects that carry all of these labels."""
        resource, selector = self._resource(kind), ",".join(f"{key}={value}" for key, value in labels.items())
        with sentences("list", f"{kind.kind}s in {self.namespace}"):
            found = resource.get(namespace=self.namespace, label_selector=selector, _request_timeout=_CALL_SECONDS)
            return list(_plain(found)["items"])

    def events(self) -> Sequence[Object]:
        """The events of the namespace; none where the Role does not allow to read them."""
        try:
            return self.list(EVENT, {})
        except Forbidden:
            return []

    def log(self, pod: str, container: str, lines: int) -> str:
        """The last lines of a container that has ended and was started again, or of its first start."""
        from kubernetes.client import ApiException, CoreV1Api

        def read(*, previous: bool) -> str:
            answer = CoreV1Api(self._api).read_namespaced_pod_log(
                pod, self.namespace, container=container, previous=previous, tail_lines=lines, _request_timeout=_CALL_SECONDS, _preload_content=False
            )
            return bytes(answer.data).decode(errors="replace")

        with sentences("read the log of", f"Pod {self.namespace}/{pod}"):
            try:
                return read(previous=True)
            except ApiException as error:
                if error.status != 400:  # there is no start before this one
                    raise
                return read(previous=False)

    def create(self, kind: Kind, body: Object) -> Object:
        """Create an object.

        Raises:
            ObjectConflict: there is one of that name.
            ObjectRejected: the cluster dropped a field of it; the object is deleted again.
        """
        resource = self._resource(kind)
        with sentences("create", self._describe(kind, body["metadata"]["name"])):
            written = _plain(resource.create(body=body, namespace=self.namespace, _request_timeout=_CALL_SECONDS))
        try:
            self._check_whole(kind, body, written)
        except ObjectRejected:
            self.delete(kind, body["metadata"]["name"])
            raise
        return written

    def _check_whole(self, kind: Kind, asked: Object, written: Object) -> None:
        """Check that the definition of a kind that the cluster was extended by has every field that was asked for.

        Raises:
            ObjectRejected: it lacks one.
        """
        group = kind.api_version.partition("/")[0]
        extends = "." in group and not group.endswith("k8s.io")
        if extends and (path := dropped(asked.get("spec"), written.get("spec"), "spec")) is not None:
            raise ObjectRejected(
                f"the cluster dropped {path} of {self._describe(kind, asked['metadata']['name'])}: its {group} is of another version than this needs "
                "(docs/kubeflow.md), so update it."
            )

    def replace(self, kind: Kind, body: Object) -> Object:
        """Replace an object; the ``resourceVersion`` in it must still be the one there.

        Raises:
            ObjectConflict: it is not.
        """
        resource = self._resource(kind)
        with sentences("change", self._describe(kind, body["metadata"]["name"])):
            return _plain(resource.replace(body=body, namespace=self.namespace, _request_timeout=_CALL_SECONDS))

    def change(self, kind: Kind, name: str, edit: Callable[[Object], Object | None]) -> Object:
        """Read, edit and replace an object, and retry on a conflict; an edit that returns ``None`` changes nothing.

        Raises:
            ObjectConflict: it is gone, or every try met a conflict.
        """
        attempt = 0
        while True:
            attempt += 1
            present = self.get(kind, name)
            if present is None:
                raise ObjectConflict(f"{self._describe(kind, name)} was deleted by another client in the meantime")
            edited = edit(present)
            if edited is None:
                return present
            try:
                return self.replace(kind, edited)
            except ObjectConflict:
                if attempt == _ATTEMPTS:
                    raise

    def apply(self, kind: Kind, body: Object) -> Object:
        """Server-side apply: claim exactly these fields.

        Raises:
            ObjectConflict: another manager owns one of them.
            ObjectRejected: the cluster dropped one.
        """
        resource, name = self._resource(kind), body["metadata"]["name"]
        with sentences("apply", self._describe(kind, name)):
            written = _plain(
                resource.server_side_apply(
                    body=body, name=name, namespace=self.namespace, field_manager=MANAGER, force_conflicts=False, _request_timeout=_CALL_SECONDS
                )
            )
        self._check_whole(kind, body, written)
        return written

    def delete(self, kind: Kind, name: str, propagation: Propagation = "Background") -> None:
        """Delete an object and its dependents; do nothing if it does not exist.

        Args:
            kind: what it is.
            name: its name.
            propagation: ``Foreground`` keeps it until all its dependents are gone.
        """
        from kubernetes.dynamic.exceptions import NotFoundError

        resource = self._resource(kind)
        options = {"propagationPolicy": propagation}
        with sentences("delete", self._describe(kind, name)):
            try:
                resource.delete(name=name, namespace=self.namespace, body=options, _request_timeout=_CALL_SECONDS)
            except NotFoundError:
                return

    def wait(self, kind: Kind, name: str, decide: Callable[[Object | None], T | None], deadline: Deadline, what: str) -> T:
        """Watch an object until ``decide`` returns something; ``decide`` also runs every few seconds.

        A lost or expired watch starts again from the object's current state. Refused credentials end the wait at once.

        Raises:
            TimeUp: there is no time left.
            EraseDiffError: what ``decide`` raised.
        """
        lost: ConnectionLost | None = None
        while True:
            try:
                present = self.get(kind, name)
                if (found := decide(present)) is not None:
                    return found
                lost = None
                version = present["metadata"]["resourceVersion"] if present else None
                for changed in self._changes(kind, name, version, min(_LOOK_SECONDS, deadline.left())):
                    if (found := decide(changed)) is not None:
                        return found
            except ConnectionLost as error:
                lost = error
                deadline.pause(0.5)
            if lost is not None and not deadline.left():
                raise lost
            deadline.check(what)

    def _changes(self, kind: Kind, name: str, version: str | None, seconds: float) -> Iterator[Object | None]:
        """The object's changes for some seconds; none if the version is too old to be watched from."""
        from kubernetes.client import ApiException
        from kubernetes.watch import Watch

        query: dict[str, Any] = {"namespace": self.namespace, "field_selector": f"metadata.name={name}", "serialize": False}
        if version is not None:
            query["resource_version"] = version
        resource = self._resource(kind)
        with sentences("watch", self._describe(kind, name)):
            try:
                stream = Watch().stream(resource.get, timeout_seconds=max(1, int(seconds)), _request_timeout=seconds + _CALL_SECONDS, **query)
                for event in stream:
                    yield None if event["type"] == "DELETED" else event["object"]
            except ApiException as error:
                if error.status != 410:
                    raise
                raise ConnectionLost(f"the watch of {self._describe(kind, name)} has expired: run again.") from None


def _plain(found: Any) -> Object:
    return dict(found.to_dict())
