"""Erasure requests: file, decide, hold and close them; list what is due; verify the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from erasediff.cli.app import Group, app
from erasediff.cli.options import WORKDIR, ClassesOption, WorkdirOption
from erasediff.errors import BadInput, ExitCode, IntegrityError

if TYPE_CHECKING:
    from datetime import date, datetime, tzinfo

    from erasediff.evidence.ledger import Ledger
    from erasediff.records.requests import Reason, RequestFacts, State

requests_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(requests_app, name="request", rich_help_panel=Group.REQUESTS, help="File, decide, hold, close and show erasure requests.")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The request's id, as `request add` and `request list` print it.")]
ByOption = Annotated[str, typer.Option("--by", envvar="ERASEDIFF_BY", help="Who does it: an opaque name of a role, a key or a service.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="A reason code; a wrong one prints the list.")]


@requests_app.command()
def add(
    dataset: Annotated[str, typer.Option("--dataset", "--dataset-name", help="The dataset's name, as in the configuration.")],
    label: Annotated[str, typer.Option("--label", help="The name of the class.")],
    by: ByOption,
    regime: Annotated[str, typer.Option("--regime", help="GDPR, CCPA or own; it sets the deadlines.")] = "GDPR",
    scope: Annotated[str, typer.Option("--scope", help="class; a single concept or instance cannot be erased yet, and is refused.")] = "class",
    received: Annotated[Optional[str], typer.Option("--received", help="The day of receipt, YYYY-MM-DD; today if unset.")] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="File it though no registered model has the class, and mark it.")] = False,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """File a request and print its id; filing the same content again gives the same request."""
    from typing import get_args

    from erasediff.attempts.workdir import Workdir
    from erasediff.evidence.clocks import zone_of
    from erasediff.evidence.ledger import Ledger
    from erasediff.records.requests import ERASED_SCOPE, Filing, Scope
    from erasediff.records.settings import LedgerSettings
    from erasediff.steps.registered import check_registered

    if scope != ERASED_SCOPE and scope in get_args(Scope):
        raise BadInput(f"no model here can be made to forget a single {scope} yet: file the whole class that holds it, with --scope {ERASED_SCOPE}.")
    document = {"regime": regime, "scope": scope, "erasure": {"dataset": dataset, "label": label}}
    filing = Filing.parse(document, "the request")
    settings = LedgerSettings.load()
    if not unchecked:
        check_registered(Workdir.open(workdir), filing.erasure)
    came = None if received is None else _beginning(_day(received, "--received"), zone_of(settings.zone))
    facts = Ledger.open(settings.where(workdir), settings.terms()).file(filing, by, _now(), came, unchecked)
    print(f"{facts.id}: {facts.state}, due {_local(facts.clocks.due, facts)}")
    return ExitCode.OK


@requests_app.command("list")
def list_(
    state: Annotated[Optional[list[str]], typer.Option("--state", help="Only these states; may be given several times.")] = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """List requests, earliest deadline first."""
    wanted = None if not state else [_state(name) for name in state]
    for facts in _ledger(workdir).requests(wanted):
        held = f"  held: {', '.join(facts.holds)}" if facts.held else ""
        print(f"{facts.id}  {facts.state:<10}  due {_local(facts.clocks.due, facts)}  {facts.regime}  {_what(facts)}{held}")
    return ExitCode.OK


@requests_app.command()
def show(
    id: IdArgument,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Show a request and its events as JSON."""
    import json

    from erasediff.evidence.clocks import kept_until

    ledger = _ledger(workdir)
    facts, events = ledger.facts(id), ledger.events(id)
    ended = max(event.at for event in events if event.before is not event.after)
    kept = kept_until(facts.regime, ended, facts.clocks.zone) if facts.state in _ended() else None
    shown = {"request": facts.model_dump(mode="json"), "events": [event.model_dump(mode="json") for event in events]}
    print(json.dumps(shown | ({"kept_until": kept.isoformat()} if kept else {}), indent=2))
    return ExitCode.OK


@requests_app.command()
def confirm(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Record that the receipt was confirmed to the person (CCPA: within 10 business days)."""
    return _say(_ledger(workdir).confirm(id, by, _now()))


@requests_app.command()
def verify(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Record that the requester's identity and right to ask were verified."""
    return _advance(id, "VERIFIED", by, workdir)


@requests_app.command()
def locate(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Record that the data of a request were located."""
    return _advance(id, "LOCATED", by, workdir)


@requests_app.command("not-found")
def not_found(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Record that there are no data of a request; close it after informing the person."""
    return _advance(id, "NOT_FOUND", by, workdir)


@requests_app.command()
def accept(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Accept a request, so that a run fulfils it."""
    return _advance(id, "ACCEPTED", by, workdir)


@requests_app.command()
def suppress(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Block the request's label in serving now, before the erasure.

    This changes the workdir's rules.json and, if a roll-out is configured, the cluster's rules.
    """
    from erasediff.attempts.workdir import Workdir
    from erasediff.steps.request_lifecycle import suppress_request

    ledger = _ledger(workdir)
    return _say(suppress_request(Workdir.open(workdir), ledger, ledger.facts(id), by))


@requests_app.command()
def hold(id: IdArgument, reason: ReasonOption, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Put a legal hold on a request: its data are not purged until it is released."""
    from erasediff.evidence.states import HOLDS

    return _say(_ledger(workdir).hold(id, _reason(reason, HOLDS), by, _now()))


@requests_app.command()
def release(id: IdArgument, reason: ReasonOption, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Release the legal hold with this reason; other holds stay."""
    from erasediff.evidence.states import HOLDS

    return _say(_ledger(workdir).release(id, _reason(reason, HOLDS), by, _now()))


@requests_app.command()
def extend(
    id: IdArgument,
    reason: ReasonOption,
    noticed: Annotated[str, typer.Option("--noticed", help="The day on which the person was told, with the reason: YYYY-MM-DD.")],
    by: ByOption,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Extend the deadline once, after the person was told in time."""
    from erasediff.evidence.clocks import end_of, zone_of
    from erasediff.evidence.states import EXTENSIONS

    ledger, now = _ledger(workdir), _now()
    zone = zone_of(ledger.facts(id).clocks.zone)
    day = _day(noticed, "--noticed")
    told = min(now, end_of(day, zone)) if day <= now.astimezone(zone).date() else end_of(day, zone)
    return _say(ledger.extend(id, _reason(reason, EXTENSIONS), told, by, now))


@requests_app.command()
def refuse(id: IdArgument, reason: ReasonOption, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Refuse a request; close it after telling the person the reason and how to complain."""
    from erasediff.evidence.states import REFUSALS

    return _say(_ledger(workdir).refuse(id, _reason(reason, REFUSALS), by, _now()))


@requests_app.command()
def withdraw(id: IdArgument, reason: ReasonOption, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """End a request that was withdrawn before its erasure began."""
    from erasediff.evidence.states import WITHDRAWALS

    return _say(_ledger(workdir).withdraw(id, _reason(reason, WITHDRAWALS), by, _now()))


@requests_app.command()
def close(id: IdArgument, by: ByOption, workdir: WorkdirOption = WORKDIR) -> int:
    """Close a request that was certified, refused or not found, after informing the person."""
    return _advance(id, "CLOSED", by, workdir)


@app.command(rich_help_panel=Group.REQUESTS)
def due(
    within: Annotated[int, typer.Option("--within", min=0, max=3650, help="Days.")] = 14,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """List the deadlines of the next days. Exit code 0: none; 20: some; 21: some are overdue."""
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
def migrate(
    by: ByOption,
    config: Annotated[Optional[list[Path]], typer.Option("--config", help="A configuration (YAML), once a dataset; the demo's if unset.")] = None,
    classes: ClassesOption = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Put the names of classes for the positions that an earlier version wrote, and sign manifests that the signing key did not sign."""
    from erasediff.attempts.workdir import Workdir
    from erasediff.cli.inputs import read_classes, read_config
    from erasediff.data.datasets import load_dataset
    from erasediff.steps.migrate import Naming
    from erasediff.steps.migrate import migrate as put_names

    listed, configured = read_classes(classes), [read_config(path, None) for path in config or (None,)]
    if listed is not None and len(configured) > 1:
        raise BadInput("--classes is the list of one model: give one --config with it.")
    namings = []
    for one in configured:
        dataset = None if listed is not None else load_dataset(one.dataset)
        names, digest = (listed or (), None) if dataset is None else (dataset.class_names, dataset.digest())
        namings.append(Naming(one.dataset.name, one.model_name, names, digest))
    done = put_names(Workdir.open(workdir), namings, by, _now())
    print(f"named: {done.requests} requests, {done.versions} registered versions, {done.attempts} attempts, and the serving rules")
    print(f"signed: {done.signed} manifests")
    return ExitCode.OK


@app.command(rich_help_panel=Group.REQUESTS)
def status(
    html: Annotated[Optional[Path], typer.Option("--html", help="Also write an HTML page to this file.")] = None,
    quoted: Annotated[Optional[list[str]], typer.Option("--quoted", help="A digest that the ledger must contain, from a certificate.")] = None,
    workdir: WorkdirOption = WORKDIR,
) -> int:
    """Verify the whole ledger and count the requests by state."""
    from erasediff.evidence.status import bars, render_status
    from erasediff.files import write_atomic

    ledger = _ledger(workdir)
    verification = ledger.verify(quoted or ())
    requests = ledger.requests() if verification.holds else ()  # show nothing of a ledger that does not verify
    if html is not None:
        write_atomic(html, render_status(requests, verification, _now()).encode())
        print(f"wrote {html}")
    if not verification.holds:
        problems = verification.problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise IntegrityError(f"{ledger.database.name} does not verify: {problems[0]}{more} Restore a copy that verifies.")
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


def _what(facts: RequestFacts) -> str:
    """What a request is about."""
    from erasediff.records.names import shown_names

    unchecked = "  unchecked" if facts.unchecked else ""
    return f"{facts.scope} {shown_names([facts.erasure.label])} of {facts.erasure.dataset}{unchecked}"


def _say(facts: RequestFacts) -> int:
    held = f", held: {', '.join(facts.holds)}" if facts.held else ""
    print(f"{facts.id}: {facts.state}, due {_local(facts.clocks.due, facts)}{held}")
    return ExitCode.OK


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _local(at: datetime, facts: RequestFacts) -> str:
    """The date in the request's time zone."""
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
        raise BadInput(f"{option} is not a date: write it as YYYY-MM-DD.") from None


def _state(name: str) -> State:
    from erasediff.records.requests import State

    try:
        return State(name.upper().replace("-", "_"))
    except ValueError:
        raise BadInput(f"there is no such state: use one of {', '.join(State)}.") from None


def _reason(text: str, allowed: frozenset[Reason]) -> Reason:
    """The reason of a code. The error does not repeat the input: it may name a person."""
    for reason in allowed:
        if reason == text:
            return reason
    raise BadInput(f"--reason is not a code for this command: use one of {', '.join(sorted(allowed))}.")


def _ended() -> frozenset[State]:
    from erasediff.evidence.clocks import SETTLED

    return SETTLED
