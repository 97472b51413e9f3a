"""The roll-out's adapter over the Kubernetes API: plain dictionaries in and out, failures as sentences, and waiting that survives a lost watch."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from erasediff.errors import BadInput, EraseDiffError, Unreachable
from erasediff.rollout.deadline import Deadline

T = TypeVar("T")
Object = dict[str, Any]

MANAGER = "erasediff"
_CALL_SECONDS = 20
_LOOK_SECONDS = 5  # a watch of one object does not see its pods, so they are looked at this often


@dataclass(frozen=True)
class Kind:
    """A kind of object in a version of its API."""

    api_version: str
    kind: str


DEPLOYMENT, SERVICE, POD = Kind("apps/v1", "Deployment"), Kind("v1", "Service"), Kind("v1", "Pod")
ENDPOINTS, CONFIG_MAP, LEASE = Kind("v1", "Endpoints"), Kind("v1", "ConfigMap"), Kind("coordination.k8s.io/v1", "Lease")
INFERENCE_SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService")


class Conflict(EraseDiffError):
    """Somebody else changed the same object, or owns the same field."""


class Lost(Unreachable):
    """The API server did not answer this time; it may the next."""


class Cluster:
    """The objects of one namespace."""

    def __init__(self, client: Any, namespace: str) -> None:
        """Speak through an ``ApiClient`` of the kubernetes package."""
        self.namespace = namespace
        self._api = client
        # The package's own place for what it discovered is a file in /tmp that anybody may have put there.
        self._cache = Path(tempfile.mkdtemp(prefix="erasediff-discovery-"))
        from kubernetes.dynamic import DynamicClient

        with _sentences("list the kinds of objects", "the API"):
            self._client = DynamicClient(client, cache_file=str(self._cache / "cache.json"))

    @classmethod
    @contextmanager
    def connected(cls, namespace: str) -> Iterator[Cluster]:
        """The cluster of ``KUBECONFIG``, of ``~/.kube/config``, or the one that this runs in.

        Raises:
            BadInput: there is none.
            Unreachable: it does not answer.
        """
        from kubernetes import client, config
        from kubernetes.config import ConfigException
        from urllib3.util import Retry

        settings = client.Configuration()
        path = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        try:
            if os.environ.get("KUBECONFIG") or Path(path).is_file():
                config.load_kube_config(config_file=path, client_configuration=settings)
            else:
                config.load_incluster_config(client_configuration=settings)
        except (ConfigException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise BadInput(f"no cluster is configured ({reason}): set KUBECONFIG, or run this in a pod with a service account.") from None
        settings.retries = Retry(total=2, backoff_factor=0.2, redirect=0)
        api = client.ApiClient(settings)
        cluster = cls(api, namespace)
        try:
            yield cluster
        finally:
            cluster.close()
            api.close()

    def close(self) -> None:
        """Remove what was kept of the API."""
        shutil.rmtree(self._cache, ignore_errors=True)

    def _resource(self, kind: Kind) -> Any:
        from kubernetes.dynamic.exceptions import ResourceNotFoundError, ResourceNotUniqueError

        try:
            with _sentences("list the kinds of objects", kind.kind):
                return self._client.resources.get(api_version=kind.api_version, kind=kind.kind)
        except (ResourceNotFoundError, ResourceNotUniqueError):
            raise BadInput(f"the cluster knows no {kind.kind} of {kind.api_version}: install what brings it, or choose another backend.") from None

    def _say(self, kind: Kind, name: str) -> str:
        return f"{kind.kind} {self.namespace}/{name}"

    def get(self, kind: Kind, name: str) -> Object | None:
        """An object, or ``None`` if there is none of that name."""
        from kubernetes.dynamic.exceptions import NotFoundError

        resource = self._resource(kind)
        with _sentences("read", self._say(kind, name)):
            try:
                return _plain(resource.get(name=name, namespace=self.namespace, _request_timeout=_CALL_SECONDS))
            except NotFoundError:
                return None

    def list(self, kind: Kind, labels: dict[str, str]) -> list[Object]:
        """The objects that carry all of these labels."""
        resource, selector = self._resource(kind), ",".join(f"{key}={value}" for key, value in labels.items())
        with _sentences("list", f"{kind.kind}s in {self.namespace}"):
            found = resource.get(namespace=self.namespace, label_selector=selector, _request_timeout=_CALL_SECONDS)
            return list(_plain(found)["items"])

    def create(self, kind: Kind, body: Object) -> Object:
        """Create an object.

        Raises:
            Conflict: there is one of that name.
        """
        resource = self._resource(kind)
        with _sentences("create", self._say(kind, body["metadata"]["name"])):
            return _plain(resource.create(body=body, namespace=self.namespace, _request_timeout=_CALL_SECONDS))

    def replace(self, kind: Kind, body: Object) -> Object:
        """Replace an object; the ``resourceVersion`` in it must still be the one there.

        Raises:
            Conflict: it is not.
        """
        resource = self._resource(kind)
        with _sentences("change", self._say(kind, body["metadata"]["name"])):
            return _plain(resource.replace(body=body, namespace=self.namespace, _request_timeout=_CALL_SECONDS))

    def change(self, kind: Kind, name: str, edit: Callable[[Object], Object | None], attempts: int = 5) -> Object:
        """Read, edit and replace an object, again where somebody was faster; an edit that gives ``None`` changes nothing.

        Raises:
            Conflict: it is gone, or somebody was faster each time.
        """
        for attempt in range(attempts):
            present = self.get(kind, name)
            if present is None:
                raise Conflict(f"{self._say(kind, name)} was deleted by somebody else meanwhile")
            edited = edit(present)
            if edited is None:
                return present
            try:
                return self.replace(kind, edited)
            except Conflict:
                if attempt == attempts - 1:
                    raise
        raise AssertionError("at least one attempt")

    def apply(self, kind: Kind, body: Object) -> Object:
        """Server-side apply: claim exactly these fields.

        Raises:
            Conflict: another manager owns one of them.
        """
        resource, name = self._resource(kind), body["metadata"]["name"]
        with _sentences("apply", self._say(kind, name)):
            return _plain(
                resource.server_side_apply(
                    body=body, name=name, namespace=self.namespace, field_manager=MANAGER, force_conflicts=False, _request_timeout=_CALL_SECONDS
                )
            )

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object and what hangs on it; one that is not there is left alone."""
        from kubernetes.dynamic.exceptions import NotFoundError

        resource = self._resource(kind)
        options = {"propagationPolicy": "Background"}
        with _sentences("delete", self._say(kind, name)):
            try:
                resource.delete(name=name, namespace=self.namespace, body=options, _request_timeout=_CALL_SECONDS)
            except NotFoundError:
                return

    def wait(self, kind: Kind, name: str, decide: Callable[[Object | None], T | None], deadline: Deadline, what: str) -> T:
        """Watch an object until ``decide`` gives something; it is asked again every few seconds too.

        A watch that is lost or has expired is made anew from the object as it is then. Refused credentials end the wait at once.

        Raises:
            TimeUp: there is no time left.
            EraseDiffError: what ``decide`` raised.
        """
        lost: Lost | None = None
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
            except Lost as error:
                lost = error
                deadline.pause(0.5)
            if lost is not None and not deadline.left():
                raise lost
            deadline.check(what)

    def _changes(self, kind: Kind, name: str, version: str | None, seconds: float) -> Iterator[Object | None]:
        """What the object becomes, for some seconds; nothing where the version is too old to be watched from."""
        from kubernetes.client import ApiException
        from kubernetes.watch import Watch

        query: dict[str, Any] = {"namespace": self.namespace, "field_selector": f"metadata.name={name}", "serialize": False}
        if version is not None:
            query["resource_version"] = version
        resource = self._resource(kind)
        with _sentences("watch", self._say(kind, name)):
            try:
                stream = Watch().stream(resource.get, timeout_seconds=max(1, int(seconds)), _request_timeout=seconds + _CALL_SECONDS, **query)
                for event in stream:
                    yield None if event["type"] == "DELETED" else event["object"]
            except ApiException as error:
                if error.status != 410:
                    raise
                raise Lost(f"the watch of {self._say(kind, name)} has expired: run again.") from None


def _plain(found: Any) -> Object:
    return dict(found.to_dict())


@contextmanager
def _sentences(verb: str, what: str) -> Iterator[None]:
    """Turn what the client raises into our errors."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise explain(error.status, _message(error.body, error.reason), verb, what) from None
    except (HTTPError, OSError) as error:
        raise Lost(f"the API server does not answer ({type(error).__name__}) when asked to {verb} {what}: check the address and run again.") from None
    except json.JSONDecodeError:
        raise Lost(f"the API server's answer broke off when asked to {verb} {what}: run again.") from None


def explain(status: int | None, message: str, verb: str, what: str) -> EraseDiffError:
    """The sentence for an answer of the API server."""
    if status == 401:
        return Unreachable(f"the cluster refuses the credentials (401) when asked to {verb} {what}: renew the token or the kubeconfig.")
    if status == 403:
        return Unreachable(f"the cluster does not allow to {verb} {what} (403): grant it to this service account or user.")
    if status == 409:
        return Conflict(f"{what} was changed by somebody else meanwhile ({message})")
    if not status:  # the client's word for a TLS connection that was cut
        return Lost(f"the API server does not answer ({message[:60]}) when asked to {verb} {what}: check the address and run again.")
    if status in (429, 500, 502, 503, 504):
        return Lost(f"the API server answers {status} when asked to {verb} {what}: run again later.")
    return BadInput(f"the cluster refuses to {verb} {what} ({status}: {message}).")


def _message(body: object, reason: object) -> str:
    """One line of what the API server said."""
    try:
        said = json.loads(body)["message"] if isinstance(body, str | bytes) else reason
    except (ValueError, KeyError, TypeError):
        said = reason
    return " ".join(str(said).split())[:300]
