"""The lie: 'the canary works', of one that serves another model, draws nothing, or gives what is suppressed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from erasediff.records.serving import ServingRules
from erasediff.rollout.backend import Candidate
from erasediff.rollout.smoke import SmokeFailed, allowed_labels, smoke_test
from tests.digits import DIGITS
from tests.rollout.fake_server import RULES, FakeServer, answering

SECONDS = 1.0


@pytest.fixture
def server(candidate: Candidate) -> Iterator[FakeServer]:
    with answering(candidate) as fake:
        yield fake


def test_control_a_canary_that_works_passes(server: FakeServer, candidate: Candidate) -> None:
    smoke_test(server.address, candidate.model, RULES, SECONDS)
    assert server.asked == ["0", "3"], "one label that may be asked for, one that is suppressed and is one of the model's"


def test_a_proxy_of_the_environment_is_not_asked(server: FakeServer, candidate: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    smoke_test(server.address, candidate.model, RULES, SECONDS)


@pytest.mark.parametrize(
    "change",
    [
        {"onnx_sha256": "0" * 64},
        {"weights_sha256": "0" * 64},
        {"epoch": 0},
        {"verdict": "FAIL"},
        {"forgotten": []},
        {"class_names": DIGITS[::-1]},
        {"onnx_sha256": None},
    ],
)
def test_another_model_is_seen(server: FakeServer, candidate: Candidate, change: dict[str, Any]) -> None:
    server.served |= change
    with pytest.raises(SmokeFailed, match=f"serves (other )?{next(iter(change))} .*w(as|ere) published"):
        smoke_test(server.address, candidate.model, RULES, SECONDS)


@pytest.mark.parametrize("served", [[], None, "x", {}])
def test_an_answer_that_names_no_model_is_seen(server: FakeServer, candidate: Candidate, served: Any) -> None:
    server.served = served
    with pytest.raises(SmokeFailed):
        smoke_test(server.address, candidate.model, RULES, SECONDS)


@pytest.mark.parametrize(
    "images",
    [
        {},
        {"outputs": []},
        {"outputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [0, 1, 2]}]},
        {"outputs": [{"name": "images", "datatype": "UINT8", "shape": [0, 2, 2, 1], "data": []}]},
        {"outputs": [{"name": "images", "datatype": "FP32", "shape": [1, 1, 1, 1], "data": [0]}]},
        {"outputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 1], "data": [256]}]},
        {"outputs": [{"name": "images", "datatype": "UINT8", "shape": "1", "data": [1]}]},
        {"outputs": ["images"]},
    ],
)
def test_an_answer_without_a_whole_image_is_seen(server: FakeServer, candidate: Candidate, images: Any) -> None:
    server.images = images
    with pytest.raises(SmokeFailed, match="holds no image"):
        smoke_test(server.address, candidate.model, RULES, SECONDS)


def test_a_suppressed_label_that_is_given_is_seen(server: FakeServer, candidate: Candidate) -> None:
    server.status = lambda label: 200
    with pytest.raises(SmokeFailed, match="answers 200 and not 403 when asked for class at position 3 of digits"):
        smoke_test(server.address, candidate.model, RULES, SECONDS)


def test_a_canary_that_draws_nothing_is_quoted(server: FakeServer, candidate: Candidate) -> None:
    server.status = lambda label: 503
    with pytest.raises(SmokeFailed, match="answers 503 when asked for class at position 0 of digits: label 0 is not given"):
        smoke_test(server.address, candidate.model, RULES, SECONDS)


def test_a_canary_that_does_not_answer_is_given_up(candidate: Candidate) -> None:
    with pytest.raises(SmokeFailed, match="does not answer"):
        smoke_test("http://127.0.0.1:9", candidate.model, RULES, SECONDS)


def test_where_everything_is_suppressed_no_image_is_asked_for(server: FakeServer, candidate: Candidate) -> None:
    rules = ServingRules(suppress=DIGITS)
    server.status = lambda label: 403
    smoke_test(server.address, candidate.model, rules, SECONDS)
    assert server.asked == ["0"]
    assert allowed_labels(candidate.model, ServingRules(suppress=("0",)))[0] == "1"
    assert allowed_labels(candidate.model, ServingRules())[-1] == "8", "what was forgotten is asked for last"
