"""Requests to be forgotten: taken in, decided, held, answered; what is due; how they stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from erasediff.cli.app import Group, app
from erasediff.cli.options import WORKDIR, WorkdirOption
from erasediff.errors import BadInput, ExitCode, IntegrityError

if TYPE_CHECKING:
    from datetime import date, datetime, tzinfo

    from erasediff.evidence.ledger import Ledger
    from erasediff.records.requests import Reason, RequestFacts, State

requests_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(
    requests_app, name="request", rich_help_panel=Group.REQUESTS, help="Take in a request to be forgotten, decide it, hold it, see where it stands."
)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The request's id, as `request add` and `request list` print it.")]
ByOption = Annotated[str, typer.Option("--by", envvar="ERASEDIFF_BY", help="Who does it: an opaque name of a role, a key or a service.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="A code; a wrong one is answered with the list.")]


@requests_app.command()
def add(
    dataset: Annotated[str, typer.Option("--dataset", help="The dataset's name, as the configuration has it.")],
    label: Annotated[int, typer.Option("--label", min=0, help="The class, by its number.")],
    by: ByOption,
    regime: Annotated[str, typer.Option("--regime", help="GDPR, CCPA or own: it sets the clocks.")] = "GDPR",
    scope: Annotated[str, typer.Option("--scope", help="class, concept or instance.")] = "class",
    commitments: Annotated[Optional[Path], typer.Option("--commitments", help="For 'instance': a file with an HMAC (64 hex digits) a line.")] = None,
    received: Annotated[Optional[str], typer.Option("--received", help="The day it came, YYYY-MM-DD, if that was before today.")] = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """File a request and print its id; the same content filed again is the same request."""
    from erasediff.evidence.clocks import zone_of
    from erasediff.evidence.ledger import Ledger
    from erasediff.records.requests import Filing
    from erasediff.records.settings import LedgerSettings

    document = {"regime": regime, "scope": scope, "erasure": {"dataset": dataset, "label": label}, "commitments": _commitments(commitments)}
    filing = Filing.parse(document, "the request")
    settings = LedgerSettings.load()
    came = None if received is None else _beginning(_day(received, "--received"), zone_of(settings.zone))
    facts = Ledger.open(settings.where(workdir), settings.terms()).file(filing, by, _now(), came)
    print(f"{facts.id}: {facts.state}, due {_local(facts.clocks.due, facts)}")
    return ExitCode.OK


@requests_app.command("list")
def list_(
    state: Annotated[Optional[list[str]], typer.Option("--state", help="Only these states; may be given several times.")] = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """List requests, the earliest due first."""
    wanted = None if not state else [_state(name) for name in state]
    for facts in _ledger(workdir).requests(wanted):
        held = f"  held: {', '.join(facts.holds)}" if facts.held else ""
        print(f"{facts.id}  {facts.state:<10}  due {_local(facts.clocks.due, facts)}  {facts.regime}  {facts.scope} {facts.erasure.label}{held}")
    return ExitCode.OK


@requests_app.command()
def show(
    id: IdArgument,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Show a request and everything that happened to it, as JSON."""
    import json

    from erasediff.evidence.clocks import kept_until

    ledger = _ledger(workdir)
    facts, events = ledger.facts(id), ledger.events(id)
    kept = kept_until(facts.regime, events[-1].at, facts.clocks.zone) if facts.state in _ended() else None
    shown = {"request": facts.model_dump(mode="json"), "events": [event.model_dump(mode="json") for event in events]}
    print(json.dumps(shown | ({"kept_until": kept.isoformat()} if kept else {}), indent=2))
    return ExitCode.OK


@requests_app.command()
def confirm(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Write down that the person was told of the receipt (CCPA: within 10 business days)."""
    return _say(_ledger(workdir).confirm(id, by, _now()))


@requests_app.command()
def verify(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Write down that whoever asks may ask."""
    return _advance(id, "VERIFIED", by, workdir)


@requests_app.command()
def locate(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Write down that there are data of this request."""
    return _advance(id, "LOCATED", by, workdir)


@requests_app.command("not-found")
def not_found(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Write down that there are no data of this request; close it when the person has been told."""
    return _advance(id, "NOT_FOUND", by, workdir)


@requests_app.command()
def accept(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Decide that the request is to be fulfilled; a hold keeps its data until it is released."""
    return _advance(id, "ACCEPTED", by, workdir)


@requests_app.command()
def suppress(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Let nobody have the request's label from now on, by the workdir's rules.json and, with a roll-out, by the cluster's rules."""
    from erasediff.attempts.workdir import Workdir
    from erasediff.steps.request_lifecycle import suppress_request

    ledger = _ledger(workdir)
    return _say(suppress_request(Workdir.open(workdir), ledger, ledger.facts(id), by))


@requests_app.command()
def hold(id: IdArgument, reason: ReasonOption, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Stop the purge of a request's data from now on; nothing else is stopped."""
    from erasediff.evidence.states import HOLDS

    return _say(_ledger(workdir).hold(id, _reason(reason, HOLDS), by, _now()))


@requests_app.command()
def release(id: IdArgument, reason: ReasonOption, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """End the hold that has this reason; others stay."""
    from erasediff.evidence.states import HOLDS

    return _say(_ledger(workdir).release(id, _reason(reason, HOLDS), by, _now()))


@requests_app.command()
def extend(
    id: IdArgument,
    reason: ReasonOption,
    noticed: Annotated[str, typer.Option("--noticed", help="The day on which the person was told of it, with the reason: YYYY-MM-DD.")],
    by: ByOption,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Take the one extension that the regime has, after the person was told of it in time."""
    from erasediff.evidence.clocks import end_of, zone_of
    from erasediff.evidence.states import EXTENSIONS

    ledger, now = _ledger(workdir), _now()
    zone = zone_of(ledger.facts(id).clocks.zone)
    day = _day(noticed, "--noticed")
    told = min(now, end_of(day, zone)) if day <= now.astimezone(zone).date() else end_of(day, zone)
    return _say(ledger.extend(id, _reason(reason, EXTENSIONS), told, by, now))


@requests_app.command()
def refuse(id: IdArgument, reason: ReasonOption, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Refuse a request; close it when the person has been told, with the reason and how to complain."""
    from erasediff.evidence.states import REFUSALS

    return _say(_ledger(workdir).refuse(id, _reason(reason, REFUSALS), by, _now()))


@requests_app.command()
def withdraw(id: IdArgument, reason: ReasonOption, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """End a request that was taken back before its erasure began."""
    from erasediff.evidence.states import WITHDRAWALS

    return _say(_ledger(workdir).withdraw(id, _reason(reason, WITHDRAWALS), by, _now()))


@requests_app.command()
def close(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """End a request that was certified, refused or not found, when the person has been told."""
    return _advance(id, "CLOSED", by, workdir)


@app.command(rich_help_panel=Group.REQUESTS)
def due(
    within: Annotated[int, typer.Option("--within", min=0, max=3650, help="Days.")] = 14,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """List what is due within some days. Exit code 0: nothing; 20: something; 21: something is overdue."""
    from datetime import timedelta

    ledger, now = _ledger(workdir), _now()
    owed = ledger.due(now, timedelta(days=within))
    for deadline in owed:
        held = "  held" if deadline.held else ""
        print(f"{deadline.at:%Y-%m-%dT%H:%M:%SZ}  {deadline.request}  {deadline.what:<12}  {deadline.state:<10}  {deadline.urgency}{held}")
    if not owed:
        print(f"nothing is due within {within} days.")
    if any(deadline.urgency == "overdue" for deadline in owed):
        return ExitCode.OVERDUE
    return ExitCode.DUE if owed else ExitCode.OK


@app.command(rich_help_panel=Group.REQUESTS)
def status(
    html: Annotated[Optional[Path], typer.Option("--html", help="Write a page to this file, too.")] = None,
    quoted: Annotated[Optional[list[str]], typer.Option("--quoted", help="A digest that must be in the chain, such as a certificate's.")] = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Verify the whole ledger and say how the requests stand."""
    from erasediff.evidence.status import bars, render_status
    from erasediff.files import write_atomic

    ledger = _ledger(workdir)
    verification = ledger.verify(quoted or ())
    requests = ledger.requests() if verification.holds else ()  # what does not verify is not shown as if it did
    if html is not None:
        write_atomic(html, render_status(requests, verification, _now()).encode())
        print(f"wrote {html}")
    if not verification.holds:
        problems = verification.problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise IntegrityError(f"{ledger.database.name} does not verify: {problems[0]}{more} Restore a copy that does.")
    for bar in bars(requests):
        print(f"{bar.state:<10}  {bar.count}")
    print(f"{ledger.database.name} verifies: {verification.events} events, head {verification.head}")
    return ExitCode.OK


def _ledger(workdir: Path) -> Ledger:
    from erasediff.evidence.ledger import Ledger
    from erasediff.records.settings import LedgerSettings

    settings = LedgerSettings.load()
    return Ledger.existing(settings.where(workdir), settings.terms())


def _advance(id: str, to: str, by: str, workdir: Path) -> int:
    ledger = _ledger(workdir)
    return _say(ledger.advance(id, ledger.facts(id).state, _state(to), by, _now()))


def _say(facts: RequestFacts) -> int:
    held = f", held: {', '.join(facts.holds)}" if facts.held else ""
    print(f"{facts.id}: {facts.state}, due {_local(facts.clocks.due, facts)}{held}")
    return ExitCode.OK


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _local(at: datetime, facts: RequestFacts) -> str:
    """A day where the house is."""
    from erasediff.evidence.clocks import zone_of

    return f"{at.astimezone(zone_of(facts.clocks.zone)):%Y-%m-%d}"


def _beginning(day: date, zone: tzinfo) -> datetime:
    from datetime import datetime, time

    return datetime.combine(day, time(0), tzinfo=zone)


def _day(text: str, option: str) -> date:
    from datetime import date

    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{option} is no date: write it as YYYY-MM-DD.") from None


def _state(name: str) -> State:
    from erasediff.records.requests import State

    try:
        return State(name.upper().replace("-", "_"))
    except ValueError:
        raise BadInput(f"there is no such state: name one of {', '.join(State)}.") from None


def _reason(text: str, allowed: frozenset[Reason]) -> Reason:
    """The reason of this code. What was typed is not repeated: it may name somebody."""
    for reason in allowed:
        if reason == text:
            return reason
    raise BadInput(f"--reason is none that fits: name one of {', '.join(sorted(allowed))}.")


def _ended() -> frozenset[State]:
    from erasediff.evidence.clocks import SETTLED

    return SETTLED


def _commitments(path: Path | None) -> tuple[str, ...]:
    from erasediff.files import read_bounded

    if path is None:
        return ()
    return tuple(read_bounded(path, 2 << 20, "the file of commitments").decode("ascii", errors="replace").split())
