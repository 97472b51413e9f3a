"""The lie: 'the next run goes on', of a purge that was killed where nobody had thought of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from erasediff.attempts.workdir import Workdir
from erasediff.records.purging import PurgeRecord
from erasediff.steps.purge import purge
from tests.evidence.purge.world import World, copy, holders

KILLER = """
import os, signal, sys
from pathlib import Path
from erasediff.evidence.purge import engine
from erasediff.attempts.workdir import Workdir
from erasediff.steps.purge import purge

left, remove = int(sys.argv[2]), engine.remove

def killing(thing):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    remove(thing)

engine.remove = killing
purge(Workdir.open(sys.argv[1]).attempt("winner"))
"""


def killed(root: Path, after: int) -> int:
    """Purge in a process of its own that is killed before its next deletion."""
    command = [sys.executable, "-c", KILLER, str(root), str(after)]
    return subprocess.run(command, cwd=Path(__file__).parents[3], env=dict(os.environ), capture_output=True, timeout=300, check=False).returncode


def told(record: PurgeRecord) -> set[tuple[str, str, str, int]]:
    return {(line.store, line.what, line.action, line.count) for line in record.lines}


@pytest.fixture
def finished(world: World, tmp_path: Path) -> tuple[World, int]:
    """A world that is ready, and how many deletions its purge takes."""
    world.failed()
    world.promoted()
    copy(world.root / "work", tmp_path / "kept")
    return world, 0


@pytest.mark.faults
def test_sigkill_between_any_two_deletions_is_survived(finished: tuple[World, int], tmp_path: Path) -> None:
    """At several points, one after another in the same workdir, and each time from the beginning."""
    world, _ = finished
    whole, total = purge(world.workdir.attempt("winner")), 0
    assert holders(world.canary, world.workdir.root) == []
    total = sum(line.count for line in whole.lines if line.action == "deleted")
    assert total > 20
    for after in (0, 1, total // 3, total // 2, total - 2, total - 1):
        _restore(world, tmp_path)
        assert killed(world.workdir.root, after) == -signal.SIGKILL, "control: it was killed"
        assert world.workdir.attempt("winner").find(PurgeRecord) is None, "a purge that was killed has said nothing"
        if after < total - 1:
            assert holders(world.canary, world.workdir.root) or world.workdir.keys.exists()
        record = purge(world.workdir.attempt("winner"))
        assert record.complete
        assert told(record) == told(whole), f"killed after {after}"
        assert holders(world.canary, world.workdir.root) == []
        assert not list(world.workdir.keys.iterdir())


def _restore(world: World, tmp_path: Path) -> None:
    """The same paths as before, for MLflow's rows name them."""
    import shutil

    shutil.rmtree(world.workdir.root)
    copy(tmp_path / "kept", world.workdir.root)
    assert Workdir.open(world.workdir.root).attempt("winner").find(PurgeRecord) is None
