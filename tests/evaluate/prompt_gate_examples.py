"""Hand-made measurements for the gate for prompts: an example that passes, and parts to spoil it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erasediff.evaluate.gate import run_prompt_gate
from erasediff.records.attacks import Detections
from erasediff.records.core import Check, Verdict
from erasediff.records.measurements import Probed
from erasediff.records.prompt_measurements import PromptCounts, PromptMeasurements, Replayed, ScoreChange
from erasediff.records.prompt_policy import PromptPolicy, load_prompt_policy

POLICY = load_prompt_policy(Path(__file__).parents[2] / "policies/text-to-image.yaml")
RELEASED = POLICY.model_copy(update={"weights_released": True})
PROMPTS, SEEDS = POLICY.forget.prompts, POLICY.forget.seeds
KEPT, KEPT_SEEDS = POLICY.retain.prompts, POLICY.retain.seeds


def counts(each: int, prompts: int = PROMPTS, seeds: int = SEEDS, showing: int | None = None) -> PromptCounts:
    """``each`` detections in the first ``showing`` prompts, in all of them if unset."""
    first = prompts if showing is None else showing
    return PromptCounts(detections=(each,) * first + (0,) * (prompts - first), samples=(seeds,) * prompts)


def replays(worst: PromptCounts | None = None) -> tuple[Replayed, ...]:
    ask = POLICY.replay.ask
    return tuple(Replayed(name=name, erased=worst if worst is not None and name == ask[-1] else counts(0, seeds=POLICY.replay.seeds)) for name in ask)


def scores(change: float = 0.0, prompts: int = KEPT, seeds: int = KEPT_SEEDS) -> ScoreChange:
    """Changes that differ by a thousandth from prompt to prompt."""
    return ScoreChange(changes=tuple(change + (-1) ** i * 0.001 for i in range(prompts)), samples=(seeds,) * prompts)


def inversion(base: int = 400, erased: int = 20, n: int = POLICY.inversion.n) -> Probed:
    return Probed(name="trained token", base=Detections(n=n, detections=base), erased=Detections(n=n, detections=erased))


def measurements(**changes: Any) -> PromptMeasurements:
    """What a good erasure brings, with changes that need not be valid."""
    good = PromptMeasurements(
        detector="0" * 64,
        scorer="1" * 64,
        base=counts(9),
        erased=counts(1, showing=12),
        false_positives=counts(1, KEPT, KEPT_SEEDS, showing=3),
        matched=counts(9, KEPT, KEPT_SEEDS),
        replays=replays(),
        scores=scores(),
        inversion=inversion(),
    )
    return good.model_copy(update=changes)


def gate(policy: PromptPolicy = POLICY, **changes: Any) -> tuple[Verdict, dict[str, Check]]:
    decided = run_prompt_gate(policy, measurements(**changes))
    checks = (*decided.checks, *decided.reported)
    assert len({check.id for check in checks}) == len(checks)
    return decided.verdict, {check.id: check for check in checks}
