"""The lie: 'it drew what was asked for', of a server that took three for five where it did not understand."""

from __future__ import annotations

from typing import Any

import pytest

from erasediff.serve.inputs import Defaults, Tensor, parse_inputs
from erasediff.serve.request import Refused, SamplingRequest
from tests.digits import DIGITS

DEFAULTS = Defaults("unipc-8", 1.5)


def tensors(**values: tuple[str, Any]) -> list[Tensor]:
    return [Tensor(name, datatype, data) for name, (datatype, data) in values.items()]


LABEL = ("BYTES", ["3"])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, SamplingRequest(3, 1, 0, "unipc-8", 1.5)),
        ({"num_images": ("INT64", [[4]]), "seed": ("INT64", [9])}, SamplingRequest(3, 4, 9, "unipc-8", 1.5)),
        ({"guidance": ("FP32", [2])}, SamplingRequest(3, 1, 0, "unipc-8", 2.0)),
        ({"solver": ("BYTES", ["ddim-50"])}, SamplingRequest(3, 1, 0, "ddim-50", 1.5)),
        ({"solver": ("BYTES", [b"ddim"]), "num_inference_steps": ("INT64", [20])}, SamplingRequest(3, 1, 0, "ddim-20", 1.5)),
        ({"num_inference_steps": ("INT64", [20])}, SamplingRequest(3, 1, 0, "unipc-20", 1.5)),
    ],
)
def test_what_is_not_said_is_what_was_measured(given: dict[str, tuple[str, Any]], meant: SamplingRequest) -> None:
    assert parse_inputs(tensors(label=LABEL, **given), DEFAULTS, DIGITS) == meant


@pytest.mark.parametrize(
    "given",
    [
        {"label": ("INT64", [3])},
        {"label": ("BYTES", [3])},
        {"label": ("BYTES", [True])},
        {"label": ("BYTES", ["3", "4"])},
        {"label": ("BYTES", [])},
        {"label": ("BYTES", None)},
        {"label": ("INT64", ["3"])},
        {"label": ("BYTES", [[[[None]]]])},
        {"label": ("BYTES", ["03"])},
        {"label": ("BYTES", [b"\xff"])},
        {"label": LABEL, "guidance": ("FP32", ["1"])},
        {"label": LABEL, "guidance": ("FP64", [1.0])},
        {"label": LABEL, "solver": ("BYTES", [3])},
        {"label": LABEL, "height": ("INT64", [64])},
        {"seed": ("INT64", [3])},
    ],
)
def test_what_is_not_understood_is_refused_and_never_guessed(given: dict[str, tuple[str, Any]]) -> None:
    with pytest.raises(Refused) as refused:
        parse_inputs(tensors(**given), DEFAULTS, DIGITS)
    assert refused.value.status == 422
    assert str(refused.value).endswith(".")


def test_an_input_that_is_there_twice_is_refused() -> None:
    with pytest.raises(Refused, match="twice"):
        parse_inputs([*tensors(label=LABEL), *tensors(label=("BYTES", ["4"]))], DEFAULTS, DIGITS)
