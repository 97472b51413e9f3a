"""A client that asks at a steady pace, whatever becomes of its requests."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import requests

from erasediff.cluster.api import Cluster
from erasediff.errors import EraseDiffError
from erasediff.rollout.objects import PORT
from erasediff.rollout.smoke import request_body
from tests.cluster.conftest import addresses

RATE = 20
"""Requests a second."""
_LOOK_SECONDS = 0.5


class Client:
    """Twenty requests a second of a Service, which it looks up as a proxy on a node would: a little late.

    Three of four draw an image; the fourth asks which weights are served.
    """

    def __init__(self, cluster: Cluster, service: str = "erasediff") -> None:
        self.answers: Counter[str] = Counter()
        self.weights: list[str] = []
        """Of the answers that name weights, in order of time."""
        self.seconds = 0.0
        self._cluster, self._service = cluster, service
        self._found: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._look_up, self._pace)]

    def __enter__(self) -> Client:
        self._found = addresses(self._cluster, self._service)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _look_up(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            try:
                self._found = addresses(self._cluster, self._service)
            except EraseDiffError:  # of a test that takes the credentials away; a proxy keeps what it knows
                continue

    def _pace(self) -> None:
        start, turn = time.monotonic(), 0
        with ThreadPoolExecutor(16) as pool:
            while not self._stop.wait(max(0.0, start + turn / RATE - time.monotonic())):
                pool.submit(self._ask, turn)
                turn += 1
        self.seconds = time.monotonic() - start

    def _ask(self, turn: int) -> None:
        try:
            found = self._found
            address = f"http://{found[turn % len(found)]}:{PORT}"
            with requests.Session() as session:
                session.trust_env = False
                if turn % 4:
                    answer = session.post(f"{address}/v2/models/erasediff/infer", json=request_body("0"), timeout=20)
                else:
                    answer = session.get(f"{address}/served", timeout=20)
                    self.weights.append(answer.json()["weights_sha256"])
                self.answers[str(answer.status_code)] += 1
        except (requests.RequestException, ZeroDivisionError) as error:
            self.answers[type(error).__name__] += 1
