"""Verify a whole ledger: a pure function from its lines to a list of problems.

The chain alone cannot reveal that its newest events were cut off. A certificate names the digest of a request's last event, so its holder can
reveal that; see ``quoted``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from erasediff.errors import BadInput
from erasediff.evidence.states import RequestStanding, begin, follow
from erasediff.files import sha256_bytes
from erasediff.records.requests import Event, Filing, Verification

GENESIS = "0" * 64
MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Line:
    """An event's row in the database."""

    number: int
    request: str
    digest: str
    body: str


@dataclass(frozen=True)
class Entry:
    """A request's row in the database; its columns must follow from its events."""

    id: str
    filing: str
    live: str | None
    state: str
    held: bool
    due: int
    confirm_by: int | None
    head: str


@dataclass
class Reading:
    """The state of a verification."""

    problems: list[str] = field(default_factory=list)
    standings: dict[str, RequestStanding] = field(default_factory=dict)
    number: int = 0
    head: str = GENESIS
    last: Event | None = None
    digests: set[str] = field(default_factory=set)

    def read(self, line: Line) -> None:
        """Read the next line."""
        try:
            event = parse_line(line)
        except BadInput as error:
            self.problems.append(str(error))
            self.number, self.head = line.number, line.digest  # one damaged line counts as one problem
            return
        self._check_place(event)
        self._check_sense(event)
        self.number, self.head, self.last = event.number, event.digest(), event
        self.digests.add(self.head)

    def _check_place(self, event: Event) -> None:
        if event.number != self.number + 1:
            self.problems.append(f"after event {self.number} comes event {event.number}: events are missing or out of order.")
        if event.previous != self.head:
            self.problems.append(f"event {event.number} does not follow the event before it: one of them was changed, dropped, moved or inserted.")
        if self.last is not None and event.at < self.last.at:
            self.problems.append(f"event {event.number} is older than the event before it.")

    def _check_sense(self, event: Event) -> None:
        known = self.standings.get(event.request)
        try:
            self.standings[event.request] = begin(event) if known is None else follow(known, event)
        except BadInput as error:
            self.problems.append(f"event {event.number} may not follow: {error}")


def parse_line(line: Line) -> Event:
    """The event of a line.

    Raises:
        BadInput: it is not an event, or does not match its columns.
    """
    event = Event.parse_json(line.body, f"event {line.number} of the ledger")
    if (event.number, event.request, event.digest()) != (line.number, line.request, line.digest):
        raise BadInput(f"event {line.number} of the ledger was changed: its content does not match its digest.")
    return event


def seconds(standing: RequestStanding) -> tuple[int, int | None]:
    """The deadlines of a request in seconds since 1970: the answer, and the confirmation of receipt if still needed."""
    clocks = standing.clocks
    confirm_by = None if clocks.confirmed or clocks.confirm_by is None else int(clocks.confirm_by.timestamp())
    return int(clocks.due.timestamp()), confirm_by


def columns(id: str, filing: Filing, standing: RequestStanding) -> Entry:
    """The row that follows from a request's events."""
    due, confirm_by = seconds(standing)
    live = standing.filing if standing.live else None
    return Entry(id, filing.canonical().decode(), live, standing.state, bool(standing.holds), due, confirm_by, standing.head)


def check_entry(entry: Entry, standing: RequestStanding | None) -> list[str]:
    """The problems of a request's row."""
    if standing is None:
        return [f"request {entry.id} has no events."]
    due, confirm_by = seconds(standing)
    follows = {
        "filing": (sha256_bytes(entry.filing.encode()), standing.filing),
        "live": (entry.live, standing.filing if standing.live else None),
        "state": (entry.state, standing.state),
        "hold": (entry.held, bool(standing.holds)),
        "due date": (entry.due, due),
        "confirmation": (entry.confirm_by, confirm_by),
        "head": (entry.head, standing.head),
    }
    return [f"the {name} of request {entry.id} does not follow from its events." for name, (is_, should) in follows.items() if is_ != should]


def verify(lines: Iterable[Line], entries: Iterable[Entry], head: tuple[int, str], quoted: Iterable[str] = ()) -> Verification:
    """Check a whole ledger.

    Args:
        lines: its events, by number.
        entries: its requests.
        head: number and digest of the last event, from the ledger's head row.
        quoted: digests of events from certificates or earlier verifications; each must be in the chain.

    Returns:
        The result, with the first 20 problems.
    """
    reading = Reading()
    for line in lines:
        reading.read(line)
    if (reading.number, reading.head) != head:
        reading.problems.append(f"the ledger's last event is {reading.number}, but its head names {head[0]}: events were dropped or added.")
    found = {entry.id: entry for entry in entries}
    for entry in found.values():
        reading.problems += check_entry(entry, reading.standings.get(entry.id))
    reading.problems += [f"request {name} has events and no entry." for name in reading.standings if name not in found]
    reading.problems += [f"the quoted event {digest} is not in the ledger." for digest in quoted if digest not in reading.digests]
    return Verification(events=reading.number, requests=len(found), head=reading.head, problems=tuple(reading.problems[:MOST_PROBLEMS]))
