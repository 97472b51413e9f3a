"""What a certificate does not show: said in it, from what was and was not done."""

from __future__ import annotations

from erasediff.records.certificate import CertifiedPurge, Judged, Serving, Threat
from erasediff.records.nouns import Verdict
from erasediff.records.requests import RequestFacts

ALWAYS = (
    "What is certified is resistance to the tests listed, at the stated confidence. That data have left a model cannot be shown from outside it.",
    "Detectors err. Each check's bound holds for what its detector sees; what the detector cannot see is not covered.",
    "Copies of models or data that left the operator's stores before the erasure are not reached by it.",
    "The times stated are those of the issuer's clock, but for what a time stamp beside this certificate confirms.",
)
NO_PURGE = "The forget data had not been purged when this certificate was issued: it is provisional and closes no request."
NO_REQUEST = "No request of a ledger is named: whom this erasure answers is not part of this certificate."
NOT_SERVED = {
    "none": "No roll-out was part of the run: that the model certified is the one that serves is not shown here.",
    "rolled back": "The roll-out was rolled back: the model certified is not the one that serves.",
}


def limitations(
    judged: Judged, coverage: tuple[Threat, ...], serving: Serving, purge: CertifiedPurge | None, requests: tuple[RequestFacts, ...]
) -> tuple[str, ...]:
    """Every limitation that applies, the general ones first."""
    found = list(ALWAYS)
    if missing := [row.threat for row in coverage if not row.executed]:
        found.append(f"Not carried out: {', '.join(missing)}. The coverage table says why.")
    if doubtful := [f"{check.id} ({check.verdict})" for check in judged.reported if check.verdict is not Verdict.PASS]:
        found.append(f"Reported and not passed, by the policy no part of the verdict: {', '.join(doubtful[:20])}.")
    if serving.outcome != "promoted":
        found.append(NOT_SERVED[serving.outcome])
    if not requests:
        found.append(NO_REQUEST)
    if purge is None:
        found.append(NO_PURGE)
    elif kept := sum(line.action == "kept" for line in purge.lines):
        found.append(f"The purge kept something in {kept} of its {len(purge.lines)} lines; they say what and why.")
    return tuple(found)
