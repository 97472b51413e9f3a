"""The settings of a step that runs as a Kubeflow ``TrainJob`` instead of in its own pod."""

from __future__ import annotations

import os
from typing import Self

from pydantic import Field

from erasediff.errors import BadInput
from erasediff.records.base import Strict, load_json
from erasediff.records.sizes import TrainingSize

SETTINGS_VARIABLE = "ERASEDIFF_TRAINJOB"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class KeysOf(Strict):
    """Keys of a ConfigMap or a Secret that become environment variables of the same names."""

    name: str = Field(pattern=DNS_LABEL, max_length=63)
    keys: tuple[str, ...] = ()


class TrainJobSettings(Strict):
    """The nodes, image and mounts of a TrainJob; the pipeline's compiler writes this document, and a run's parameters say the size."""

    runtime: str = Field(default="torch-distributed", pattern=DNS_LABEL, max_length=63, description="a ClusterTrainingRuntime")
    image: str = Field(min_length=1)
    nodes: int = Field(default=1, ge=1)
    size: TrainingSize = Field(description="of each node")
    minutes: int = Field(ge=1, description="time limit of the job; the step waits an hour longer, since the job may wait for nodes")
    claim: str = Field(pattern=DNS_LABEL, max_length=63)
    mount: str = Field(pattern=r"^/")
    shared_memory: str
    environment: dict[str, str] = Field(default_factory=dict)
    settings: KeysOf
    credentials: KeysOf
    user: int = Field(ge=1)
    group: int = Field(ge=0)

    @property
    def processes_per_node(self) -> int:
        """One for each GPU."""
        return max(1, self.size.gpus)

    @classmethod
    def from_environment(cls, size: TrainingSize) -> Self | None:
        """The settings of the profile, for nodes of this size; ``None`` if the step runs in its own process.

        Raises:
            BadInput: the variable is not valid.
        """
        text, source = os.environ.get(SETTINGS_VARIABLE), f"the variable {SETTINGS_VARIABLE}"
        if text is None:
            return None
        try:
            document = {**load_json(text), "size": size.model_dump()}
        except (ValueError, TypeError, RecursionError):
            raise BadInput(f"{source} is not valid: it is no JSON object; correct it and run again.") from None
        return cls.parse(document, source)
