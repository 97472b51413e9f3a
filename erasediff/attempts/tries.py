"""How often a request was tried: a list that is only ever added to, so that no attempt that was judged can be forgotten."""

from __future__ import annotations

from erasediff.attempts.attempt import Attempt
from erasediff.files import append_line
from erasediff.records.nouns import Try, Verdict


def tries(attempt: Attempt) -> int:
    """Which try at the request this is: one more than the other attempts that were judged and did not pass, by the gate or as a graph."""
    plan = attempt.plan()
    request, own = plan.request.digest(), plan.digest()
    judged = {found.plan for found in _read(attempt) if found.request == request and found.verdict is not Verdict.PASS}
    return 1 + len(judged - {own})


def record_try(attempt: Attempt, step: str, verdict: Verdict) -> None:
    """Add what a step said of this attempt to the list."""
    plan = attempt.plan()
    found = Try(request=plan.request.digest(), plan=plan.digest(), step=step, verdict=verdict)
    if found not in _read(attempt):  # a step that was killed right after says it once more
        append_line(attempt.workdir.tries, found.canonical())


def _read(attempt: Attempt) -> list[Try]:
    path = attempt.workdir.tries
    return [Try.parse_json(line, str(path)) for line in path.read_bytes().splitlines()] if path.is_file() else []
