"""The lie: 'only what passed is served', of a server whose manifest anybody may write who may write the graph."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erasediff.envelopes import open_envelope, read_manifest
from erasediff.errors import EraseDiffError
from erasediff.evidence.keys import PUBLIC, new_key
from erasediff.evidence.signing import sign
from erasediff.files import sha256_file
from erasediff.records.base import canonical_json
from erasediff.records.certificate import IN_TOTO
from erasediff.records.core import MANIFEST, SERVED
from erasediff.records.serving import ServingRules
from erasediff.serve.admission import admit
from erasediff.serve.server import NO_KEY, NOT_VERIFIED
from tests.certified import NOON
from tests.evidence.signed import key_in
from tests.exported import describe
from tests.issuer import issuer_key
from tests.serve.conftest import refusal, running, serving, start, start_bare

UNKNOWN_FIELD = bytes([0xC0, 0x3E, 0x01])
"""A field of number 1000, which no reader of a graph knows."""


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "onnx"))


def payload(folder: Path) -> bytes:
    return open_envelope((folder / MANIFEST).read_bytes(), issuer_key().public, SERVED, "it")


def envelope(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / MANIFEST).read_bytes()))


def put(folder: Path, envelope: dict[str, Any]) -> None:
    (folder / MANIFEST).write_bytes(canonical_json(envelope) + b"\n")


def edited(folder: Path, **changes: object) -> None:
    """The signature as it was, over another manifest."""
    text = canonical_json(json.loads(payload(folder)) | changes)
    put(folder, envelope(folder) | {"payload": base64.b64encode(text).decode()})


def revoked_graph_under_another_name(folder: Path) -> None:
    """A revoked graph with three bytes more, and a manifest that names it, of a later epoch and other weights."""
    with (folder / "model.onnx").open("ab") as graph:
        graph.write(UNKNOWN_FIELD)
    graph_of_it = {"uri": "onnx/model.onnx", "sha256": sha256_file(folder / "model.onnx")}
    edited(folder, onnx=graph_of_it, weights_sha256="0" * 64, epoch=9)


def signed_by_another(folder: Path) -> None:
    new_key(folder.parent / "other", None, NOON, None)
    (folder / MANIFEST).write_bytes(sign(read_manifest(folder, None), SERVED, key_in(folder.parent / "other")))


def under_the_issuers_name(folder: Path) -> None:
    """Signed by another key, with the id of the issuer's."""
    signed_by_another(folder)
    found = envelope(folder)
    put(folder, found | {"signatures": [found["signatures"][0] | {"keyid": issuer_key().public.id}]})


def unsigned(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(payload(folder) + b"\n")


def of_a_certificate(folder: Path) -> None:
    """The issuer's own signature, over the same bytes as the payload of a certificate."""
    (folder / MANIFEST).write_bytes(sign(read_manifest(folder, None), IN_TOTO, issuer_key()))


def truncated(folder: Path) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-20])


def with_a_second_signature(folder: Path) -> None:
    found = envelope(folder)
    put(folder, found | {"signatures": found["signatures"] * 2})


def spelt_otherwise(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(json.dumps(envelope(folder), indent=1).encode())


FRAUDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "the case": (revoked_graph_under_another_name, "is not what the key"),
    "a later epoch": (lambda folder: edited(folder, epoch=9), "is not what the key"),
    "another verdict": (lambda folder: edited(folder, verdict="FAIL"), "is not what the key"),
    "other names of classes": (lambda folder: edited(folder, class_names=[str(n) for n in (*range(8), 9, 8)]), "is not what the key"),
    "other tables": (lambda folder: edited(folder, solvers={"uri": "onnx/solvers.npz", "sha256": "0" * 64}), "is not what the key"),
    "another key": (signed_by_another, "was signed by the key"),
    "another key by the issuer's name": (under_the_issuers_name, "is not what the key"),
    "no signature": (unsigned, "is not signed, .* run `erasediff migrate`"),
    "a certificate": (of_a_certificate, "is not of the type application/vnd.erasediff.served"),
    "truncated": (truncated, "is not JSON"),
    "two signatures": (with_a_second_signature, "has 2 signatures"),
    "another spelling": (spelt_otherwise, "was changed after it was issued"),
}


@pytest.mark.parametrize("fraud", FRAUDS)
def test_a_manifest_that_the_issuer_did_not_sign_is_refused(folder: Path, fraud: str) -> None:
    """Whatever the rules say. Controls: the untouched folder is admitted, and what the issuer signs again, graph and all, is too."""
    key = issuer_key().public
    assert admit(folder, ServingRules(minimum_epoch=1), key).model.epoch == 1, "control"
    change, sentence = FRAUDS[fraud]
    change(folder)
    with pytest.raises(EraseDiffError, match=sentence) as refused:
        admit(folder, ServingRules(), key)
    assert "\n" not in str(refused.value)
    describe(folder)
    assert admit(folder, ServingRules(), key).graph == folder / "model.onnx", "control"


@pytest.mark.parametrize("fraud", ["no signature", "a certificate", "truncated", "two signatures", "another spelling"])
def test_what_is_no_envelope_of_a_manifest_is_refused_without_a_key_too(folder: Path, fraud: str) -> None:
    """By a roll-out and by --insecure. Control: what only the key tells apart is read, so it is the key that refuses it above."""
    change, sentence = FRAUDS[fraud]
    signed_by_another(folder)
    assert read_manifest(folder, None).epoch == 1, "control"
    describe(folder)
    change(folder)
    with pytest.raises(EraseDiffError, match=sentence):
        read_manifest(folder, None)


@pytest.fixture
def rules(folder: Path) -> Path:
    """Those of the case: the graph and its weights are revoked, and the epoch is too low."""
    model = read_manifest(folder, None)
    path = folder.parent / "rules.yaml"
    path.write_text(f"minimum_epoch: 2\nrevoked: ['{model.onnx.sha256}', '{model.weights_sha256}']\n")
    return path


def test_the_server_verifies_before_it_is_ready_or_says_that_nothing_does(folder: Path, rules: Path) -> None:
    """The case of a revoked graph with three bytes more. Control: without a key, by --insecure, that one is served."""
    with serving("--model", folder) as server:
        assert server.ask("/v2/health/ready").status == 200, "control"
    assert NO_KEY in refusal(start_bare("--model", folder))
    assert "contradict each other" in refusal(start("--model", folder, "--insecure"))
    revoked_graph_under_another_name(folder)
    assert "is not what the key" in refusal(start("--model", folder, "--rules", rules))
    new_key(folder.parent / "other", None, NOON, None)
    assert "was signed by the key" in refusal(start("--model", folder, "--rules", rules, "--key", folder.parent / "other" / PUBLIC))
    process = start_bare("--model", folder, "--rules", rules, "--insecure")
    with running(process) as server:
        assert server.ask("/served").content["epoch"] == 9, "control"
        assert process.stderr is not None
        assert NOT_VERIFIED in process.stderr.readline()
