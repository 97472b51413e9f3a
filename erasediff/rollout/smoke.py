"""Smoke-test a canary before it gets traffic."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import requests

from erasediff.errors import EraseDiffError
from erasediff.records.core import Servable, ServedModel
from erasediff.records.positions import told
from erasediff.records.serving import ServingRules

_CONNECT_SECONDS = 5
_PAUSE = 0.5
MODEL = "erasediff"


class SmokeFailed(EraseDiffError):
    """The canary gave a wrong answer, or none."""


def smoke_test(address: str, model: ServedModel, rules: ServingRules, seconds: float) -> None:
    """Check the served digests, one image, and that a suppressed class, if any, is refused.

    Args:
        address: the canary's address.
        model: the published model.
        rules: the serving rules.
        seconds: how long to retry while the canary does not answer.

    Raises:
        SmokeFailed: an answer is missing or wrong.
    """
    with _session() as session:
        served = _json(_answer(session, "GET", f"{address}/served", None, seconds), "/served")
        check_served(served, model)
        check_classes(served, model)
        labels = allowed_labels(model, rules)
        if labels:
            answer = _answer(session, "POST", f"{address}/v2/models/{MODEL}/infer", request_body(labels[0]), seconds)
            if answer.status_code != 200:
                raise SmokeFailed(f"the canary answers {answer.status_code} when asked for {_told(model, labels[0])}{_reason(answer)}")
            check_images(_json(answer, "infer"))
        for label in [name for name in model.class_names if name in rules.suppress][:1]:
            answer = _answer(session, "POST", f"{address}/v2/models/{MODEL}/infer", request_body(label), seconds)
            if answer.status_code != 403:
                raise SmokeFailed(f"the canary answers {answer.status_code} and not 403 when asked for {_told(model, label)}, which is suppressed")


def check_serves(address: str, model: Servable, seconds: float) -> None:
    """Raise SmokeFailed unless the server there says within some seconds that it serves exactly this model."""
    with _session() as session:
        served = _json(_answer(session, "GET", f"{address}/served", None, seconds), "/served")
    check_served(served, model)


def allowed_labels(model: ServedModel, rules: ServingRules) -> list[str]:
    """The classes that are not suppressed; forgotten ones come last."""
    allowed = [name for name in model.class_names if name not in rules.suppress]
    return sorted(allowed, key=lambda name: name in model.forgotten)


def request_body(label: str) -> dict[str, Any]:
    """A request of the Open Inference Protocol for one image of a class."""
    inputs = {"label": ("BYTES", label), "num_images": ("INT64", 1), "seed": ("INT64", 0)}
    return {"inputs": [{"name": name, "datatype": datatype, "shape": [1], "data": [value]} for name, (datatype, value) in inputs.items()]}


def _told(model: ServedModel, label: str) -> str:
    """A class by its position: why a roll-out failed is logged by pods, and its name may be a person's."""
    return told([model.class_names.index(label)], model.dataset)


def check_served(served: dict[str, Any], model: Servable) -> None:
    """Raise SmokeFailed unless the server serves exactly this model."""
    wanted = {
        "onnx_sha256": model.onnx.sha256,
        "weights_sha256": model.weights_sha256,
        "epoch": model.epoch,
        "verdict": str(model.verdict),
    }
    for name, value in wanted.items():
        if served.get(name) != value:
            raise SmokeFailed(f"the canary serves {name} {_short(served.get(name))}, but {_short(value)} was published")


def check_classes(served: dict[str, Any], model: ServedModel) -> None:
    """Raise SmokeFailed unless the server knows the same classes; it does not say which, for pods log it."""
    for name in ("class_names", "forgotten"):
        if served.get(name) != list(getattr(model, name)):
            raise SmokeFailed(f"the canary serves other {name} than were published")


def check_images(answer: dict[str, Any]) -> None:
    """Raise SmokeFailed unless the answer holds exactly one image."""
    outputs = {output.get("name"): output for output in answer.get("outputs", ()) if isinstance(output, dict)}
    images = outputs.get("images", {})
    shape, data = images.get("shape", []), images.get("data", [])
    whole = isinstance(shape, list) and isinstance(data, list) and len(shape) == 4 and shape[0] == 1 and len(data) == math.prod(shape) > 0
    if images.get("datatype") != "UINT8" or not whole or not all(isinstance(value, int) and 0 <= value <= 255 for value in data):
        raise SmokeFailed(f"the canary's answer holds no image: datatype {images.get('datatype')}, shape {_short(shape)}")


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # proxies do not know the cluster's host names
    return session


def _answer(session: requests.Session, method: str, url: str, body: dict[str, Any] | None, seconds: float) -> requests.Response:
    """Send a request; retry while the host is unknown or refuses connections."""
    end = time.monotonic() + seconds
    while True:
        try:
            return session.request(method, url, json=body, timeout=(_CONNECT_SECONDS, max(1.0, end - time.monotonic())), allow_redirects=False)
        except requests.RequestException as error:
            if time.monotonic() + _PAUSE > end:
                raise SmokeFailed(f"the canary does not answer at {url} within {seconds:.0f} s ({type(error).__name__})") from None
            time.sleep(_PAUSE)


def _json(answer: requests.Response, what: str) -> dict[str, Any]:
    try:
        found = answer.json()
    except (json.JSONDecodeError, requests.RequestException):
        found = None
    if answer.status_code != 200 or not isinstance(found, dict):
        raise SmokeFailed(f"the canary answers {answer.status_code} to {what}{_reason(answer)}")
    return found


def _reason(answer: requests.Response) -> str:
    """The server's error message, if any."""
    try:
        return f": {str(answer.json()['error'])[:200].rstrip('.')}"
    except (ValueError, KeyError, TypeError, requests.RequestException):
        return ""


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 32 else text
