"""A roll-out from start to end: bring up a canary, test it, promote it, or roll back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from erasediff.cluster.api import CONFIG_MAP, Cluster
from erasediff.cluster.deadline import Deadline
from erasediff.errors import BadInput, EraseDiffError, RolledBack
from erasediff.records.core import Servable, ServedModel
from erasediff.records.serving import ServingRules
from erasediff.records.settings import RollOutSettings
from erasediff.rollout.backend import Admit, Candidate, RollOutBackend
from erasediff.rollout.deployment import DeploymentBackend
from erasediff.rollout.kserve_knative import KnativeBackend
from erasediff.rollout.kserve_standard import StandardBackend
from erasediff.rollout.lease import SECONDS, Lease
from erasediff.rollout.objects import ISSUER_CONFIG_MAP, ISSUER_KEY
from erasediff.rollout.rules import ClusterRules
from erasediff.rollout.smoke import smoke_test
from erasediff.stopping import raise_on_sigterm

Address = Callable[[], str]


def backend_for(cluster: Cluster, settings: RollOutSettings) -> RollOutBackend:
    """The backend that the settings name."""
    if settings.backend == "deployment":
        return DeploymentBackend(cluster, settings)
    return StandardBackend(cluster, settings) if settings.mode == "Standard" else KnativeBackend(cluster, settings)


@dataclass(frozen=True)
class RollOut:
    """A roll-out.

    ``owner`` is what it is for: an attempt's name. ``admit`` checks a model against rules; ``address`` is the canary's address, if not its own
    Service.
    """

    cluster: Cluster
    settings: RollOutSettings
    owner: str
    admit: Admit
    address: Address | None = None

    def run(self, candidate: Candidate) -> str:
        """Roll a published model out and return its revision.

        Raises:
            BadInput: the rules do not allow it, or another roll-out is under way; nothing was changed.
            RolledBack: it failed, and the previous version serves again.
        """
        # An evicted process may take the whole time of a roll-back, and its lease then expires.
        lease = Lease(self.cluster, f"{self.settings.name}-roll-out", self.owner, self.settings.timeout_seconds + SECONDS)
        assert isinstance(candidate.model, ServedModel), "what is rolled out has its whole manifest"
        served = candidate.model
        with lease.held(), raise_on_sigterm("the roll-out"):
            rules = ClusterRules(self.cluster)
            self.admit(candidate.model, rules.read())
            check_issuer(self.cluster)
            backend = backend_for(self.cluster, self.settings)
            standing = backend.look()
            try:
                return self._forward(candidate, served, backend, rules, Deadline(self.settings.timeout_seconds, lease.check))
            except BaseException as error:
                undone = self._back(backend, standing, rules, lease)
                if not isinstance(error, EraseDiffError | KeyboardInterrupt):
                    raise
                raise RolledBack(sentence(candidate, self.settings, str(error) or "it was interrupted", undone)) from error

    def _forward(self, candidate: Candidate, served: ServedModel, backend: RollOutBackend, rules: ClusterRules, deadline: Deadline) -> str:
        rules.ensure()
        backend.bring_up(candidate, deadline)
        smoke_test((self.address or backend.address)(), served, rules.read(), min(self.settings.smoke_seconds, deadline.left()))
        backend.share(deadline)
        # The rules may have changed since the first check.
        self.admit(candidate.model, rules.read())
        revision = backend.promote(deadline)
        rules.raise_minimum(candidate.model.epoch)
        return revision

    def _back(self, backend: RollOutBackend, standing: Candidate | None, rules: ClusterRules, lease: Lease) -> str | None:
        """Roll back; ``None`` on success, else the reason why it failed."""
        try:
            lease.check()  # do not remove another roll-out's canary
            deadline = Deadline(self.settings.timeout_seconds, lease.check)
            if standing is not None and backend.changed() and (refused := self._refused(standing.model, rules.read())):
                backend.remove_canary(deadline)
                return f"the previous version is not restored, since {refused}"
            backend.roll_back(deadline)
        except EraseDiffError as error:
            return str(error).rstrip(".")
        return None

    def _refused(self, model: Servable, rules: ServingRules) -> str | None:
        try:
            self.admit(model, rules)
        except BadInput as error:
            return str(error).rstrip(".")
        return None


def check_issuer(cluster: Cluster) -> None:
    """Look for the public key that the servers pin.

    Raises:
        BadInput: it is not there.
    """
    held = cluster.get(CONFIG_MAP, ISSUER_CONFIG_MAP)
    if held is None or ISSUER_KEY not in (held.get("data") or {}):
        raise BadInput(
            f"the ConfigMap {cluster.namespace}/{ISSUER_CONFIG_MAP} holds no {ISSUER_KEY}, and no server starts without the issuer's public key: "
            "create it as docs/kubernetes.md says."
        )


def sentence(candidate: Candidate, settings: RollOutSettings, reason: str, undone: str | None) -> str:
    """The message of a failed roll-out."""
    what = f"graph {candidate.model.onnx.sha256[:12]} was not rolled out to {settings.namespace}/{settings.name} ({reason.rstrip('.')})"
    if undone is None:
        return f"{what}; the previous version goes on serving: fix the cause and run the same command again."
    return f"{what}; the roll-back failed too ({undone}): check the namespace before you run it again."
