"""The lie: 'we waited for it', of a wait that a broken connection ended, or that never ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from kubernetes import client

from erasediff.cluster.answers import ConnectionLost, ObjectConflict
from erasediff.cluster.api import CONFIG_MAP, Cluster, Object
from erasediff.cluster.deadline import Deadline, TimeUp
from erasediff.errors import BadInput
from erasediff.rollout.rules import ClusterRules
from tests.proxy import DOWN, FaultyProxy


@contextmanager
def through_proxy(cluster: Cluster) -> Iterator[tuple[Cluster, FaultyProxy]]:
    known = cluster._api.configuration
    address = urlsplit(known.host)
    proxy = FaultyProxy(int(address.port or 443), str(address.hostname))
    settings = client.Configuration()
    settings.host, settings.ssl_ca_cert, settings.api_key = f"https://127.0.0.1:{proxy.port}", known.ssl_ca_cert, dict(known.api_key)
    settings.cert_file, settings.key_file, settings.retries = known.cert_file, known.key_file, False
    try:
        with client.ApiClient(settings) as api:
            other = Cluster(api, cluster.namespace)
            try:
                yield other, proxy
            finally:
                other.close()
    finally:
        proxy.close()


def config_map(**data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


def is_done(present: Object | None) -> bool | None:
    return True if present and present.get("data", {}).get("done") else None


def set_done(cluster: Cluster) -> None:
    cluster.change(CONFIG_MAP, "a", lambda present: {**present, "data": {"done": "yes"}})


def test_a_watch_that_is_cut_is_made_anew(namespace: Cluster) -> None:
    namespace.create(CONFIG_MAP, config_map())
    with through_proxy(namespace) as (cluster, proxy):

        def disturb() -> None:
            for _ in range(3):
                time.sleep(0.7)
                proxy.cut()
            set_done(namespace)

        thread = threading.Thread(target=disturb)
        thread.start()
        assert cluster.wait(CONFIG_MAP, "a", is_done, Deadline(30), "it was not done")
        thread.join()
        assert proxy.met > 3


def test_an_api_server_that_stays_away_ends_the_wait_with_the_time(namespace: Cluster) -> None:
    namespace.create(CONFIG_MAP, config_map())
    with through_proxy(namespace) as (cluster, proxy):
        proxy.set(DOWN)
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="does not answer") as refused:
            cluster.wait(CONFIG_MAP, "a", is_done, Deadline(3), "it was not done")
        assert time.monotonic() - started < 10
        assert "\n" not in str(refused.value)


EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (2)"}}


def test_a_version_that_is_too_old_to_be_watched_is_read_anew(namespace: Cluster) -> None:
    """The first watches are answered as an API server does that has forgotten the version; all else is the real one's answer."""
    namespace.create(CONFIG_MAP, config_map())
    known, watches = namespace._api.configuration, []

    class Expiring(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "watch=True" in self.path and len(watches) < 3:
                watches.append(self.path)
                self.answer(200, json.dumps(EXPIRED).encode() + b"\n")
                return
            if "watch=True" in self.path:
                set_done(namespace)
            headers = {"Authorization": known.api_key["authorization"], "Accept": "application/json"}
            found = requests.get(known.host + self.path, headers=headers, verify=known.ssl_ca_cert, timeout=20)
            self.answer(found.status_code, found.content)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Expiring) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = client.Configuration()
        settings.host = f"http://127.0.0.1:{server.server_port}"
        with client.ApiClient(settings) as api:
            cluster = Cluster(api, namespace.namespace)
            started = time.monotonic()
            assert cluster.wait(CONFIG_MAP, "a", is_done, Deadline(30), "it was not done")
            cluster.close()
        server.shutdown()
    assert len(watches) == 3
    assert time.monotonic() - started > 1, "control: an expired watch is not made anew without a pause"


def test_what_does_not_happen_ends_with_the_time(namespace: Cluster) -> None:
    namespace.create(CONFIG_MAP, config_map())
    started = time.monotonic()
    with pytest.raises(TimeUp, match="it was not done within 2 s"):
        namespace.wait(CONFIG_MAP, "a", is_done, Deadline(2), "it was not done")
    assert time.monotonic() - started < 8


def test_a_change_is_seen_at_once(namespace: Cluster) -> None:
    """Control: by the watch and not by looking again, which is every five seconds."""
    namespace.create(CONFIG_MAP, config_map())
    moment: list[float] = []

    def later() -> None:
        time.sleep(1.5)
        set_done(namespace)
        moment.append(time.monotonic())

    thread = threading.Thread(target=later)
    thread.start()
    namespace.wait(CONFIG_MAP, "a", is_done, Deadline(30), "it was not done")
    seen = time.monotonic()
    thread.join()
    assert seen - moment[0] < 2


def test_of_two_who_change_one_object_the_slower_reads_again(namespace: Cluster) -> None:
    namespace.create(CONFIG_MAP, config_map(count="0"))
    first = namespace.get(CONFIG_MAP, "a")
    assert first is not None
    turns: list[str] = []

    def edit(present: Object) -> Object:
        turns.append(present["data"]["count"])
        if len(turns) == 1:
            namespace.replace(CONFIG_MAP, {**first, "data": {"count": "1"}})
        return {**present, "data": {"count": str(int(present["data"]["count"]) + 1)}}

    assert namespace.change(CONFIG_MAP, "a", edit)["data"] == {"count": "2"}
    assert turns == ["0", "1"]
    with pytest.raises(ObjectConflict, match="was changed by another client in the meantime") as refused:
        namespace.replace(CONFIG_MAP, first)
    assert "\n" not in str(refused.value)


def test_what_the_api_server_refuses_is_one_sentence(namespace: Cluster) -> None:
    with pytest.raises(BadInput, match="refuses to create ConfigMap .*Not_A_Name") as refused:  # noqa: RUF043
        namespace.create(CONFIG_MAP, {**config_map(), "metadata": {"name": "Not_A_Name"}})
    assert "\n" not in str(refused.value)


def test_the_rules_of_a_cluster_are_made_raised_and_kept(namespace: Cluster) -> None:
    rules = ClusterRules(namespace)
    assert rules.read().minimum_epoch == 0
    rules.raise_minimum(2)
    assert rules.read().minimum_epoch == 2
    rules.raise_minimum(1)
    assert rules.read().minimum_epoch == 2
    namespace.change(
        CONFIG_MAP, "erasediff-serving", lambda present: {**present, "data": {"rules.yaml": "suppress: ['3'] # at once\n", "other": "x"}}
    )
    rules.raise_minimum(3)
    found = namespace.get(CONFIG_MAP, "erasediff-serving")
    assert found is not None
    assert found["data"] == {"rules.yaml": "minimum_epoch: 3\nsuppress: ['3'] # at once\n", "other": "x"}
