"""The lie: 'it serves what passed, and stops at once when told to', of a server that was only ever asked nicely."""

from __future__ import annotations

import concurrent.futures
import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from erasediff.envelopes import read_manifest
from tests.digits import DIGITS
from tests.exported import describe
from tests.serve.conftest import INFER, Answered, Running, question, refusal, serving, start


def images(answer: Answered) -> NDArray[np.uint8]:
    assert answer.status == 200, answer.body
    (output,) = answer.content["outputs"]
    assert (output["name"], output["datatype"]) == ("images", "UINT8")
    return np.array(output["data"], np.uint8).reshape(output["shape"])


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether something comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def refused_at_start(*options: object) -> str:
    return refusal(start(*options))


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules") / "rules.yaml"


@pytest.fixture(scope="module")
def server(exported: Path, rules: Path) -> Iterator[Running]:
    rules.write_text("suppress: []\n")
    with serving("--model", exported, "--rules", rules, "--max-batch", 8) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_forbidden(rules: Path) -> Iterator[None]:
    yield
    rules.write_text("suppress: []\n")


def test_the_protocol_is_spoken(server: Running, exported: Path) -> None:
    model = read_manifest(exported, None)
    assert server.ask("/v2/health/live").content == {"live": True}
    assert server.ask("/v2/health/ready").content == {"ready": True}
    assert server.ask("/v2/models").content == {"models": ["erasediff"]}
    assert server.ask("/v2/models/erasediff/ready").content == {"name": "erasediff", "ready": True}
    described = server.ask("/v2/models/erasediff").content
    assert {given["name"] for given in described["inputs"]} >= {"label", "num_images", "seed", "guidance", "solver"}
    assert described["outputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    served = server.ask("/served").content
    assert (served["onnx_sha256"], served["epoch"], served["verdict"]) == (model.onnx.sha256, 1, "PASS")
    answer = server.infer(label="3", num_images=2)
    assert images(answer).shape == (2, 8, 8, 1)
    assert set(answer.content) == {"model_name", "id", "outputs"}
    assert isinstance(answer.content["id"], str), "the protocol wants one, and not nothing"
    assert server.ask(INFER, json.dumps(question(label="3") | {"id": "mine"}).encode()).content["id"] == "mine"


def test_an_image_depends_on_its_seed_and_label_and_on_nothing_else(server: Running) -> None:
    alone = images(server.infer(label="3", seed=7))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        crowd = [pool.submit(server.infer, label=str(label), seed=seed) for label in (1, 3, 5) for seed in (6, 7, 8)]
        together = {
            (label, seed): images(one.result()) for (label, seed), one in zip([(a, b) for a in (1, 3, 5) for b in (6, 7, 8)], crowd, strict=True)
        }
    assert np.array_equal(alone, together[3, 7])
    assert np.array_equal(images(server.infer(label="3", seed=6, num_images=3))[1:2], alone), "the second of seed 6 is the first of seed 7"
    assert not np.array_equal(together[3, 6], alone), "control: another seed"
    assert not np.array_equal(together[1, 7], alone), "control: another label"
    assert 'erasediff_batch_images_bucket{le="1.0"}' in server.ask("/metrics").body.decode()


def test_binary_answers_hold_the_same_images(server: Running) -> None:
    body = question(label="3", seed=7, num_images=2) | {"outputs": [{"name": "images", "parameters": {"binary_data": True}}]}
    answer = server.ask(INFER, json.dumps(body).encode())
    length = int(answer.headers["inference-header-content-length"])
    output = json.loads(answer.body[:length])["outputs"][0]
    found = np.frombuffer(answer.body[length:], np.uint8).reshape(output["shape"])
    assert np.array_equal(found, images(server.infer(label="3", seed=7, num_images=2)))


@pytest.mark.parametrize(
    ("whole", "outputs", "binary"),
    [
        (True, None, True),
        (True, [{}], True),
        (True, [{"parameters": {}}], True),
        (True, [{"parameters": {"classification": 0}}], True),
        (False, [{"parameters": {"binary_data": True}}], True),
        (None, [{"parameters": {"binary_data": True}}], True),
        (True, [{"parameters": {"binary_data": False}}], False),
        (False, [{}], False),
        (None, [{}], False),
        (None, None, False),
    ],
)
def test_an_answer_is_binary_if_its_output_says_so_or_else_the_request(
    server: Running, whole: object, outputs: list[dict] | None, binary: bool
) -> None:
    body = question(label="4", seed=11)
    body |= {} if whole is None else {"parameters": {"binary_data_output": whole}}
    body |= {} if outputs is None else {"outputs": [{"name": "images", **output} for output in outputs]}
    answer = server.ask(INFER, json.dumps(body).encode())
    assert answer.status == 200
    assert answer.headers["Content-Type"] == ("application/octet-stream" if binary else "application/json")
    plain = np.array(server.infer(label="4", seed=11).content["outputs"][0]["data"], dtype=np.uint8).tobytes()
    length = answer.headers["Inference-Header-Content-Length"]
    found = answer.body[int(length) :] if binary else np.array(answer.content["outputs"][0]["data"], dtype=np.uint8).tobytes()
    assert found == plain


def test_binary_questions_are_understood(server: Running) -> None:
    head = {"inputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}]}
    text = json.dumps(head).encode()
    answer = server.ask(INFER, text + np.uint32(1).tobytes() + b"3", **{"Inference-Header-Content-Length": str(len(text))})
    assert np.array_equal(images(answer), images(server.infer(label="3")))


@pytest.mark.parametrize(
    ("inputs", "status", "said"),
    [
        ({"label": "11"}, 422, "class '11' is not served: ask for a name of class_names"),
        ({"label": "3", "num_images": 17}, 422, "ask for 1 to 16"),
        ({"label": "3", "num_images": 0}, 422, "num_images"),
        ({"label": "3", "guidance": 9.0}, 422, "guidance 9"),
        ({"label": "3", "guidance": float("nan")}, 422, "guidance"),
        ({"label": "3", "seed": -1}, 422, "seed"),
        ({"label": "3", "num_inference_steps": 50}, 422, "solver 'ddim-50' is not served: ask for ddim-2"),
        ({"label": "3", "solver": "unipc-8"}, 422, "solver"),
        ({"label": 3.0}, 422, "label"),
        ({"label": 3}, 422, "input 'label' must be one BYTES"),
        ({"seed": 3}, 422, "label"),
        ({"label": "3", "width": 4096}, 422, "width"),
    ],
)
def test_what_is_not_served_is_refused_with_a_sentence(server: Running, inputs: dict[str, object], status: int, said: str) -> None:
    answer = server.infer(**inputs)
    assert answer.status == status
    assert said in answer.content["error"]
    assert answer.content["error"].endswith(".")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/nothing", None, 404),
        ("/v2/models/other", None, 404),
        ("/v2/models/other/infer", b"{}", 404),
        ("/v2/models/other/ready", None, 404),
        ("/v2/repository/models/erasediff/unload", b"", 404),
        ("/v2/health/ready", b"", 405),
        (INFER, None, 405),
        (INFER, b"", 400),
        (INFER, b"{", 400),
        (INFER, b"[]", 400),
        (INFER, b'{"inputs": 1}', 400),
        (INFER, b"[" * 100_000, 400),
        (INFER, b'{"id": "\\ud800", "inputs": []}', 400),
        (INFER, b'{"inputs": [{"name": "label", "datatype": "INT64", "shape": [1], "data": [' + b"9" * 5000 + b"]}]}", 400),
        (INFER, b"x" * ((1 << 20) + 1), 413),
    ],
)
def test_what_is_no_request_is_answered_with_a_sentence(server: Running, path: str, body: bytes | None, status: int) -> None:
    answer = server.ask(path, body)
    assert answer.status == status
    assert set(answer.content) == {"error"}


def test_a_label_is_suppressed_without_a_restart(server: Running, rules: Path) -> None:
    assert server.infer(label="3").status == 200
    rules.write_text("suppress: ['3']\n")
    answer = server.infer(label="3")
    assert (answer.status, answer.content["error"]) == (403, "class '3' is suppressed: request another one.")
    assert server.infer(label="4").status == 200
    assert server.ask("/served").content["suppressed"] == ["3"]
    rules.write_text("suppress: []\n")
    assert server.infer(label="3").status == 200, "control: and back"


def test_a_suppressed_label_is_not_had_by_asking_for_nothing(server: Running, rules: Path) -> None:
    assert server.infer(label="").status == 200, "control: the null label is served"
    rules.write_text("suppress: ['3']\n")
    assert server.infer(label="").status == 403
    assert server.infer(label="4", guidance=0.0).status == 403, "guidance 0 is the null label"
    assert server.infer(label="4", guidance=1.5).status == 200
    rules.write_text("suppress: ['8']\n")
    assert server.infer(label="").status == 200, "the model has forgotten label 8: the null label does not draw it, as F2 has measured"


@pytest.mark.parametrize("text", ["minimum_epoch: 2\n", "revoked: [{}]\n", "suppress: three\n", "not: known\n", "{", "", "# nothing yet\n"])
def test_rules_that_do_not_admit_the_model_take_it_out_of_service(server: Running, rules: Path, exported: Path, text: str) -> None:
    model = read_manifest(exported, None)
    rules.write_text(text.replace("{}", model.weights_sha256))
    for path in ("/v2/health/ready", "/v2/models/erasediff/ready"):
        assert server.ask(path).status == 503
    answer = server.infer(label="4")
    assert answer.status == 503
    assert answer.content["error"] == server.ask("/served").content["refusal"]
    assert server.ask("/v2/health/live").status == 200, "a restart would not help"
    rules.write_text("suppress: []\n")
    assert server.ask("/v2/health/ready").status == 200, "control: and back"


def test_rules_that_vanish_take_the_model_out_of_service(server: Running, rules: Path) -> None:
    rules.unlink()
    assert server.infer(label="4").status == 503
    assert server.ask("/served").content["suppressed"] == list(DIGITS)


def test_metrics_name_the_model_and_count(server: Running, exported: Path) -> None:
    model = read_manifest(exported, None)
    server.infer(label="3")
    server.infer(label="99")
    text = server.ask("/metrics").body.decode()
    assert f'onnx_sha256="{model.onnx.sha256}"' in text
    assert "erasediff_erasure_epoch 1.0" in text
    for status in (200, 422):
        assert f'erasediff_request_seconds_count{{status="{status}"}}' in text
    assert "erasediff_waiting_images 0.0" in text


def test_the_page_is_there_and_may_load_nothing_from_elsewhere(server: Running) -> None:
    answer = server.ask("/")
    assert answer.status == 200
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert b"http://" not in answer.body
    assert b"https://" not in answer.body


STRANGE = [None, True, -1, 3, 2**63, 1e308, float("inf"), float("nan"), "", "label", "\ud800", "x" * 5000, [], [3], [[[3]]], {}, {"binary_data": 1}]


def misused(good: bytes, chance: random.Random) -> bytes:
    """Valid JSON in which values are others than they should be."""
    document = json.loads(good)
    for _ in range(chance.randint(1, 3)):
        place = chance.choice([document, *document["inputs"]]) if isinstance(document.get("inputs"), list) else document
        if isinstance(place, dict):
            place[chance.choice([*place, "parameters", "outputs", "id"])] = chance.choice(STRANGE)
    return json.dumps(document).encode()


def mangled(good: bytes, chance: random.Random) -> bytes:
    """Bytes that have been a request."""
    body = bytearray(good)
    for _ in range(chance.randint(1, 6)):
        what, at = chance.randrange(4), chance.randrange(len(body) + 1)
        if what == 0:
            body[at : at + 1] = bytes([chance.randrange(256)])
        elif what == 1:
            del body[at : at + chance.randint(1, 20)]
        elif what == 2:
            body[at:at] = chance.choice(
                [b"null", b"[]", b"{}", b"1e999", b"NaN", b"-1", b'"', b"\xff\xfe", b"true", b"\\ud800", b"99999999999999999999"]
            )
        else:
            body[at:at] = body[: chance.randint(0, len(body))]
    return bytes(body)


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.thorough)])
def test_no_mangled_request_brings_a_failure_or_a_traceback(server: Running, count: int) -> None:
    """All of them over one connection."""
    chance, good = random.Random(0), json.dumps(question(label="3", num_images=1, seed=1, guidance=1.0, solver="ddim-2")).encode()
    host, _, port = server.address.removeprefix("http://").partition(":")
    import http.client

    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    counted: dict[int, int] = {}
    for _ in range(count):
        body = chance.choice([mangled, misused])(good, chance)
        headers = {"Inference-Header-Content-Length": str(chance.randint(-2, len(body) + 5))} if chance.random() < 0.3 else {}
        connection.request("POST", INFER, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        counted[answer.status] = counted.get(answer.status, 0) + 1
        assert answer.status in (200, 400, 403, 413, 422), (answer.status, content, body)
        assert answer.status == 200 or set(json.loads(content)) == {"error"}
    assert counted[400] > count / 10
    assert counted[422] > count / 100
    assert counted.get(200, 0) > 0, "control: some are still requests"


def test_a_full_queue_says_when_to_ask_again(exported: Path) -> None:
    with serving("--model", exported, "--max-waiting", 1, "--max-batch", 1) as server, concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda seed: server.infer(label="3", seed=seed, num_images=16), range(64)))
        refused = [answer for answer in answers if answer.status == 429]
        assert refused
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert {answer.status for answer in answers} == {200, 429}, "control: some were served"
        assert server.infer(label="3").status == 200


def test_a_server_that_is_told_to_end_answers_what_it_has_accepted(exported: Path) -> None:
    with serving("--model", exported, "--max-batch", 1, "--max-waiting", 999) as server, concurrent.futures.ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(server.infer, label="3", num_images=16, seed=seed) for seed in range(16)]
        assert eventually(lambda: "erasediff_batch_images_count 0" not in server.ask("/metrics").body.decode())
        assert server.stop() == 0
        statuses = [one.result().status for one in waiting if one.exception() is None]
        assert statuses
        assert set(statuses) <= {200, 503}
        assert 200 in statuses


def test_without_a_page_there_is_none_and_the_rest_is(exported: Path) -> None:
    with serving("--model", exported, "--no-ui") as server:
        assert server.ask("/").status == 404
        assert server.infer(label="3").status == 200


def test_a_model_that_may_not_be_served_ends_the_process(exported: Path, tmp_path: Path) -> None:
    """By its rules, its files, or where it is. test_admission.py has every reason that a manifest gives."""
    import shutil

    whole = tmp_path / "whole"
    shutil.copytree(exported, whole)
    assert "below the minimum" in refused_at_start("--model", whole, "--rules", written(tmp_path, "minimum_epoch: 2\n"))
    assert "rules" in refused_at_start("--model", whole, "--rules", tmp_path / "missing.yaml")
    (whole / "model.onnx").write_bytes(b"another graph")
    describe(whole)  # a manifest that fits a file which is no graph
    assert "cannot be opened by onnxruntime" in refused_at_start("--model", whole)
    assert "is not a folder" in refused_at_start("--model", tmp_path / "nothing")
    assert "is not supported" in refused_at_start("--model", "models:/digits@champion")


def test_settings_that_cannot_be_end_the_process(exported: Path) -> None:
    assert "--provider tpu is not known" in refused_at_start("--model", exported, "--provider", "tpu")
    assert "has no CUDAExecutionProvider" in refused_at_start("--model", exported, "--provider", "cuda")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "is not available" in refused_at_start("--model", exported, "--port", taken.getsockname()[1])


def written(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text)
    return path


def test_without_the_servers_environment_the_sentence_says_which(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from erasediff.cli import main

    assert main(["serve", "--model", str(exported)]) == 2
    assert "is not installed here: use the serving image, or an environment from requirements-serve.lock" in capsys.readouterr().err
