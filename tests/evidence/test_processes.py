"""The lies: 'nobody else was there', 'it was written'. Real processes on one ledger, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from erasediff.evidence.ledger import Ledger
from tests.evidence.walking import S, walk
from tests.evidence.worker import STEPS

ROOT = Path(__file__).parent.parent.parent
Start = Callable[..., subprocess.Popen[str]]


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.evidence.worker", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def together(workers: list[subprocess.Popen[str]]) -> list[Any]:
    """Wait until all are ready, tell all to begin, and return what each says."""
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n", worker.communicate()[1]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=300) for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), [error for _, error in said]
    return [json.loads(answer) for answer, _ in said]


def test_processes_that_do_the_same_at_once_lose_nothing_and_do_nothing_twice(where: str) -> None:
    """They also make the ledger at once."""
    said = together([start("hammer", where, 3) for _ in range(4)])
    ledger = Ledger.existing(where)
    ids = said[0]["ids"]
    assert all(answer["ids"] == ids for answer in said), "one request each, whoever filed it first"
    won = sorted((one, step) for answer in said for one, step in answer["won"])
    assert won == sorted((one, step) for one in ids for step in STEPS), "every step was taken, and by one process"
    events = ledger.events()
    assert len(events) == len(ids) * (1 + len(STEPS))
    for answer in said:
        assert {(e.request, e.after) for e in events if e.by == answer["name"] and e.before} == {(one, S(step)) for one, step in answer["won"]}
    assert {facts.state for facts in ledger.requests()} == {S.BATCHED}
    assert ledger.verify().problems == ()


@pytest.fixture
def waiting(ledger: Ledger) -> str:
    """A request that may be taken."""
    return walk(ledger, S.SUPPRESSED, datetime.now(UTC)).id


def test_of_two_processes_that_have_seen_a_request_one_takes_it(where: str, ledger: Ledger, waiting: str) -> None:
    assert sorted(together([start("take", where, waiting) for _ in range(2)])) == [False, True]
    assert len([event for event in ledger.events(waiting) if event.after is S.BATCHED]) == 1
    assert ledger.verify().holds


def test_without_comparing_both_would_have_taken_it(where: str, ledger: Ledger, waiting: str) -> None:
    """Control: the same two processes, by a ledger that writes without comparing. Both erase; the verification says so."""
    assert together([start("take_without_comparing", where, waiting) for _ in range(2)]) == [True, True]
    assert len([event for event in ledger.events(waiting) if event.after is S.BATCHED]) == 2
    assert any("BATCHED, not SUPPRESSED" in problem for problem in ledger.verify().problems)


@pytest.mark.parametrize("statement", ["UPDATE ledger_head", "INSERT INTO ledger_events", "UPDATE ledger_requests"])
def test_a_process_that_is_killed_inside_a_transaction_leaves_the_ledger_as_it_was(where: str, ledger: Ledger, waiting: str, statement: str) -> None:
    before = (ledger.facts(waiting), ledger.events())
    worker = start("die", where, waiting, statement)
    worker.communicate("go\n", timeout=120)
    assert worker.returncode == -signal.SIGKILL
    assert (ledger.facts(waiting), ledger.events()) == before
    assert ledger.verify().problems == ()
    assert ledger.advance(waiting, S.SUPPRESSED, S.BATCHED, "run", datetime.now(UTC)).state is S.BATCHED, "and the next one is not kept waiting"


def test_a_process_that_is_not_killed_takes_it(where: str, ledger: Ledger, waiting: str) -> None:
    """Control: it was the kill that left the ledger as it was."""
    assert together([start("die", where, waiting, "nothing")]) == ["BATCHED"]
    assert ledger.facts(waiting).state is S.BATCHED
