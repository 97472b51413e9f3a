"""The lie: 'I am alone in here'. Real processes on a real lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from erasediff.errors import BadInput
from erasediff.files import exclusive_lock

HOLDER = """
import sys
from pathlib import Path
from erasediff.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "busy."):
    print("held", flush=True)
    input()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path: Path) -> None:
    """However it ends: SIGKILL lets go, too."""
    with holder(tmp_path) as process:
        with pytest.raises(BadInput, match="somebody is at it"), exclusive_lock(tmp_path, "somebody is at it."):
            pass
        process.kill()
    with exclusive_lock(tmp_path, "somebody is at it."):
        pass


def test_what_inherits_the_lock_keeps_it(tmp_path: Path) -> None:
    """A pipeline outlives the command that has started it."""
    with exclusive_lock(tmp_path, "busy.") as held:
        orphan = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(held,))
    with pytest.raises(BadInput, match="busy"), exclusive_lock(tmp_path, "busy."):
        pass
    orphan.kill()
    orphan.wait(30)
    with exclusive_lock(tmp_path, "busy."):
        pass
