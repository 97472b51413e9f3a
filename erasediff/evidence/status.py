"""The status page of the requests: one self-contained HTML file without scripts or personal names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from erasediff.evidence.clocks import SETTLED, deadlines, zone_of
from erasediff.records.requests import DueDate, RequestFacts, State, Verification

ROWS_SHOWN = 200
Tone = Literal["pass", "inconclusive", "fail", "stopped"]
_TONES: dict[str, Tone] = {"overdue": "fail", "7 days": "inconclusive", "14 days": "inconclusive", "later": "stopped"}


@dataclass(frozen=True)
class DueRow:
    """One deadline; times are in the request's time zone."""

    request: str
    what: str
    date: str
    zone: str
    left: str
    tone: Tone
    word: str
    regime: str
    scope: str
    state: str
    held: str
    waiting: str


@dataclass(frozen=True)
class Bar:
    """How many requests are in a state; ``width`` is in percent of the largest."""

    state: str
    count: int
    width: float


def render_status(requests: Sequence[RequestFacts], verification: Verification, now: datetime) -> str:
    """Render the page.

    Args:
        requests: all of them.
        verification: the result of verifying the ledger.
        now: the current time.
    """
    owed = sorted((d for facts in requests for d in deadlines(facts, now)), key=lambda d: (d.at, d.request, d.what))
    by_id = {facts.id: facts for facts in requests}
    counts: Counter[str] = Counter(deadline.urgency for deadline in owed)
    return _environment().get_template("status.html.j2").render(
        tone=_tone(verification, counts),
        word=_word(verification, counts),
        headline=_headline(len(requests), verification, counts),
        tiles=_tiles(requests, counts),
        rows=[due_row(deadline, by_id[deadline.request], now) for deadline in owed[:ROWS_SHOWN]],
        hidden=max(0, len(owed) - ROWS_SHOWN),
        bars=bars(requests),
        verification=verification,
        now=f"{now.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
    )  # fmt: skip


def due_row(deadline: DueDate, facts: RequestFacts, now: datetime) -> DueRow:
    """A deadline as text."""
    zone = zone_of(facts.clocks.zone)
    days = (deadline.at.astimezone(zone).date() - now.astimezone(zone).date()).days
    left = "today" if days == 0 else f"{_days(days)} left" if days > 0 else f"{_days(-days)} ago"
    word = {"overdue": "overdue", "later": "in time"}.get(deadline.urgency, f"within {deadline.urgency}")
    return DueRow(
        request=facts.id,
        what={"confirmation": "confirm receipt", "answer": "answer"}[deadline.what],
        date=f"{deadline.at.astimezone(zone):%Y-%m-%d}",
        zone=facts.clocks.zone,
        left=left + (", extended" if facts.clocks.extended and deadline.what == "answer" else ""),
        tone=_TONES[deadline.urgency],
        word=word,
        regime=facts.regime,
        scope=f"{facts.scope} {facts.erasure.label} of {facts.erasure.dataset}" + (", unchecked" if facts.unchecked else ""),
        state=facts.state,
        held=", ".join(reason.replace("_", " ") for reason in facts.holds),
        waiting=facts.waiting.replace("_", " ") if facts.waiting else "",
    )


def bars(requests: Sequence[RequestFacts]) -> list[Bar]:
    """The number of requests in each state, in the order of the states."""
    counts = Counter(facts.state for facts in requests)
    most = max(counts.values(), default=1)
    return [Bar(state, counts[state], round(100 * counts[state] / most, 2)) for state in State if counts[state]]


def _tiles(requests: Sequence[RequestFacts], counts: Counter[str]) -> list[tuple[str, int, Tone]]:
    held = sum(bool(facts.holds) for facts in requests)
    unsettled = sum(facts.state not in SETTLED for facts in requests)
    return [
        ("open", unsettled, "stopped"),
        ("deadlines overdue", counts["overdue"], "fail"),
        ("due within 7 days", counts["7 days"], "inconclusive"),
        ("due in 7 to 14 days", counts["14 days"], "inconclusive"),
        ("under a legal hold", held, "stopped"),
        ("ended", len(requests) - unsettled, "stopped"),
    ]


def _tone(verification: Verification, counts: Counter[str]) -> Tone:
    if not verification.holds or counts["overdue"]:
        return "fail"
    return "inconclusive" if counts["7 days"] or counts["14 days"] else "pass"


def _word(verification: Verification, counts: Counter[str]) -> str:
    if not verification.holds:
        return "BROKEN LEDGER"
    return "OVERDUE" if counts["overdue"] else "DUE SOON" if counts["7 days"] or counts["14 days"] else "IN TIME"


def _headline(count: int, verification: Verification, counts: Counter[str]) -> str:
    if not verification.holds:
        return "The ledger was tampered with or is damaged, so do not rely on this page. Restore a copy that verifies."
    soon = counts["7 days"] + counts["14 days"]
    summary = f"{count} request{'' if count == 1 else 's'}. Deadlines overdue: {counts['overdue']}; within 14 days: {soon}."
    return f"{summary} The chain of {verification.events} events is intact."


def _days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"


def _environment() -> Environment:
    """Load templates beside this file; everything is escaped, and an unknown name is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
