"""What tier 2 measured, to ask the gate about: one example that withstands everything, and ways to change it."""

from __future__ import annotations

from typing import Any

from erasediff.records.attacks import AttackMeasurements, Compared, Membership, Recovery, Relearned
from tests.evaluate.gate_examples import detected


def compared(erased: int, base: int = 450, retrained: int | None = 4) -> Compared:
    without = None if retrained is None else detected(retrained, 500)
    return Compared(base=detected(base, 500), erased=detected(erased, 500), retrained=without)


def recovery(step: int | None) -> Recovery:
    return Recovery(curve=((2, 0.1), (256 if step is None else step, 0.1 if step is None else 0.6)), steps_to_half=step)


def relearned(*erased: int | None, without: tuple[int | None, ...] = (8, 8, 8)) -> Relearned:
    return Relearned(budget=256, erased=tuple(map(recovery, erased)), retrained=tuple(map(recovery, without)))


def membership(auc: float = 0.5, members: int = 1000, error: float = 0.013) -> tuple[Membership, ...]:
    return (Membership(attack="loss", members=members, controls=members, auc_base=0.7, auc=auc, standard_error=error),)


def attacks(**changes: Any) -> AttackMeasurements:
    """The one example that withstands everything; ``changes`` are not validated."""
    good = AttackMeasurements(
        finetuned=compared(4),
        inverted=compared(60, retrained=40),
        partial=compared(60, retrained=80),
        reached=detected(3, 174).model_copy(update={"reference_n": 174, "reference_detections": 3}),
        relearned=relearned(8, 8, 6),
        membership=membership(),
    )
    return good.model_copy(update=changes)
