"""A Kubernetes Lease allows one roll-out at a time."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from erasediff.cluster.answers import ObjectConflict
from erasediff.cluster.api import LEASE, Cluster, Object
from erasediff.cluster.deadline import Deadline
from erasediff.errors import BadInput, EraseDiffError

SECONDS = 60
_LOOK_SECONDS = 2.0


def holder_of(lease: Object, now: datetime) -> str | None:
    """The holder of a lease; ``None`` if it is free or expired."""
    spec = lease.get("spec", {})
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder or not renewed:
        return None
    expires = datetime.fromisoformat(renewed) + timedelta(seconds=spec.get("leaseDurationSeconds", SECONDS))
    return str(holder) if expires > now else None


def held_by(name: str, identity: str, now: datetime, present: Object | None = None) -> Object:
    """The body that takes or renews a lease; it keeps the version of ``present``, so that only one of two writers wins."""
    moment = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    taken = (present or {}).get("spec", {}).get("acquireTime")
    ours = (present or {}).get("spec", {}).get("holderIdentity") == identity
    spec = {
        "holderIdentity": identity,
        "leaseDurationSeconds": SECONDS,
        "acquireTime": taken if ours and taken else moment,
        "renewTime": moment,
    }
    metadata = present["metadata"] if present else {"name": name, "labels": {"app.kubernetes.io/managed-by": "erasediff"}}
    return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}


class Lease:
    """A lease for this process."""

    def __init__(self, cluster: Cluster, name: str, owner: str, patience_seconds: float) -> None:
        """Take the cluster and names, without calls.

        Args:
            cluster: where the lease is.
            name: its name.
            owner: what the roll-out is for. A pod that was evicted and the one that replaces it have the same owner.
            patience_seconds: how long to wait for an earlier process of the same owner, which may still be rolling back.
        """
        self._cluster, self._name, self._owner, self._patience = cluster, name, owner, patience_seconds
        self.identity = f"{owner}/{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._renewed = datetime.now(UTC)
        self._lost: str | None = None
        self._stop = threading.Event()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lease during the block; a thread renews it.

        Raises:
            BadInput: another roll-out holds it, or an earlier process of this one does not end.
        """
        self._wait_for_own()
        self._take()
        thread = threading.Thread(target=self._renew, daemon=True, name="lease")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            with suppress(EraseDiffError):  # it expires by itself
                self._give_back()

    def check(self) -> None:
        """Raise if the lease was lost: another roll-out may have begun."""
        if self._lost is None and datetime.now(UTC) - self._renewed > timedelta(seconds=SECONDS):
            self._lost = "it could not be renewed in time"
        if self._lost is not None:
            raise ObjectConflict(f"the lease {self._cluster.namespace}/{self._name} was lost ({self._lost})")

    def _wait_for_own(self) -> None:
        """Wait until an earlier process of the same owner gives the lease back, or it expires."""
        deadline = Deadline(self._patience)
        while deadline.left():
            present = self._cluster.get(LEASE, self._name)
            holder = None if present is None else holder_of(present, datetime.now(UTC))
            if holder is None or not holder.startswith(f"{self._owner}/"):
                return
            deadline.pause(_LOOK_SECONDS)

    def _take(self) -> None:
        present, now = self._cluster.get(LEASE, self._name), datetime.now(UTC)
        holder = None if present is None else holder_of(present, now)
        if holder is not None:
            raise self._taken(holder)
        body = held_by(self._name, self.identity, now, present)
        try:
            _ = self._cluster.create(LEASE, body) if present is None else self._cluster.replace(LEASE, body)
        except ObjectConflict:
            raise self._taken("another process") from None
        self._renewed = now

    def _taken(self, holder: str) -> BadInput:
        what = f"{self._cluster.namespace}/{self._name.removesuffix('-roll-out')}"
        return BadInput(f"another roll-out of {what} is under way, by {holder}: run this again when it has finished.")

    def _renew(self) -> None:
        while not self._stop.wait(SECONDS / 6):
            try:
                present, now = self._cluster.get(LEASE, self._name), datetime.now(UTC)
                if present is None or present.get("spec", {}).get("holderIdentity") != self.identity:
                    self._lost = "another process took it"
                    return
                self._cluster.replace(LEASE, held_by(self._name, self.identity, now, present))
                self._renewed = now
            except EraseDiffError:  # retried until it expires, which check() notices
                continue

    def _give_back(self) -> None:
        present = self._cluster.get(LEASE, self._name)
        if present is not None and present.get("spec", {}).get("holderIdentity") == self.identity:
            self._cluster.replace(LEASE, {**present, "spec": {**present["spec"], "holderIdentity": ""}})
