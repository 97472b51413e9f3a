"""The lie: 'the champion is untouched, run it again', of a run under which a service, the disk, the clock or the key gave way."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from erasediff.evidence.keys import PRIVATE, new_key
from erasediff.records.requests import State
from tests.disk import fill, small_disk
from tests.faults.life import BASE, Ended, Life, promotions
from tests.mlflow_server import mlflow_server
from tests.proxy import DOWN, NONE, SILENT, Fault, FaultyProxy, answering
from tests.s3 import ENVIRONMENT

BUCKET = "forget-sets"
EXPIRED = '<?xml version="1.0"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>'
BOUND_SECONDS = 400
"""How long a command may hang on a service that does not answer; the machine may be busy."""


@dataclass
class World:
    """A life whose services are reached over ways that faults can be set on."""

    life: Life
    mlflow: FaultyProxy
    s3: FaultyProxy
    disk: Path
    client: object
    keys: Path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 400) as folder:
        yield folder


@pytest.fixture
def world(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    served = tmp_path / "mlflow"
    served.mkdir()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    port = moto.get_host_and_port()[1]
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    with mlflow_server(served) as address:
        ways = FaultyProxy(int(address.rpartition(":")[2])), FaultyProxy(port)
        environment = {
            "MLFLOW_TRACKING_URI": ways[0].address,
            "ERASEDIFF_MLFLOW_BACKEND_STORE_URI": f"sqlite:///{served}/mlflow.db",
            "ERASEDIFF_MLFLOW_ARTIFACTS_DESTINATION": str(served / "artifacts"),
            "ERASEDIFF_DVC_REMOTE": f"s3://{BUCKET}/erasures",
            "ERASEDIFF_DVC_REMOTE_ENDPOINT_URL": ways[1].address,
            **ENVIRONMENT,
        }
        life = Life(disk / "life", environment)
        life.folder.mkdir()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)  # the test itself asks the server directly
        life.begin()
        yield World(life, *ways, disk, client, life.folder / "keys")
        for way in ways:
            way.close()
    moto.stop()


@dataclass(frozen=True)
class Outage:
    """What gives way at the start of which step, and what the sentence has to say."""

    name: str
    step: str
    says: str
    set_in: Callable[[World], object]
    lift: Callable[[World], object]
    codes: tuple[int, ...] = (2,)


def mlflow(name: str, fault: Fault, step: str, says: str, codes: tuple[int, ...] = (2,)) -> Outage:
    return Outage(f"MLflow {name}", step, says, lambda world: world.mlflow.set(fault), lambda world: world.mlflow.set(NONE), codes)


def s3(name: str, fault: Fault, step: str, says: str, codes: tuple[int, ...] = (2,)) -> Outage:
    return Outage(f"S3 {name}", step, says, lambda world: world.s3.set(fault), lambda world: world.s3.set(NONE), codes)


INTERNAL = answering("500 Internal Server Error")
OUTAGES = (
    mlflow("down", DOWN, "check_prerequisites", "MLflow"),
    s3("down", DOWN, "version_forget_set", "DVC remote"),
    s3("answers 500", INTERNAL, "version_forget_set", "DVC remote"),
    s3("does not answer", SILENT, "version_forget_set", "DVC remote"),
    s3("expired credentials", answering("400 Bad Request", EXPIRED, "application/xml"), "erase", "DVC remote"),
    mlflow("answers 500", INTERNAL, "evaluate", "MLflow"),
    Outage(
        "full disk", "export_onnx", "no space is left", lambda world: fill(world.disk, leave=8 << 10), lambda world: (world.disk / "filler").unlink()
    ),
    mlflow("down", DOWN, "register", "MLflow"),
    mlflow("down", DOWN, "promote", "MLflow"),
)
LATER = (
    s3("down", DOWN, "purge", "dvc remote", (13,)),
    s3("answers 500", INTERNAL, "purge", "dvc remote", (13,)),
    s3("does not answer", SILENT, "purge", "dvc remote", (13,)),
    mlflow("down", DOWN, "purge", "mlflow", (13,)),
)
"""After the promotion: the request is answered late, and nothing says that it is answered."""


def broken(world: World, outage: Outage) -> Ended:
    """Run the command, and let something give way as soon as a step has started."""
    reached = False
    with world.life.processing() as process:
        started = time.monotonic()
        while process.poll() is None:
            assert time.monotonic() < started + BOUND_SECONDS, f"{outage.name}: the command hangs"
            if not reached and (outage.step, "started") in world.life.events():
                outage.set_in(world)
                reached = True
            time.sleep(0.02)
    assert reached, f"{outage.name}: the command ended before {outage.step}: {world.life.said}"
    return Ended(process.returncode, world.life.said)


def check_sentence(outage: Outage, ended: Ended) -> None:
    assert ended.code in outage.codes, f"{outage.name}: {ended}"
    assert re.search(outage.says, ended.said), f"{outage.name}: {ended.said}"
    assert "Traceback" not in ended.said


def test_every_outage_ends_with_a_sentence_and_the_same_command_goes_on(world: World) -> None:
    """One life under one outage after another; that the next one is reached shows that the one before is over."""
    life = world.life
    for outage in OUTAGES:
        ended = broken(world, outage)
        outage.lift(world)
        check_sentence(outage, ended)
        assert life.champion() == BASE, outage.name
        life.check_broken_off()
    for outage in LATER:
        ended = broken(world, outage)
        outage.lift(world)
        check_sentence(outage, ended)
        assert life.champion() != BASE, outage.name
        assert life.state() in (State.ROLLED_OUT, State.PURGING), outage.name
        life.check_broken_off()
    world.s3.set(Fault(delay_seconds=0.3))
    done = life.process()
    assert done.code == 0, f"a slow S3 is no fault: {done.said}"
    assert world.s3.met > 0, "control: it was asked"
    life.check_certified()
    listed = world.client.list_object_versions(Bucket=BUCKET)  # type: ignore[attr-defined]
    assert not listed.get("Versions", []) + listed.get("DeleteMarkers", [])


@contextmanager
def another_clock(life: Life, tmp_path: Path, by: timedelta) -> Iterator[None]:
    """Every process of the life has a clock that is wrong by so much."""
    folder = tmp_path / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import datetime, time_machine\n"
        f"time_machine.travel(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds={by.total_seconds()}), tick=True).start()\n"
    )
    life.environment["PYTHONPATH"] = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    try:
        yield
    finally:
        del life.environment["PYTHONPATH"]


def test_a_clock_that_is_wrong_and_a_key_that_has_ended(life: Life, tmp_path: Path) -> None:
    """A clock that was set back writes nothing into the ledger. For a key that has ended nothing is begun."""
    with another_clock(life, tmp_path, timedelta(days=-2)):
        back = life.process()
    assert (back.code, life.champion()) == (2, BASE), back.said
    assert re.search("clock", back.said), back.said
    assert life.state() is State.ACCEPTED

    own = life.environment | {"ERASEDIFF_SIGNING_KEY": str(life.folder / "keys" / PRIVATE)}
    now = datetime.now(UTC).replace(microsecond=0)
    new_key(life.folder / "ending", None, now, now + timedelta(days=1))
    life.environment["ERASEDIFF_SIGNING_KEY"] = str(life.folder / "ending" / PRIVATE)
    with another_clock(life, tmp_path, timedelta(days=1, minutes=1)):
        ended = life.process()
    assert (ended.code, life.champion()) == (2, BASE), ended.said
    assert re.search("expired at", ended.said), ended.said
    life.check_broken_off()

    life.environment = own
    done = life.process()
    assert done.code == 0, done.said
    life.check_certified()


def test_of_two_schedulers_one_is_told_that_the_other_is_at_it(life: Life) -> None:
    with life.processing() as first:
        while not any(state == "started" for _, state in life.events()):
            assert first.poll() is None
            time.sleep(0.05)
        second = life.process()
        assert second.code == 2
        assert "another run is under way" in second.said
        assert "Traceback" not in second.said
        assert first.wait(900) == 0, life.said
    life.check_certified()
    assert len(promotions(life.workdir)) == 1


def test_what_a_killed_command_leaves_running_is_waited_for(life: Life) -> None:
    """The command dies, its compiled pipeline lives on: the next command does not work beside it, and completes after it, in one process."""
    with life.processing("--runner", "kubeflow-local") as first:
        while ("erase", "started") not in life.events():
            assert first.poll() is None
            time.sleep(0.05)
        first.kill()
        first.wait(30)
        second = life.process()
        assert second.code == 2
        assert "another run is under way" in second.said
    done = life.process()  # the group is dead now
    assert done.code == 0, done.said
    life.check_certified()
