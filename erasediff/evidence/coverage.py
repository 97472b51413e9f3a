"""Which of the attacks that regulators name were carried out on this model, from the checks that were really made.

The list is that of EDPB Opinion 28/2024, paragraph 55.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erasediff.records.certificate import Threat, ThreatName
from erasediff.records.nouns import Check


@dataclass(frozen=True)
class ThreatCoverage:
    """Which checks carry out an attack, by their ids; and what is to be said of it with them, or without any."""

    threat: ThreatName
    ids: tuple[str, ...]
    executed: str
    missing: str


_TIER_1 = "the policy did not ask for it: it is a check of tier 2"
THREATS = (
    ThreatCoverage(
        "membership inference",
        ("F9",),
        "attacks that tell images the base was trained on from held-out ones, on the erased model",
        _TIER_1,
    ),
    ThreatCoverage(
        "attribute inference",
        (),
        "",
        "no check infers an attribute of a person from the model's answers; the model is asked by a class and answers with an image",
    ),
    ThreatCoverage(
        "exfiltration",
        (),
        "",
        "no check attacks the systems that hold the weights or the data; who may reach them is a matter of the operator's access rules",
    ),
    ThreatCoverage("regurgitation", ("F7",), "samples compared with real images of the forgotten class", _TIER_1),
    ThreatCoverage("inversion", ("F5",), "an embedding sought by gradient descent that brings the forgotten class back", _TIER_1),
    ThreatCoverage("reconstruction", ("F3.partial",), "held-out images of the forgotten class under noise, completed by the model", _TIER_1),
)


def coverage(checks: Sequence[Check]) -> tuple[Threat, ...]:
    """The table, from every check that decided or was reported."""
    return tuple(_threat(threat, checks) for threat in THREATS)


def _threat(threat: ThreatCoverage, checks: Sequence[Check]) -> Threat:
    asked = [check for check in checks if any(check.id == known or check.id.startswith(f"{known}.") for known in threat.ids)]
    made = [check for check in asked if check.value is not None]
    if made:
        ids, verdicts = tuple(check.id for check in made), tuple(check.verdict for check in made)
        return Threat(threat=threat.threat, executed=True, checks=ids, verdicts=verdicts, note=threat.executed)
    note = threat.missing if not asked else f"the policy asked for {asked[0].id} and it was not measured"
    return Threat(threat=threat.threat, executed=False, checks=(), verdicts=(), note=note)
