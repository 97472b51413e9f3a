"""The API server's refusals, as errors with a sentence each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from erasediff.errors import PASSING_STATUS, BadInput, EraseDiffError, Outage, Unreachable

_MESSAGE_LENGTH = 600
"""What is quoted of the server's message; a webhook's reason can be a paragraph."""


class ObjectConflict(EraseDiffError):
    """Somebody else changed the same object, or owns the same field."""


class ConnectionLost(Outage):
    """The API server did not answer."""


class Forbidden(Unreachable):
    """This service account or user may not do that."""


class UnknownKind(BadInput):
    """The cluster has no objects of this kind."""


class ObjectRejected(BadInput):
    """The API server rejects the object: by its schema, a webhook, a policy, a quota or a limit."""


def dropped(asked: object, written: object, where: str) -> str | None:
    """The first field that was asked for and is not in what the API server wrote: it drops without a word what its definition of a kind lacks.

    Fields without content count as there, and the server may add fields and entries of its own.

    Args:
        asked: a document or a part of it.
        written: the same part of the answer.
        where: its path, such as ``spec``.
    """
    if isinstance(asked, dict):
        if not isinstance(written, dict):
            return where
        inner = (dropped(value, written.get(name), f"{where}.{name}") for name, value in asked.items() if value not in (None, {}, [], ""))
        return next((path for path in inner if path is not None), None)
    if isinstance(asked, list):
        if not isinstance(written, list) or len(written) < len(asked):
            return where
        inner = (dropped(value, other, f"{where}[{at}]") for at, (value, other) in enumerate(zip(asked, written, strict=False)))
        return next((path for path in inner if path is not None), None)
    return where if written is None else None


# What an answer of 403 begins with where it is not a Role that refuses: admission control answers 403 too.
_WEBHOOK = re.compile(r"admission webhook \"(?P<who>[^\"]+)\" denied the request: (?P<why>.*)")
_POLICY = re.compile(r"(?:.*is forbidden: )?(?P<who>ValidatingAdmissionPolicy '[^']+'|violates PodSecurity \"[^\"]+\")(?P<why>.*)")
_QUOTA = re.compile(r"(?:.*is forbidden: )?exceeded quota: (?P<who>[^,]+), (?P<why>.*)")
_ROLE = re.compile(r"(?:.*is forbidden: )?(?P<why>User \".*)")


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
        return _refused(message, verb, what)
    if status == 409:
        return ObjectConflict(f"{what} was changed by another client in the meantime (409: {message})")
    if not status:  # the client's word for a TLS connection that was cut
        return ConnectionLost(f"the API server does not answer ({message[:60]}) when asked to {verb} {what}: check the address and run again.")
    if status in PASSING_STATUS:
        return ConnectionLost(f"the API server answers {status} ({message}) when asked to {verb} {what}: run again later.")
    return ObjectRejected(f"the cluster refuses to {verb} {what} ({status}: {message}).")


def _refused(message: str, verb: str, what: str) -> EraseDiffError:
    """The sentence for an answer of 403: by whom, and why."""
    if (found := _WEBHOOK.match(message)) is not None:
        return ObjectRejected(f"the admission webhook {found['who']} refuses to {verb} {what} (403: {found['why'].rstrip('.')}).")
    if (found := _POLICY.match(message)) is not None:
        return ObjectRejected(f"a policy of the cluster refuses to {verb} {what} (403: {found['who']}{found['why'].rstrip('.')}).")
    if (found := _QUOTA.match(message)) is not None:
        return ObjectRejected(f"the ResourceQuota {found['who']} leaves no room to {verb} {what} (403: {found['why'].rstrip('.')}).")
    if (found := _ROLE.match(message)) is not None:
        return Forbidden(f"no Role allows this account to {verb} {what} (403: {found['why'].rstrip('.')}): bind one that does.")
    return ObjectRejected(f"the cluster refuses to {verb} {what} (403: {message.rstrip('.')}).")


def _message(body: object, reason: object) -> str:
    """The API server's message, in one line."""
    try:
        text = json.loads(body)["message"] if isinstance(body, str | bytes) else reason
    except (ValueError, KeyError, TypeError):
        text = reason
    return " ".join(str(text).split())[:_MESSAGE_LENGTH]
