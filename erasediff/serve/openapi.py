"""The OpenAPI schema of the inference route, whose body FastAPI does not parse."""

from __future__ import annotations

from typing import Any

from erasediff.serve.inputs import INPUTS

_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape", "data"],
    "properties": {
        "name": {"type": "string", "enum": list(INPUTS)},
        "datatype": {"type": "string", "enum": sorted(set(INPUTS.values()))},
        "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 1},
        "data": {"type": "array", "items": {"type": ["number", "string"]}, "minItems": 1, "maxItems": 1},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {"id": {"type": ["string", "null"]}, "inputs": {"type": "array", "items": _TENSOR, "minItems": 1}},
    "example": {"inputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["3"]}]},
}
_RESPONSE = {
    "type": "object",
    "required": ["model_name", "id", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"const": "images"},
                    "datatype": {"const": "UINT8"},
                    "shape": {"type": "array", "items": {"type": "integer"}, "description": "N, H, W, C"},
                    "data": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
                },
            },
        },
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


ERROR = _json("One sentence: what is wrong and what to do.", _ERROR)
INFER = {"requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}}}
INFER_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: _json("Images, uint8 [N, H, W, C].", _RESPONSE),
    **dict.fromkeys((400, 403, 404, 413, 422, 500, 503, 504), ERROR),
    429: ERROR | {"headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}},
}
