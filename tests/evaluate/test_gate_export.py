"""The lie: what passed as a network passes as a graph."""

from __future__ import annotations

import math

import pytest

from erasediff.evaluate.gate import final_verdict, run_export_gate
from erasediff.records.attacks import Detections
from erasediff.records.base import Pointer
from erasediff.records.core import ExportedRecord, Parity, Verdict
from tests.evaluate.gate_examples import (
    DIGEST,
    FAIL,
    INCONCLUSIVE,
    LABEL,
    PASS,
    POLICY,
    detected,
)


def parity(error: float) -> Parity:
    return Parity(batch=1, timestep=0, max_relative_error=0.0).model_copy(update={"max_relative_error": error})


@pytest.mark.parametrize(
    ("found", "errors", "wanted"),
    [
        (detected(12), [1e-4, 1e-3], PASS),
        (detected(13), [1e-4], FAIL),
        (detected(12), [1e-4, 1.1e-3], FAIL),
        (detected(12), [1e-4, math.nan, 1e-5], INCONCLUSIVE),
        (detected(12), [math.nan, 1e-4], INCONCLUSIVE),
        (detected(12), [math.inf], INCONCLUSIVE),
        (detected(12), [], INCONCLUSIVE),
        (None, [1e-4], INCONCLUSIVE),
        (detected(0, n=999), [1e-4], INCONCLUSIVE),
        (detected(1001), [1e-4], INCONCLUSIVE),
    ],
)
def test_the_exported_graph_has_to_pass_again(found: Detections | None, errors: list[float], wanted: Verdict) -> None:
    """What serves is the graph: F1 on it, and no error that is large, missing or not a number."""
    assert run_export_gate(POLICY, str(LABEL), found, [parity(error) for error in errors]).verdict is wanted


def exported(verdict: Verdict) -> ExportedRecord:
    pointer = Pointer(uri="model.onnx", sha256=DIGEST)
    return ExportedRecord(
        onnx=pointer, solvers=pointer, solver="ddim-10", weights_sha256=DIGEST, parity=(), forget_onnx=None, verdict=verdict, checks=()
    )


@pytest.mark.parametrize("after", [PASS, FAIL, INCONCLUSIVE])
@pytest.mark.parametrize("before", [PASS, FAIL, INCONCLUSIVE, None])
def test_a_run_passes_only_where_both_gates_pass(before: Verdict | None, after: Verdict) -> None:
    assert (final_verdict(before, exported(after)) is PASS) == (before is PASS and after is PASS)


def test_a_pass_before_the_graph_was_measured_is_no_verdict() -> None:
    """An export that crashed must not leave an outcome that reads PASS."""
    assert final_verdict(PASS, None) is None
    assert final_verdict(FAIL, None) is FAIL
