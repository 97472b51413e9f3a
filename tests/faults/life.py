"""Requests' life, from filed to certified, by one command that may be broken off anywhere and is run again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.batch import batch_of
from erasediff.attempts.workdir import Workdir
from erasediff.demo import file_request
from erasediff.evidence.keys import PRIVATE, new_key
from erasediff.evidence.ledger import Ledger
from erasediff.progress import FILE_VARIABLE
from erasediff.records.core import ErasureRequest, ForgetSetRecord, Outcome, PromotionRecord
from erasediff.records.purging import PurgeRecord
from erasediff.records.requests import State
from erasediff.steps.request_lifecycle import FULFILLED
from erasediff.tracking import CHAMPION, Tracking
from tests.e2e.numbers import QUICK, write_images

MODEL, BASE = "numbers", "1"
SIX, FIVE = "six", "five"
"""Classes that the quick erasure is sure to erase, also together; classes are numbered by their names."""
POLL_SECONDS = 0.02
Event = tuple[str, str]
"""A step, and what became of it: ``started``, ``done`` or ``failed``."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    said: str


@dataclass
class Life:
    """A workdir with a trained base and a request that waits."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    @property
    def workdir(self) -> Path:
        return self.folder / "work"

    @property
    def variables(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ERASEDIFF", "AWS"))}
        return inherited | {"ERASEDIFF_SIGNING_KEY": str(self.folder / "keys" / PRIVATE)} | self.environment

    def command(self, *arguments: object) -> list[str]:
        return [str(Path(sys.executable).parent / "erasediff"), *map(str, arguments), "--workdir", str(self.workdir)]

    def ask(self, *arguments: object) -> Ended:
        """Run a command to its end."""
        done = subprocess.run(self.command(*arguments), env=self.variables, capture_output=True, text=True, timeout=1200, check=False)
        return Ended(done.returncode, done.stdout + done.stderr)

    def begin(self) -> None:
        """Train the base, make a key, file a request, and keep all that to start from."""
        write_images(self.folder / "numbers")
        self._write_config()
        trained = self.ask("train-base", "--config", self.folder / "config.yaml")
        assert trained.code == 0, trained.said
        new_key(self.folder / "keys", None, datetime.now(UTC).replace(microsecond=0), None)
        self.file(SIX)
        shutil.copytree(self.workdir, self.folder / "kept")

    def _write_config(self) -> None:
        """The quick configuration on these images, with a better base: in none of many lives may the gate say anything but PASS."""
        config = yaml.safe_load((QUICK / "config.yaml").read_text())
        config["base_training"]["steps"] *= 2
        config |= {"dataset": {"kind": "folder", "path": str(self.folder / "numbers"), "name": MODEL}, "model_name": MODEL}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))

    @property
    def _documents(self) -> tuple[object, ...]:
        return "--config", self.folder / "config.yaml", "--policy", QUICK / "policy.yaml"

    def file(self, label: str) -> None:
        """File a request for a class, which is decided."""
        self.requests.append(file_request(Workdir(self.workdir), ErasureRequest(dataset=MODEL, label=label)).id)

    def again(self, *beside: str) -> None:
        """Start from the trained base once more, with more requests."""
        shutil.rmtree(self.workdir)
        shutil.copytree(self.folder / "kept", self.workdir)
        _forget_connections()
        del self.requests[1:]
        for label in beside:
            self.file(label)

    def process(self) -> Ended:
        """Do what the requests ask, to the end."""
        return self.ask("process", *self._documents)

    @contextmanager
    def processing(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """The same command under way; it and all its children are dead afterwards. What it says goes to a file: see :attr:`said`."""
        command, watched = self.command("process", *self._documents, *options), {FILE_VARIABLE: str(self._events)}
        self._events.unlink(missing_ok=True)
        with self._output.open("wb") as output:
            process = subprocess.Popen(command, env=self.variables | watched, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)

    @property
    def _output(self) -> Path:
        return self.folder / "said.txt"

    @property
    def said(self) -> str:
        """What the last command under way has said."""
        return self._output.read_text()

    def events(self) -> list[Event]:
        """What the steps of the command under way have said so far."""
        return [(event["step"], event["state"]) for event in map(json.loads, _lines(self._events)) if "step" in event]

    @property
    def _events(self) -> Path:
        return self.folder / "events.jsonl"

    def kill_when(self, due: Callable[[], bool]) -> Ended | None:
        """Start the command and kill it and its children with SIGKILL as soon as something holds; how it ended, where it was faster."""
        with self.processing() as process:
            while process.poll() is None:
                if due():
                    return None
                time.sleep(POLL_SECONDS)
            return Ended(process.returncode, self.said)

    def state(self) -> State:
        """Where the first request stands."""
        return self._state(self.requests[0])

    def _state(self, request: str) -> State:
        return self.ledger().facts(request).state

    def _attempts(self) -> list[tuple[str, Attempt | None]]:
        """Every request with the attempt at it, where one is open."""
        batch = batch_of(Workdir(self.workdir).attempt()) if (self.workdir / "runs/current").is_file() else ()
        asked = {request: self.ledger().facts(request).erasure for request in self.requests}
        return [(request, next((run for run in batch if run.plan().request == asked[request]), None)) for request in self.requests]

    def ledger(self) -> Ledger:
        return Ledger.existing(self.workdir)

    def champion(self) -> str:
        return str(getattr(Tracking(self.workdir).alias(MODEL, CHAMPION), "version", None))

    def check_broken_off(self) -> None:
        """What has to hold wherever a command was broken off."""
        self.check_ledger()
        champion, attempts = self.champion(), self._attempts()
        announced = {promotion.version for _, run in attempts if run is not None and (promotion := run.find(PromotionRecord)) is not None}
        assert champion in {BASE, *announced}, "the record comes first, then the alias"
        assert len(announced) <= 1
        assert len(promotions(self.workdir)) <= len(self.requests)
        for request, run in attempts:
            if self._state(request) in FULFILLED:
                assert {champion} == announced
            else:
                self.check_not_purged(run)
        for path in self.workdir.glob("runs/*/*.json"):
            json.loads(path.read_text())

    def check_not_purged(self, run: Attempt | None) -> None:
        """The forget data are where they were until the model that forgot them serves."""
        assert len(list((self.folder / "numbers").glob("*.png"))) == 1797
        if run is None:
            return
        assert run.find(PurgeRecord) is None
        if run.find(ForgetSetRecord) is not None and "ERASEDIFF_DVC_REMOTE" not in self.environment:
            remote = self.workdir / "forget-remote" / run.plan().request.digest()[:16]
            assert [p for p in remote.rglob("*") if p.is_file()]

    def check_ledger(self) -> None:
        """The chain is whole, and the requests are in it."""
        found = self.ledger().verify()
        assert found.holds, found.problems
        assert set(self.requests) == {facts.id for facts in self.ledger().requests()}

    def check_certified(self) -> None:
        """The end: each certified once and promoted once, verified by the command that anybody has."""
        self.check_ledger()
        assert len(promotions(self.workdir)) == len(self.requests)
        assert len(list((self.workdir / "models").iterdir())) == 1
        for request, run in self._attempts():
            assert run is not None
            self._check_answered(request, run)

    def _check_answered(self, request: str, run: Attempt) -> None:
        assert self._state(request) is State.CERTIFIED
        outcome = Outcome.read(run.folder / "outcome.json")
        assert outcome.request == request
        assert outcome.champion is not None
        assert outcome.certificate is not None
        assert outcome.public_key is not None
        assert (outcome.champion.version, outcome.error) == (self.champion(), None)
        assert run.need(PurgeRecord).complete
        moves = [event.after for event in self.ledger().events(request) if event.kind == "advanced"]
        assert len(moves) == len(set(moves)), f"a state was entered twice: {moves}"
        served = self.workdir / "models" / outcome.champion.weights_sha256[:16]
        held = ("--key", self.workdir / outcome.public_key, "--model", served, "--purge", run.folder / "purge.json", "--final")
        command = [self.command()[0], "verify", str(self.workdir / outcome.certificate), *map(str, held)]
        verified = subprocess.run(command, env=self.variables, capture_output=True, text=True, check=False)
        assert verified.returncode == 0, verified.stderr


def _forget_connections() -> None:
    """Let MLflow open its database anew: the connections that it keeps in this process are to the file of the life before."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose()


def promotions(workdir: Path) -> list[str]:
    """Every promotion that was announced."""
    return _lines(workdir / "promotions.jsonl")


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text()
    except OSError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()  # the last line may be half written
