"""The lie: 'run the same command again', of a run that was killed where nobody had thought of."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from erasediff.steps.table import Role, step_for, work_steps
from tests.faults.life import FIVE, Ended, Life

MOMENTS = int(os.environ.get("ERASEDIFF_FAULT_MOMENTS", "50"))
SEED = int(os.environ.get("ERASEDIFF_FAULT_SEED", str(time.time_ns())))
STEPS = [step_for(Role.OPENS).name, *(row.name for row in work_steps()), step_for(Role.CLOSES).name]
"""Of a request that passes, in their order; certified provisionally before the purge, finally after it."""


@pytest.fixture
def seconds(life: Life) -> float:
    """How long the command takes where nobody breaks it off; the control of everything here."""
    started = time.monotonic()
    done = life.process()
    taken = time.monotonic() - started
    assert done.code == 0, done.said
    life.check_certified()
    return taken


def test_killed_at_every_step_boundary(life: Life) -> None:
    """One command, killed after its first step, after its second, and so on, each time from the beginning."""
    killed: list[str] = []

    def just_done() -> bool:
        done = [step for step, state in life.events() if state == "done"]
        if len(done) <= len(killed):
            return False
        killed.append(done[-1])
        return True

    while (ended := life.kill_when(just_done)) is None:
        life.check_broken_off()
    assert ended.code == 0, ended.said
    life.check_certified()
    assert killed == STEPS
    _nothing_is_left_to_do(life)


@pytest.mark.skipif(MOMENTS == 0, reason="ERASEDIFF_FAULT_MOMENTS is 0: unset it, and `make test-faults` kills a run at 50 random moments")
@pytest.mark.parametrize("half", [0, 1])
def test_killed_at_random_moments(life: Life, seconds: float, half: int) -> None:
    """Lives of one request, or of two in a batch, each killed at random moments until all is certified.

    Early moments are likelier: a command that is run again passes over what is done, so it comes to late ones by many early kills.
    ERASEDIFF_FAULT_SEED repeats them on a machine as fast as this one.
    """
    chance = random.Random(f"{SEED}-{half}")
    left = MOMENTS // 2 + half * (MOMENTS % 2)
    print(f"ERASEDIFF_FAULT_SEED={SEED}")
    lives = 0
    while left > 0:
        life.again(*(FIVE,) * half)
        lives += 1
        while left > 0 and (ended := _killed(life, seconds * (1 + half) * chance.random() ** 3)) is None:
            left -= 1
            print(f"life {lives}, {left} left, killed after {[step for step, state in life.events() if state == 'done'][-1:]}", flush=True)
            life.check_broken_off()
        done = life.process() if left == 0 else ended
        assert done is not None
        assert done.code == 0, done.said
        life.check_certified()
    print(f"{MOMENTS // 2 + half * (MOMENTS % 2)} kills in {lives} lives")


def _killed(life: Life, moment: float) -> Ended | None:
    started = time.monotonic()
    return life.kill_when(lambda: time.monotonic() - started >= moment)


def _nothing_is_left_to_do(life: Life) -> None:
    before = {p: p.read_bytes() for p in Path(life.workdir).glob("runs/*/*.json")}
    done = life.process()
    assert done.code == 0
    assert "no open requests" in done.said
    assert before == {p: p.read_bytes() for p in Path(life.workdir).glob("runs/*/*.json")}
