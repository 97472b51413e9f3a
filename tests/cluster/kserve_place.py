"""A namespace with the stand-in for KServe's controller."""

from __future__ import annotations

from typing import Any

from erasediff.cluster.api import INFERENCE_SERVICE
from erasediff.rollout.backend import Candidate, serving_candidate
from erasediff.rollout.run import RollOut
from erasediff.rollout.store import Exported
from erasediff.serve.admission import check_servable
from tests.cluster.conftest import Place
from tests.cluster.kserve_stand_in import StandInController
from tests.rollout.fake_server import answering


class KServe:
    """A namespace, the stand-in, and settings of a mode."""

    def __init__(self, place: Place, controller: StandInController, mode: str) -> None:
        self.place, self.cluster, self.controller = place, place.cluster, controller
        self.settings = place.settings.model_copy(update={"backend": "kserve", "mode": mode, "share_seconds": 0, "timeout_seconds": 60})

    def publish(self, exported: Exported) -> Candidate:
        return self.place.publish(exported)

    def roll_out(self, candidate: Candidate, served: Candidate | None = None, **settings: Any) -> str:
        """Roll out; in Knative mode no pod is started, and a small server answers as one of ``served`` would."""
        changed = self.settings.model_copy(update=settings)
        with answering(served or candidate) as server:
            address = None if self.settings.mode == "Standard" else lambda: server.address
            return RollOut(self.cluster, changed, "one", check_servable, address).run(candidate)

    def spec(self) -> dict[str, Any]:
        found = self.cluster.get(INFERENCE_SERVICE, "erasediff")
        assert found is not None
        return dict(found["spec"])

    def standing(self) -> Candidate | None:
        found = self.cluster.get(INFERENCE_SERVICE, "erasediff")
        return None if found is None else serving_candidate(found["metadata"]["annotations"])
