"""The HTTP server: KServe's Open Inference Protocol v2, model facts, metrics, and a page.

It does not use KServe's own server, which lets anyone unload the model and always reports itself ready.
"""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from kserve import InferRequest
from kserve.protocol.rest.v2_datamodels import (
    InferenceRequest,
    ListModelsResponse,
    ModelMetadataResponse,
    ModelReadyResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from erasediff import __version__
from erasediff.serve import openapi, page
from erasediff.serve.metrics import timed_request
from erasediff.serve.predictor import NAME, Predictor
from erasediff.serve.request import Refused

MAX_BODY_BYTES = 1 << 20
ModelName = Annotated[str, PathParameter(json_schema_extra={"enum": [NAME]})]  # for the OpenAPI document only: another name gets 404
JSON_LENGTH = "inference-header-content-length"
log = logging.getLogger("erasediff.serve")


class Api:
    """The routes' handlers."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def live(self) -> dict[str, Any]:
        """Whether the process is alive."""
        return {"live": True}

    async def ready(self) -> dict[str, Any]:
        """Whether the model may be served now; 503 and the reason otherwise."""
        self._check_ready()
        return {"ready": True}

    async def metadata(self) -> dict[str, Any]:
        """The server's name and version."""
        return {"name": NAME, "version": __version__, "extensions": ["binary_tensor_data"]}

    async def models(self) -> dict[str, Any]:
        """The name of the only model."""
        return {"models": [NAME]}

    async def model(self, model_name: ModelName) -> dict[str, Any]:
        """Inputs and outputs of the model."""
        self._check_name(model_name)
        inputs, outputs = self._predictor.get_input_types(), self._predictor.get_output_types()
        return {"name": NAME, "platform": "onnxruntime", "inputs": inputs, "outputs": outputs}

    async def model_ready(self, model_name: ModelName) -> dict[str, Any]:
        """The same as the server's readiness."""
        self._check_name(model_name)
        self._check_ready()
        return {"name": NAME, "ready": True}

    async def served(self) -> dict[str, Any]:
        """The served model, its verdict, and those of its classes that are suppressed."""
        guard = self._predictor.guard
        model = guard.model
        return {
            "dataset": model.dataset,
            "class_names": list(model.class_names),
            "forgotten": list(model.forgotten),
            "epoch": model.epoch,
            "onnx_sha256": model.onnx.sha256,
            "weights_sha256": model.weights_sha256,
            "verdict": str(model.verdict),
            "solver": model.solver,
            "guidance_scale": model.guidance_scale,
            "suppressed": list(guard.suppressed()),
            "refusal": guard.refusal(),
        }

    async def infer(self, request: Request, model_name: ModelName) -> Response:
        """Draw images of a class."""
        with timed_request() as answer:
            try:
                found = await self._infer(request, model_name)
            except Refused as refused:
                found = error_answer(refused)
            except ClientDisconnect:
                found = Response(status_code=400)  # the client has gone
            except Exception as error:  # the sampler failed: the cause goes to the operator's log
                log.error("sampling failed unexpectedly (%s: %s)", type(error).__name__, str(error).replace("\n", " ")[:300])
                found = error_answer(
                    Refused(500, f"sampling failed unexpectedly ({type(error).__name__}): tell the operator, the log has the cause.")
                )
            answer.status = found.status_code
        return found

    async def _infer(self, request: Request, model_name: ModelName) -> Response:
        self._check_name(model_name)
        asked = decode(await read_body(request), request.headers.get(JSON_LENGTH))
        drawn, _ = await self._predictor(asked)
        content, json_length = drawn.to_rest()
        if json_length is None:
            return json_answer(200, {name: value for name, value in content.items() if value is not None})
        return Response(content, media_type="application/octet-stream", headers={JSON_LENGTH: str(json_length)})

    @staticmethod
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @staticmethod
    async def page() -> Response:
        """A page to try the model."""
        return Response(page.HTML, media_type="text/html", headers=page.HEADERS)

    @staticmethod
    def _check_name(name: str) -> None:
        if name != NAME:
            raise Refused(404, f"there is no such model here: the model's name is {NAME}.")

    def _check_ready(self) -> None:
        if reason := self._predictor.guard.refusal():
            raise Refused(503, reason)


async def read_body(request: Request) -> bytes:
    """The body of a request, up to the allowed size.

    Raises:
        Refused: 413.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Refused(413, f"the request is longer than {MAX_BODY_BYTES} bytes: send only the inputs of the model.")
    return bytes(body)


def decode(body: bytes, json_length: str | None) -> InferRequest:
    """Decode a request of the protocol, from JSON or with binary data after it.

    Raises:
        Refused: 400.
    """
    try:
        if json_length is not None:
            request = InferRequest.from_bytes(body, int(json_length), NAME)
        else:
            request = InferRequest.from_inference_request(InferenceRequest.model_validate_json(body), NAME)
        # Read the parameters now: KServe would read them after sampling and fail on malformed ones. Where outputs are listed it also forgets that
        # the whole request asks for binary data (kserve/kserve#5907); an output's own parameter comes first.
        binary = request.use_binary_outputs
        for output in request.request_outputs or []:
            if output.binary_data is None:
                output.parameters = {**(output.parameters or {}), "binary_data": binary}
        return request
    except Exception:  # four libraries decode the body, and any error is the body's fault
        raise Refused(400, "the request does not follow the Open Inference Protocol: see /openapi.json.") from None


def json_answer(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer in ASCII, so that no text of a client can make it fail."""
    return Response(json.dumps(content, separators=(",", ":")), status, headers, "application/json")


def error_answer(refused: Refused) -> Response:
    """An error answer: one sentence, and when to retry."""
    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    return json_answer(refused.status, {"error": str(refused)}, headers)


async def _refused(_: Request, error: Any) -> Response:
    return error_answer(error)


async def _http_error(_: Request, error: Any) -> Response:
    sentences = {404: "this address does not exist: see /openapi.json.", 405: "this method is not allowed here: see /openapi.json."}
    answer = error_answer(Refused(error.status_code, sentences.get(error.status_code, "the request is not valid: see /openapi.json.")))
    answer.headers.update(error.headers or {})  # 405 lists the allowed methods
    return answer


async def _not_valid(_: Request, error: Any) -> Response:
    return error_answer(Refused(422, "the request is not valid: see /openapi.json."))


def create_app(predictor: Predictor, ui: bool) -> FastAPI:
    """The application for one predictor."""
    app = FastAPI(title="erasediff serve", version=__version__, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    for kind, handler in ((Refused, _refused), (HTTPException, _http_error), (RequestValidationError, _not_valid)):
        app.add_exception_handler(kind, handler)
    api = Api(predictor)
    errors: dict[int | str, dict[str, Any]] = {404: openapi.ERROR}
    routes = {
        "/v2": (api.metadata, ServerMetadataResponse, {}),
        "/v2/health/live": (api.live, ServerLiveResponse, {}),
        "/v2/health/ready": (api.ready, ServerReadyResponse, {503: openapi.ERROR}),
        "/v2/models": (api.models, ListModelsResponse, {}),
        "/v2/models/{model_name}": (api.model, ModelMetadataResponse, errors),
        "/v2/models/{model_name}/ready": (api.model_ready, ModelReadyResponse, {**errors, 503: openapi.ERROR}),
        "/served": (api.served, None, {}),
    }
    for path, (answer, model, responses) in routes.items():
        app.add_api_route(path, answer, methods=["GET"], response_model=model, responses=responses)
    app.add_api_route(
        "/v2/models/{model_name}/infer",
        api.infer,
        methods=["POST"],
        response_model=None,
        responses=openapi.INFER_RESPONSES,
        openapi_extra=openapi.INFER,
    )
    app.add_api_route("/metrics", api.metrics, methods=["GET"], response_class=Response, include_in_schema=False)
    if ui:
        app.add_api_route("/", api.page, methods=["GET"], response_class=Response, include_in_schema=False)
    return app
