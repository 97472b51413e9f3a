"""The limitations that a certificate states, derived from what was and was not done."""

from __future__ import annotations

from erasediff.records.certificate import CertifiedPurge, Judged, Serving, Threat
from erasediff.records.core import Verdict
from erasediff.records.requests import RequestFacts

ALWAYS = (
    "This certificate shows resistance to the listed tests at the stated confidence. No test can show that a model holds no trace of some data.",
    "Detectors make errors. Each check's bound covers only what its detector can see.",
    "The erasure does not reach copies of models or data that left the operator's stores before it.",
    "All times are from the issuer's clock, unless a time stamp beside this certificate confirms them.",
)
NO_PURGE = "The forget data were not yet purged when this certificate was issued: it is provisional and closes no request."
NO_REQUEST = "This certificate names no request of a ledger, so it does not show whose request the erasure fulfils."
NOT_SERVED = {
    "none": "The run had no roll-out: this certificate does not show that the certified model is the deployed one.",
    "rolled back": "The roll-out was rolled back: the certified model is not deployed.",
}


def limitations(
    judged: Judged, coverage: tuple[Threat, ...], serving: Serving, purge: CertifiedPurge | None, requests: tuple[RequestFacts, ...]
) -> tuple[str, ...]:
    """Every limitation that applies, the general ones first."""
    found = list(ALWAYS)
    if missing := [row.threat for row in coverage if not row.executed]:
        found.append(f"Not carried out: {', '.join(missing)}. The coverage table says why.")
    if doubtful := [f"{check.id} ({check.verdict})" for check in judged.reported if check.verdict is not Verdict.PASS]:
        found.append(f"Reported checks that did not pass (by the policy they do not count for the verdict): {', '.join(doubtful[:20])}.")
    if serving.outcome != "promoted":
        found.append(NOT_SERVED[serving.outcome])
    if not requests:
        found.append(NO_REQUEST)
    if purge is None:
        found.append(NO_PURGE)
    elif kept := sum(line.action == "kept" for line in purge.lines):
        found.append(f"The purge kept some items: see {kept} of its {len(purge.lines)} lines.")
    return tuple(found)
