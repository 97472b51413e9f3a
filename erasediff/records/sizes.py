"""The size of the steps that train and sample, on a cluster: parameters of the pipeline."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from erasediff.records.base import Strict

GPU = "nvidia.com/gpu"
# The spellings that Kubeflow's compiler takes; the cluster would take more.
_CPU = re.compile(r"([0-9]*\.)?[0-9]+m?")
_MEMORY = re.compile(r"[0-9]+([EPTGMK]i?)?")


class TrainingSize(Strict):
    """CPU and memory as Kubernetes quantities, and a number of GPUs."""

    cpu: str
    memory: str
    gpus: int = Field(default=0, ge=0, le=64)

    @field_validator("cpu")
    @classmethod
    def _cpus(cls, text: str) -> str:
        if not _CPU.fullmatch(text) or not re.search("[1-9]", text):
            raise ValueError("has to be a number of CPUs such as 2, 0.5 or 500m")
        return text

    @field_validator("memory")
    @classmethod
    def _bytes(cls, text: str) -> str:
        if not _MEMORY.fullmatch(text) or not re.search("[1-9]", text):
            raise ValueError("has to be an amount of memory such as 4Gi or 512Mi")
        return text

    def resources(self) -> dict[str, str]:
        """The requests and limits of a container of this size."""
        return {"cpu": self.cpu, "memory": self.memory} | ({GPU: str(self.gpus)} if self.gpus else {})

    def told(self) -> str:
        """This size in words."""
        cards = f", {self.gpus} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else ""
        return f"{self.cpu} CPU{'' if self.cpu == '1' else 's'}, {self.memory}{cards}"


PROFILE_SIZES = {
    "cpu": TrainingSize(cpu="4", memory="16Gi"),
    "gpu": TrainingSize(cpu="4", memory="16Gi", gpus=1),
    "gpu-multi": TrainingSize(cpu="8", memory="32Gi", gpus=2),
}
"""The profiles, as ``erasediff submit --profile`` takes them, and what a run gets that names no other size."""
