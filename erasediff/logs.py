"""The log of a step: a line when it begins, how far it is every ten seconds, a line when it ends, and the errors of libraries."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Event as Signal
from threading import Thread
from typing import TextIO

from erasediff.environment import leave_termination_message
from erasediff.progress import Event
from erasediff.records.settings import LogSettings
from erasediff.steps.table import step_named

QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
"""Turns off what libraries print past Python's logging."""
LIBRARY_LEVEL = logging.ERROR
"""What libraries log below this level is left out."""
_SHOWN_DIGITS = 12


def title_of(event: Event) -> str:
    """What people call a step that an event is about."""
    title = step_named(event["step"]).title
    return f"{title}, {event['of']}" if event["of"] else title


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {"timestamp": at, "level": record.levelname, **getattr(record, "fields", {}), "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def _handler(stream: TextIO, settings: LogSettings) -> logging.StreamHandler[TextIO]:
    handler = logging.StreamHandler(stream)
    text = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    text.converter = time.gmtime
    handler.setFormatter(_Json() if settings.form == "json" else text)
    return handler


def _record(level: int, message: str, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"levelno": level, "levelname": logging.getLevelName(level), "msg": message, "fields": fields})


@dataclass(frozen=True)
class _Work:
    """Long work inside a step: its last event, and the first one that told of something done, each with its time."""

    event: Event
    began: float
    at: float
    first: tuple[float, int] | None = None

    def followed_by(self, event: Event, at: float) -> _Work:
        """The same work later, or other work."""
        if event["what"] != self.event["what"] or event["done"] < self.event["done"]:
            return _Work(event, at, at)
        first = self.first or ((self.at, self.event["done"]) if self.event["done"] else None)
        return replace(self, event=event, at=at, first=first)

    @property
    def ended(self) -> bool:
        return bool(self.event["done"] >= self.event["total"])

    def facts(self) -> dict[str, float]:
        """The numbers that the work told of, images a second, and the seconds left at the pace so far."""
        facts = dict(self.event.get("numbers", {}))
        if self.first is not None and self.at > self.first[0] and self.event["done"] > self.first[1]:
            pace = (self.event["done"] - self.first[1]) / (self.at - self.first[0])
            if "images" in self.event:
                facts["images_per_second"] = round(pace * self.event["images"], 1)
            facts["seconds_left"] = round((self.event["total"] - self.event["done"]) / pace)
        return facts


def _shown(name: str, value: float) -> str:
    if name == "seconds_left":
        return f"{timedelta(seconds=value)} left"
    return f"{value:.4g} {name.replace('_per_', ' a ')}" if name == "images_per_second" else f"{name.replace('_', ' ')} {value:.4g}"


class Lines:
    """Shows events as the lines of a log."""

    def __init__(self, stream: TextIO, settings: LogSettings) -> None:
        self._handler = _handler(stream, settings)
        self._step: Event | None = None
        self._since = 0.0
        self._work: _Work | None = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if "said" in event:
            self._say(logging.INFO, event["said"])
        elif "step" in event:
            self._show_step(event)
        else:
            now = time.monotonic()
            self._work = self._work.followed_by(event, now) if self._work else _Work(event, now, now)

    def _show_step(self, event: Event) -> None:
        self._work = None
        title, seconds = title_of(event), event["seconds"]
        if event["state"] == "started":
            self._step, self._since = event, time.monotonic()
            self._say(logging.INFO, f"{title}: begins{_prefixed(', attempt ', event['attempt'])}", state="started")
            return
        self._step = event
        if event["state"] == "failed":
            self._say(logging.ERROR, f"{title}: failed after {seconds:.1f} s", state="failed", seconds=seconds)
        else:
            result, digest = event.get("result", ""), event.get("digest", "")[:_SHOWN_DIGITS]
            message = f"{title}: done in {seconds:.1f} s{_prefixed(': ', result)}{_prefixed('; record ', digest)}"
            self._say(logging.INFO, message, state="done", seconds=seconds, result=result, digest=digest)
        self._step = None

    def tick(self) -> None:
        """Say how far the work is; nothing between steps."""
        work, step = self._work, self._step
        if work is not None and not work.ended:
            what, done, total, facts = work.event["what"], work.event["done"], work.event["total"], work.facts()
            far = f"{done} of {total}" if total > 1 else f"{time.monotonic() - work.began:.0f} s so far"
            message = ", ".join([f"{what}: {far}", *(_shown(name, value) for name, value in facts.items())])
            self._say(logging.INFO, message, what=what, done=done, total=total, **facts)
        elif step is not None:
            seconds = round(time.monotonic() - self._since)
            self._say(logging.INFO, f"{title_of(step)}: {seconds} s so far", seconds=seconds)

    def _say(self, level: int, message: str, **fields: object) -> None:
        step = self._step
        of_step = {} if step is None else {"step": step["step"], "attempt": step["attempt"], "of": step["of"]}
        self._handler.handle(_record(level, message, **of_step, **fields))


def _prefixed(before: str, text: str) -> str:
    return before + text if text else ""


@contextmanager
def lines_to(stream: TextIO) -> Iterator[Lines]:
    """Yield what shows events as lines on a stream; every few seconds it says how far the work is.

    Raises:
        BadInput: a setting of the log is not valid.
    """
    settings = LogSettings.load()
    lines, ended = Lines(stream, settings), Signal()

    def watch() -> None:
        while not ended.wait(settings.seconds):
            lines.tick()

    watcher = Thread(target=watch, name="erasediff-log", daemon=True)
    watcher.start()
    try:
        yield lines
    finally:
        ended.set()
        watcher.join()


@contextmanager
def whole_log_to(stream: TextIO) -> Iterator[Lines]:
    """Yield what shows events as lines on a stream; libraries log their errors there too, in the same form, and nothing below.

    Raises:
        BadInput: a setting of the log is not valid.
    """
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with lines_to(stream) as lines:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        root.handlers[:] = [_handler(stream, LogSettings.load())]
        root.setLevel(LIBRARY_LEVEL)
        logging.captureWarnings(True)  # they have a level then
        try:
            yield lines
        finally:
            logging.captureWarnings(False)
            root.handlers[:] = before[0]
            root.setLevel(before[1])


@dataclass(frozen=True)
class LastWords:
    """Why a step of the pipeline ended, with its exit code: Kubeflow's launcher ends with 1, whatever the step ended with."""

    command: str
    exit_code: int
    sentence: str

    def __str__(self) -> str:
        """As the last line of the step's log."""
        return f"erasediff {self.command} (exit code {self.exit_code}): {self.sentence}"


def last_words(log: str) -> LastWords | None:
    """The last words in the log of a step, whichever form it has; Kubeflow's launcher writes lines of its own after them."""
    for line in reversed(log.splitlines()):
        found = re.fullmatch(r"erasediff ([a-z-]+) \(exit code (\d+)\): (.*)", _message_of(line))
        if found is not None:
            return LastWords(found[1], int(found[2]), "".join(filter(str.isprintable, found[3])))
    return None


def _message_of(line: str) -> str:
    """The message in a line of a log."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line


def report_failure(sentence: str) -> None:
    """Print why this process ends on standard error, in the log's form, and leave it as the container's termination message in a pod."""
    if os.environ.get("ERASEDIFF_LOG") == "json":  # the settings may be what is wrong
        sentence_as_json = _Json().format(_record(logging.ERROR, sentence))
        print(sentence_as_json, file=sys.stderr)
    else:
        print(sentence, file=sys.stderr)
    leave_termination_message(sentence)
