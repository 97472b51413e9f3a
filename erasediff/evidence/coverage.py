"""Which of the attacks that regulators name were carried out on this model, derived from the checks that ran.

The list is that of EDPB Opinion 28/2024, paragraph 55.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erasediff.records.certificate import Threat, ThreatName
from erasediff.records.core import Check


@dataclass(frozen=True)
class ThreatCoverage:
    """An attack, the ids of the checks that carry it out, and the notes with and without them."""

    threat: ThreatName
    ids: tuple[str, ...]
    executed: str
    missing: str


_TIER_1 = "the policy did not include it: it is a check of tier 2"
THREATS = (
    ThreatCoverage(
        "membership inference",
        ("F9",),
        "attacks on the erased model that try to tell training images from held-out ones",
        _TIER_1,
    ),
    ThreatCoverage(
        "attribute inference",
        (),
        "",
        "no check infers a person's attributes from the model's output; the model takes a class and returns an image",
    ),
    ThreatCoverage(
        "exfiltration",
        (),
        "",
        "no check attacks the systems that hold the weights or the data; the operator's access rules protect them",
    ),
    ThreatCoverage("regurgitation", ("F7",), "samples compared with real images of the forgotten class", _TIER_1),
    ThreatCoverage("inversion", ("F5",), "a search by gradient descent for an embedding that brings the forgotten class back", _TIER_1),
    ThreatCoverage("reconstruction", ("F3.partial",), "noised held-out images of the forgotten class, denoised by the model", _TIER_1),
)


def coverage(checks: Sequence[Check]) -> tuple[Threat, ...]:
    """The table of attacks, from all checks."""
    return tuple(_threat(threat, checks) for threat in THREATS)


def _threat(threat: ThreatCoverage, checks: Sequence[Check]) -> Threat:
    asked = [check for check in checks if any(check.id == known or check.id.startswith(f"{known}.") for known in threat.ids)]
    made = [check for check in asked if check.value is not None]
    if made:
        ids, verdicts = tuple(check.id for check in made), tuple(check.verdict for check in made)
        return Threat(threat=threat.threat, executed=True, checks=ids, verdicts=verdicts, note=threat.executed)
    note = threat.missing if not asked else f"the policy includes {asked[0].id}, but it was not measured"
    return Threat(threat=threat.threat, executed=False, checks=(), verdicts=(), note=note)
