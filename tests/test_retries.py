"""The lies: 'a store that was away for a minute has ended the run', and 'it was tried again' of what can never succeed.

Every service here is real but the API server. It is away when a call begins, and comes back when the first line about it is printed.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from erasediff.attempts.workdir import Workdir
from erasediff.data.versioning import ForgetStore
from erasediff.errors import BadInput, EraseDiffError, Outage, Unreachable
from erasediff.evidence.ledger import Ledger
from erasediff.evidence.purge.database import MlflowDatabase
from erasediff.evidence.purge.s3 import S3Place
from erasediff.evidence.served_rules import suppress
from erasediff.evidence.timestamp import stamp
from erasediff.records.serving import parse_rules
from erasediff.records.settings import RetrySettings, RollOutSettings
from erasediff.rollout.store import Exported, S3Store
from erasediff.tracking import CHAMPION, Tracking
from tests.evidence.postgresql import postgresql_server
from tests.exported import describe
from tests.kubeflow.server import FakeApi, Refused
from tests.mlflow_server import mlflow_server
from tests.proxy import DOWN, NONE, FaultyProxy, answering
from tests.s3 import s3_server

LINE = re.compile(r"(.+)\. Trying again in \d+ s, for \d+ more (seconds|minutes) at most\.\n")
FORBIDDEN = '<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


class Said(io.StringIO):
    """Standard error, with what happens at the first line."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self._then = then

    def flush(self) -> None:
        self._then()


@dataclass
class Patience:
    """How long calls are tried again in a test."""

    patch: pytest.MonkeyPatch

    def none(self) -> None:
        self.patch.setenv("ERASEDIFF_RETRY_MINUTES", "0")

    def of(self, minutes: float, then: Callable[[], object] = lambda: None) -> Said:
        """Try again; what is printed, and what happens when it is."""
        self.patch.setenv("ERASEDIFF_RETRY_MINUTES", str(minutes))
        said = Said(then)
        self.patch.setattr(sys, "stderr", said)
        return said


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    return Patience(monkeypatch)


def survives(patience: Patience, away: Callable[[], object], back: Callable[[], object], call: Callable[[], Any], names: str) -> Any:
    """A call to a service that is away: it fails at once with a sentence where nothing is tried again (the control), and else waits and succeeds."""
    away()
    patience.none()
    with pytest.raises(Outage, match=names) as failed:
        call()
    assert str(failed.value).endswith(".")
    said = patience.of(5, back)
    result = call()
    lines = said.getvalue().splitlines(keepends=True)
    assert lines, "it was away"
    assert all(LINE.fullmatch(line) for line in lines), lines
    remedy = str(failed.value).rpartition(": ")[2]
    assert all(re.search(names, line) and remedy in line for line in lines), "a line says what does not answer, and what to do"
    return result


def never_again(patience: Patience, proxy: FaultyProxy, call: Callable[[], Any]) -> int:
    """A call that is refused for good, by a service that would be asked again for some seconds: by how many connections it was asked."""
    proxy.met = 0
    said = patience.of(0.1)
    with pytest.raises(EraseDiffError) as failed:
        call()
    assert not isinstance(failed.value, Outage)
    assert said.getvalue() == ""
    return proxy.met


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as address:
        proxy = FaultyProxy(urlsplit(address).port or 0)
        yield proxy
        proxy.close()


def test_mlflow_is_waited_for_and_what_it_refuses_is_not_asked_again(
    mlflow: FaultyProxy, patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.address)
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "1")
    tracking = Tracking(tmp_path)
    run = survives(patience, lambda: mlflow.set(DOWN), lambda: mlflow.set(NONE), lambda: tracking.start_run("a", {"k": "v"}), "MLflow at")
    assert tracking.client.get_run(run).data.tags["k"] == "v"
    (tmp_path / "weights").write_text("w")
    source = tracking.log_artifacts(run, tmp_path, "model")
    unavailable = answering("503 Service Unavailable")

    def register() -> str:
        return tracking.register("m", source, run, {"a_sha256": "1"})

    version = survives(patience, lambda: mlflow.set(unavailable), lambda: mlflow.set(NONE), register, "MLflow at")
    assert register() == version, "one version, however often it was asked for"
    assert len(tracking.versions("m")) == 1

    assert tracking.alias("m", CHAMPION) is None  # nothing of that name is an answer, not an outage
    with pytest.raises(BadInput, match="models:/m/9"):
        tracking.resolve("models:/m/9")
    assert never_again(patience, mlflow, lambda: tracking.set_alias("m", CHAMPION, "9")) <= 1, "over the connection that is open"
    mlflow.set(answering("403 Forbidden", json.dumps({"error_code": "PERMISSION_DENIED", "message": "no"}), "application/json"))
    assert never_again(patience, mlflow, lambda: tracking.set_alias("m", CHAMPION, "1")) == 1
    mlflow.set(NONE)
    assert never_again(patience, mlflow, lambda: tracking.download(f"{source}/nothing", tmp_path / "got")) < 9


def test_a_service_that_stays_away_is_given_up_in_time(mlflow: FaultyProxy, patience: Patience, tmp_path: Path, monkeypatch: Any) -> None:
    """Control of all the others: the time ends. The last try comes at its end, and its sentence is the step's."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking = Tracking(tmp_path)
    mlflow.set(DOWN)
    said = patience.of(1 / 60)
    with pytest.raises(Outage, match="start the server or correct MLFLOW_TRACKING_URI"):
        tracking.alias("m", CHAMPION)
    mlflow.set(NONE)
    assert len(said.getvalue().splitlines()) in (1, 2)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FaultyProxy, Any]]:
    with s3_server(monkeypatch, "bucket") as (url, client):
        proxy = FaultyProxy(urlsplit(url).port or 0)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        yield proxy, client
        proxy.close()


def test_a_store_is_waited_for_when_it_is_published_to_and_when_it_is_purged(s3: tuple[FaultyProxy, Any], patience: Patience, tmp_path: Path) -> None:
    proxy, client = s3
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    (tmp_path / "solvers.npz").write_bytes(b"tables")
    describe(tmp_path)
    exported = Exported.read(tmp_path)
    store, place = S3Store("bucket", "models"), S3Place("bucket", "models", proxy.address)
    down, up = (lambda: proxy.set(DOWN)), (lambda: proxy.set(NONE))
    survives(patience, down, up, lambda: store.publish(exported), "publishing to s3://bucket")
    assert client.list_objects_v2(Bucket="bucket")["KeyCount"] == 3
    slow = answering("503 Slow Down", '<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>', "application/xml")
    (first, *_) = survives(patience, lambda: proxy.set(slow), up, place.items, "SlowDown")
    survives(patience, down, up, first.remove, "does not answer")
    assert client.list_objects_v2(Bucket="bucket")["KeyCount"] == 2, "control: one was deleted"

    proxy.set(answering("403 Forbidden", FORBIDDEN, "application/xml"))
    assert never_again(patience, proxy, lambda: store.publish(exported)) == 1
    assert never_again(patience, proxy, place.items) == 1
    proxy.set(NONE)
    assert never_again(patience, proxy, lambda: S3Store("nowhere", "models").publish(exported)) <= 2


def test_a_dvc_remote_is_waited_for_and_a_wrong_bucket_is_not(
    s3: tuple[FaultyProxy, Any], patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)  # it tries by itself, and longer, before it says that nothing answers
    proxy, _ = s3
    folder = tmp_path / "forget"
    folder.mkdir()
    (folder / "images").write_bytes(b"bytes" * 100)
    store, scratch = ForgetStore("s3://bucket/request", proxy.address), tmp_path / "scratch"
    down, up = (lambda: proxy.set(DOWN)), (lambda: proxy.set(NONE))
    version = survives(patience, down, up, lambda: store.publish(folder, scratch), "the DVC remote")
    survives(patience, down, up, lambda: store.fetch(version, tmp_path / "got", scratch), "the DVC remote")
    assert (tmp_path / "got/images").read_bytes() == b"bytes" * 100
    assert list(scratch.iterdir()) == [], "nothing of the tries that failed is left"

    never_again(patience, proxy, lambda: ForgetStore("s3://nowhere/request", proxy.address).publish(folder, scratch))
    proxy.set(answering("403 Forbidden"))  # to HEAD, so without a body
    assert never_again(patience, proxy, lambda: store.publish(folder, scratch)) == 1


def test_a_ledger_and_mlflows_database_in_postgresql_are_waited_for(patience: Patience, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgresql_server() as url:
        Ledger.open(url)
        socket = Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432"
        away, back = socket.with_name("away"), (lambda: socket.with_name("away").exists() and socket.with_name("away").rename(socket))
        ledger = survives(patience, lambda: socket.rename(away), back, lambda: Ledger.existing(url), "the ledger postgresql://")
        assert ledger.requests() == ()

        # The database is there and not MLflow's: that is an answer, which comes once the server does.
        database = f"{url.replace('postgresql:', 'postgresql+psycopg:')}&client_encoding=utf8"
        patience.none()
        socket.rename(away)
        with pytest.raises(Outage, match="does not answer"):
            MlflowDatabase(database)
        said = patience.of(5, back)
        with pytest.raises(BadInput, match="is not MLflow's"):
            MlflowDatabase(database)
        assert LINE.fullmatch(said.getvalue())

        said = patience.of(5)
        for wrong in (url.replace("//ledger:", "//nobody:"), url.replace("/postgres?", "/nowhere?")):
            with pytest.raises(BadInput) as refused:
                Ledger.existing(wrong)
            assert not isinstance(refused.value, Unreachable)
        assert said.getvalue() == "", "a wrong password or database is not tried again"


class ConfigMaps(FakeApi):
    """A stand-in for an API server that knows ConfigMaps, in one namespace."""

    PREFIX = "/api/v1/namespaces/erasediff/configmaps"

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}
        self.denied = False

    def answer(self, method: str, path: str, query: Any, headers: Any, body: bytes) -> Any:
        verbs = ["create", "get", "list", "update"]
        kind = {"name": "configmaps", "singularName": "configmap", "namespaced": True, "kind": "ConfigMap", "verbs": verbs}
        known = {
            "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [kind]},
        }
        if path in known:
            return known[path]
        if self.denied:
            raise Refused(403, 'configmaps is forbidden: User "x" cannot get resource "configmaps" in API group "" in the namespace "erasediff"')
        name = path.removeprefix(self.PREFIX).strip("/")
        if method in ("POST", "PUT"):
            document = json.loads(body)
            document["metadata"]["resourceVersion"] = str(len(self.requests))
            self.kept[document["metadata"]["name"]] = document
            return document
        if name not in self.kept:
            raise Refused(404, f'configmaps "{name}" not found')
        return self.kept[name]

    def error(self, refused: Refused) -> Any:
        return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": refused.status, "message": refused.message}


def test_the_api_server_is_waited_for_when_a_label_is_suppressed(patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RollOutSettings(backend="deployment")
    with ConfigMaps() as api:
        proxy = FaultyProxy(urlsplit(api.host).port or 0)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": proxy.address}}],
            "users": [{"name": "u", "user": {}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        workdir = Workdir.open(tmp_path / "work")
        unavailable = answering("503 Service Unavailable", "{}", "application/json")
        survives(patience, lambda: proxy.set(unavailable), lambda: proxy.set(NONE), lambda: suppress(workdir, "3", settings), "API server")
        assert parse_rules(api.kept["erasediff-serving"]["data"]["rules.yaml"], "rules").suppress == ("3",)
        api.denied = True
        never_again(patience, proxy, lambda: suppress(workdir, "4", settings))
        proxy.close()


def test_a_time_stamp_authority_that_is_away_is_waited_for(patience: Patience) -> None:
    """It is a proxy without an authority behind it: what it answers at last is no stamp, which nobody asks for again."""
    proxy = FaultyProxy(1)
    proxy.set(DOWN)
    said = patience.of(5, lambda: proxy.set(answering("200 OK", "no stamp")))
    with pytest.raises(Unreachable, match="does not answer correctly") as failed:
        stamp(b"certificate", proxy.address)
    assert not isinstance(failed.value, Outage)
    assert len(said.getvalue().splitlines()) == 1
    proxy.close()


@pytest.mark.parametrize(
    ("variables", "minutes"), [({}, 0), ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 10), ({"ERASEDIFF_RETRY_MINUTES": "0.5"}, 0.5)]
)
def test_who_waits_at_a_terminal_is_told_at_once_and_a_pod_waits_minutes(
    variables: dict[str, str], minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "ERASEDIFF_RETRY_MINUTES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert RetrySettings.load().minutes == minutes
    monkeypatch.setenv("ERASEDIFF_RETRY_MINUTES", "soon")
    with pytest.raises(BadInput, match="correct ERASEDIFF_RETRY_MINUTES"):
        RetrySettings.load()
    assert "ERASEDIFF_RETRY_MINUTES" in RetrySettings.variables()
