"""The lie: 'it is at work', of a step that says nothing, or so much that nobody reads it."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from erasediff.cli import main
from erasediff.errors import BadInput
from erasediff.logs import Lines, lines_to, whole_log_to
from erasediff.progress import announce, progress, say, shown_by
from erasediff.records.settings import LogSettings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the log sees, as its one entry."""
    now = [100.0]
    monkeypatch.setattr("erasediff.logs.time.monotonic", lambda: now[0])
    monkeypatch.setattr("erasediff.progress._INTERVAL_SECONDS", 0.0)
    return now


def told(form: str, clock: list[float]) -> list[str]:
    """An erasure that goes on from its step 30, of which the log is asked after 1, 11 and 21 seconds; then something that cannot be counted."""
    said = io.StringIO()
    lines = Lines(said, LogSettings(ERASEDIFF_LOG=form))
    with shown_by(lines):
        announce("erase", "started", of="class 3", attempt="a1")
        clock[0] += 1
        lines.tick()
        with progress("erasing", 60, images=64) as done:
            done(30, retain_loss=0.25, forget_loss=0.5, multiplier=1.5)
            clock[0] += 10
            done(40, retain_loss=0.125, forget_loss=0.75, multiplier=1.25)
            lines.tick()
            done(60)
        clock[0] += 10
        lines.tick()
        with progress("uploading the model", 1):
            clock[0] += 20
            lines.tick()
        say("a sentence")
        announce("erase", "failed", 41.0, of="class 3", attempt="a1")
        lines.tick()
    return said.getvalue().splitlines()


def test_the_log_says_how_far_the_work_is_and_what_is_left(clock: list[float]) -> None:
    """What an earlier process did before its checkpoint counts for nothing in the pace. Control: between steps nothing is said."""
    assert [line.partition(" ")[2] for line in told("text", clock)] == [
        "Erase, class 3: begins, attempt a1",
        "Erase, class 3: 1 s so far",
        "erasing: 40 of 60, retain loss 0.125, forget loss 0.75, multiplier 1.25, 64 images a second, 0:00:20 left",
        "Erase, class 3: 21 s so far",
        "uploading the model: 20 s so far",
        "a sentence",
        "Erase, class 3: failed after 41.0 s",
    ]


def test_for_a_collector_each_line_is_an_object_with_the_same_facts(clock: list[float]) -> None:
    objects = [json.loads(line) for line in told("json", clock)]
    assert all(one["timestamp"].endswith("+00:00") and one["step"] == "erase" and one["attempt"] == "a1" for one in objects)
    assert [one["level"] for one in objects] == ["INFO"] * 6 + ["ERROR"]
    numbers = {"retain_loss": 0.125, "forget_loss": 0.75, "multiplier": 1.25, "images_per_second": 64.0, "seconds_left": 20}
    assert objects[2].items() >= ({"what": "erasing", "done": 40, "total": 60} | numbers).items()


def test_a_form_that_there_is_not_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ERASEDIFF_LOG", "yaml")
    with pytest.raises(BadInput, match=r"the settings of the log are not valid: .*correct ERASEDIFF_LOG\."), lines_to(io.StringIO()):
        pass


def test_a_failure_has_the_form_of_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Control: for people it is the sentence alone."""
    arguments = ["evaluate", "--workdir", str(tmp_path / "work")]
    assert main(arguments) == 2
    sentence = capsys.readouterr().err.strip()
    monkeypatch.setenv("ERASEDIFF_LOG", "json")
    assert main(arguments) == 2
    said = json.loads(capsys.readouterr().err)
    assert (said["level"], said["message"]) == ("ERROR", sentence)


def test_of_libraries_errors_come_through_and_nothing_below() -> None:
    """Control: afterwards everything is as before."""
    said, root = io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level
    with whole_log_to(said), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.getLogger("a.library").warning("chatter")
        warnings.warn("more of it", stacklevel=1)
        assert said.getvalue() == ""
        logging.getLogger("a.library").error("it broke")
    assert said.getvalue().endswith(" it broke\n")
    assert (root.handlers, root.level) == before


FIND_CREDENTIALS = """
import logging, sys, boto3
from erasediff.logs import whole_log_to
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
with whole_log_to(sys.stderr):
    boto3.Session().get_credentials()
print("after", file=sys.stderr, flush=True)
boto3.Session().get_credentials()
"""


def test_botocore_does_not_say_where_it_found_credentials() -> None:
    """Control: left alone it does, under the level that Kubeflow's executor sets."""
    environment = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    done = subprocess.run([sys.executable, "-c", FIND_CREDENTIALS], env=environment, capture_output=True, text=True, check=True)
    inside, _, after = done.stderr.partition("after\n")
    assert inside == ""
    assert "Found credentials in environment variables" in after
