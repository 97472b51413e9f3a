"""The predictor behind KServe's protocol: it checks limits and rules, then queues the request."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model
from numpy.typing import NDArray

from erasediff.serve.batches import Batcher
from erasediff.serve.guard import ServingGuard
from erasediff.serve.inputs import INPUTS, Defaults, Tensor, parse_inputs
from erasediff.serve.request import Limits, Refused

NAME, OUTPUT = "erasediff", "images"


class Predictor(Model):  # type: ignore[misc]
    """Images of a class, as ``uint8 [N,H,W,C]``."""

    def __init__(self, guard: ServingGuard, limits: Limits, batcher: Batcher, image_shape: tuple[int, int, int]) -> None:
        super().__init__(NAME)
        self.guard, self._limits, self._batcher, self._shape = guard, limits, batcher, image_shape
        self._defaults = Defaults(guard.model.solver, guard.model.guidance_scale)
        self.ready = True

    async def healthy(self) -> bool:
        """Whether the rules still admit the model."""
        return self.guard.refusal() is None

    def get_input_types(self) -> list[dict[str, Any]]:
        """Of the protocol's metadata."""
        return [{"name": name, "datatype": datatype, "shape": [1]} for name, datatype in INPUTS.items()]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Of the protocol's metadata."""
        channels, height, width = self._shape
        return [{"name": OUTPUT, "datatype": "UINT8", "shape": [-1, height, width, channels]}]

    async def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:
        """Answer one request.

        Raises:
            Refused: with the status and the sentence of the answer.
        """
        unknown = [output.name for output in payload.request_outputs or [] if output.name != OUTPUT]
        if unknown:
            raise Refused(422, f"output {str(unknown[0])[:40]!r} is not known: the output is {OUTPUT}.")
        asked = parse_inputs(
            [Tensor(given.name, given.datatype, values_of(given)) for given in payload.inputs], self._defaults, self.guard.model.class_names
        )
        self._limits.check(asked)
        self.guard.check(asked)
        images = await asyncio.wrap_future(self._batcher.submit(asked))
        self.guard.check(asked)  # the class may have been suppressed while the request waited
        return response(payload, images)


def values_of(given: Any) -> Any:
    """The values of an input, from JSON or binary data."""
    return given.data.ravel().tolist() if isinstance(given.data, np.ndarray) else given.data


def response(request: InferRequest, images: NDArray[np.uint8]) -> InferResponse:
    """The protocol's response with images."""
    output = InferOutput(name=OUTPUT, shape=list(images.shape), datatype="UINT8")
    output.data = images  # KServe encodes it as numbers or bytes, as requested
    return InferResponse(
        response_id=request.id or str(uuid.uuid4()),
        model_name=NAME,
        infer_outputs=[output],
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )
