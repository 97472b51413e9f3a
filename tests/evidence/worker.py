"""One of several processes at a ledger: ``python -m tests.evidence.worker WHAT URL …``. It begins when a line tells it to, and answers in JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import event, update

from erasediff.errors import Conflict
from erasediff.evidence.database import REQUESTS
from erasediff.evidence.ledger import Ledger
from erasediff.evidence.stored import read_one
from erasediff.evidence.turn import take_turn
from tests.evidence.walking import ROAD, S, filing

STEPS = ROAD[1 : ROAD.index(S.BATCHED) + 1]


def told() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def hammer(url: str, requests: int) -> object:
    """File the same requests as everybody else and try every step of each; say which were this process's own."""
    told()
    ledger = Ledger.open(url)
    won, ids = [], []
    for label in range(requests):
        one = ledger.file(filing(label), f"worker-{os.getpid()}", datetime.now(UTC)).id
        ids.append(one)
        for before, to in zip(ROAD, STEPS, strict=False):
            try:
                ledger.advance(one, before, to, f"worker-{os.getpid()}", datetime.now(UTC))
                won.append([one, to])
            except Conflict:
                continue
    return {"ids": ids, "won": won, "name": f"worker-{os.getpid()}"}


def take(url: str, one: str) -> object:
    """See that a request is there to be taken, wait until the others have seen it too, and take it."""
    ledger = Ledger.existing(url)
    seen = ledger.facts(one).state
    told()
    try:
        ledger.advance(one, seen, S.BATCHED, "run", datetime.now(UTC))
    except Conflict:
        return False
    return True


def take_without_comparing(url: str, one: str) -> object:
    """The same by a ledger that writes what it has made of what it read, without looking whether that is still so."""
    ledger = Ledger.existing(url)
    with ledger.database.reading() as connection:
        seen = read_one(connection, one)
    told()
    with ledger.database.writing() as connection:
        turn = take_turn(connection, datetime.now(UTC))
        event = turn.event("advanced", one, seen.standing.state, S.BATCHED, "run", {})
        turn.write(event)
        after = replace(seen.entry, state=S.BATCHED, head=event.digest())
        connection.execute(update(REQUESTS).where(REQUESTS.c.id == one).values(state=after.state, head=after.head))
    return True


def die(url: str, one: str, statement: str) -> object:
    """Kill this process right after a statement of the transaction that would take a request, or not at all."""
    ledger = Ledger.existing(url)

    def kill(_connection: object, _cursor: object, executed: str, *_: object) -> None:
        if executed.startswith(statement):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(ledger.database.engine, "after_cursor_execute", kill)
    told()
    return ledger.advance(one, ledger.facts(one).state, S.BATCHED, "run", datetime.now(UTC)).state


WHAT: dict[str, Callable[..., object]] = {"hammer": hammer, "take": take, "take_without_comparing": take_without_comparing, "die": die}

if __name__ == "__main__":
    what, url, *rest = sys.argv[1:]
    print(json.dumps(WHAT[what](url, *(int(text) if text.isdigit() else text for text in rest))), flush=True)
