"""Count the tries at a request, in an append-only list, so that no judged attempt drops out."""

from __future__ import annotations

from erasediff.attempts.attempt import Attempt
from erasediff.files import append_line
from erasediff.records.core import Try, Verdict


def tries(attempt: Attempt) -> int:
    """The number of this try: one more than the other attempts at the request that were judged and did not pass."""
    plan = attempt.plan()
    request, own = plan.request.digest(), plan.digest()
    judged = {found.plan for found in _read(attempt) if found.request == request and found.verdict is not Verdict.PASS}
    return 1 + len(judged - {own})


def record_try(attempt: Attempt, step: str, verdict: Verdict) -> None:
    """Add a step's verdict on this attempt to the list."""
    plan = attempt.plan()
    found = Try(request=plan.request.digest(), plan=plan.digest(), step=step, verdict=verdict)
    if found not in _read(attempt):  # a step that was killed right after adds it only once
        append_line(attempt.workdir.tries, found.canonical())


def _read(attempt: Attempt) -> list[Try]:
    path = attempt.workdir.tries
    return [Try.parse_json(line, str(path)) for line in path.read_bytes().splitlines()] if path.is_file() else []
