"""The lie: 'it still has forgotten', of a model that remembers, that makes nothing, or that nobody could have caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from erasediff.evaluate.gate import run_regate
from erasediff.records.attacks import Detections
from erasediff.records.core import Verdict
from erasediff.records.measurements import DetectorQuality
from erasediff.records.policy import load_policy
from erasediff.records.regate import Recalled

POLICY = load_policy(Path(__file__).parents[2] / "policies/class-conditional.yaml")
N = POLICY.export.n
KNOWS = {"sha256": "0" * 64, "accuracy": 0.99, "false_positive_rate": 0.0, "holdout_negatives": 900, "holdout_positives": 90}


def recalled(label: int = 3, detections: int = 0, n: int = N, rate: float = 0.99, positives: int = 90) -> Recalled:
    quality = DetectorQuality.model_validate(KNOWS | {"true_positive_rate": rate, "holdout_positives": positives})
    return Recalled(label=label, name=str(label), found=Detections(n=n, detections=detections, reference_n=900), detector=quality)


def test_a_model_that_still_has_forgotten_passes() -> None:
    decision = run_regate(POLICY, [recalled(3), recalled(8)], Detections(n=N, detections=N - 10))
    assert decision.verdict is Verdict.PASS
    assert [check.id for check in decision.checks] == ["C0", "C0.detector.3", "F8.3", "C0.detector.8", "F8.8"]


@pytest.mark.parametrize(
    ("found", "retained", "verdict", "failed"),
    [
        ([recalled(), recalled(8, detections=N // 2)], Detections(n=N, detections=N), Verdict.FAIL, "F8.8"),
        ([recalled()], Detections(n=N, detections=0), Verdict.INCONCLUSIVE, "C0"),
        ([recalled()], Detections(n=N - 1, detections=N - 1), Verdict.INCONCLUSIVE, "C0"),
        ([recalled(n=N - 1)], Detections(n=N, detections=N), Verdict.INCONCLUSIVE, "F8.3"),
        ([recalled(rate=0.2)], Detections(n=N, detections=N), Verdict.INCONCLUSIVE, "C0.detector.3"),
        ([recalled(positives=0)], Detections(n=N, detections=N), Verdict.INCONCLUSIVE, "C0.detector.3"),
    ],
    ids=["a class came back", "makes nothing", "too few of the rest", "too few", "a blind detector", "no real image of the class"],
)
def test_whatever_else_it_is_does_not_pass(found: list[Recalled], retained: Detections, verdict: Verdict, failed: str) -> None:
    decision = run_regate(POLICY, found, retained)
    assert decision.verdict is verdict
    assert [check.id for check in decision.checks if check.verdict is not Verdict.PASS] == [failed]
