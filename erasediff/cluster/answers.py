"""The API server's refusals, as errors with a sentence each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from erasediff.errors import BadInput, EraseDiffError, Unreachable


class ObjectConflict(EraseDiffError):
    """Somebody else changed the same object, or owns the same field."""


class ConnectionLost(Unreachable):
    """The API server did not answer; a later call may succeed."""


class Forbidden(Unreachable):
    """This service account or user may not do that."""


class UnknownKind(BadInput):
    """The cluster has no objects of this kind."""


class ObjectRejected(BadInput):
    """The API server rejects the object."""


@contextmanager
def sentences(verb: str, what: str) -> Iterator[None]:
    """Turn the client's exceptions into our errors."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise explain(error.status, _message(error.body, error.reason), verb, what) from None
    except (HTTPError, OSError) as error:
        raise ConnectionLost(
            f"the API server does not answer ({type(error).__name__}) when asked to {verb} {what}: check the address and run again."
        ) from None
    except json.JSONDecodeError:
        raise ConnectionLost(f"the API server's answer broke off when asked to {verb} {what}: run again.") from None


def explain(status: int | None, message: str, verb: str, what: str) -> EraseDiffError:
    """The sentence for an answer of the API server."""
    if status == 401:
        return Unreachable(f"the cluster refuses the credentials (401) when asked to {verb} {what}: renew the token or the kubeconfig.")
    if status == 403:
        return Forbidden(f"the cluster does not allow to {verb} {what} (403): grant it to this service account or user.")
    if status == 409:
        return ObjectConflict(f"{what} was changed by another client in the meantime ({message})")
    if not status:  # the client's word for a TLS connection that was cut
        return ConnectionLost(f"the API server does not answer ({message[:60]}) when asked to {verb} {what}: check the address and run again.")
    if status in (429, 500, 502, 503, 504):
        return ConnectionLost(f"the API server answers {status} when asked to {verb} {what}: run again later.")
    return ObjectRejected(f"the cluster refuses to {verb} {what} ({status}: {message}).")


def _message(body: object, reason: object) -> str:
    """The API server's message, in one line."""
    try:
        text = json.loads(body)["message"] if isinstance(body, str | bytes) else reason
    except (ValueError, KeyError, TypeError):
        text = reason
    return " ".join(str(text).split())[:300]
