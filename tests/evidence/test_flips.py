"""The lie: 'it verifies', of something that is not, to the last byte, what was certified."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from erasediff.envelopes import read_public_key
from erasediff.errors import BadInput
from erasediff.evidence.verification import read_certificate
from tests.evidence.conftest import Issued

CASE = 0x20
"""Flipping this bit makes another letter of base64 or hexadecimal, or the same one in the other case."""


def survivors(path: Path, positions: Iterable[int], check: Callable[[], object], masks: tuple[int, ...] = (1, CASE)) -> list[int]:
    """Positions at which a flipped byte is not refused with one sentence."""
    passed, sentences, whole = list[int](), list[str](), path.read_bytes()
    try:
        with path.open("r+b") as handle:
            for position in positions:
                for mask in masks:
                    handle.seek(position)
                    handle.write(bytes([whole[position] ^ mask]))
                    handle.flush()
                    try:
                        check()
                        passed.append(position)
                    except BadInput as error:
                        sentences.append(str(error))
                handle.seek(position)
                handle.write(whole[position : position + 1])
                handle.flush()
    finally:
        path.write_bytes(whole)
    assert not [said for said in sentences if "\n" in said or not said.endswith((".", "?"))]
    return passed


few_and_many = pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.thorough)])
"""How many bytes are flipped, drawn at random; the second is all of a certificate, of a purge ledger and of what lies beside the weights."""


def some(path: Path, count: int) -> list[int]:
    size = path.stat().st_size
    return sorted(np.random.default_rng(0).choice(size, min(count, size), replace=False).tolist())


def test_control_the_unflipped_ones_verify(issued: Issued) -> None:
    verified = issued.verify(model=issued.model, onnx=issued.onnx, purge=issued.purge)
    assert verified.checks_passed == ("signature", "weights folder", "ONNX graph", "purge ledger")


def test_control_a_flip_that_is_not_looked_at_survives(issued: Issued) -> None:
    """The same loop over the graph, where the graph is not handed in."""
    assert survivors(issued.onnx, [0, 1], issued.verify) == [0, 0, 1, 1]


@few_and_many
def test_no_byte_of_the_certificate_can_be_another(issued: Issued, count: int) -> None:
    key = read_public_key(issued.key)
    assert 10_000 < issued.certificate.stat().st_size < 20_000
    assert survivors(issued.certificate, some(issued.certificate, count), lambda: read_certificate(issued.certificate, key)) == []


@few_and_many
def test_no_byte_of_the_purge_ledger_can_be_another(issued: Issued, count: int) -> None:
    assert survivors(issued.purge, some(issued.purge, count), lambda: issued.verify(purge=issued.purge), (1,)) == []


@few_and_many
def test_no_byte_of_the_graph_can_be_another(issued: Issued, count: int) -> None:
    assert survivors(issued.onnx, some(issued.onnx, count), lambda: issued.verify(onnx=issued.onnx), (1,)) == []


@few_and_many
def test_no_byte_of_the_weights_can_be_another(issued: Issued, count: int) -> None:
    weights = next(issued.model.rglob("*.safetensors"))
    assert survivors(weights, some(weights, count), lambda: issued.verify(model=issued.model), (1,)) == []


@few_and_many
@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_nor_of_what_lies_beside_the_weights(issued: Issued, name: str, count: int) -> None:
    path = issued.model / name
    assert survivors(path, some(path, count), lambda: issued.verify(model=issued.model), (1,)) == []


def test_the_signatures_of_model_signing_see_it_too(issued: Issued) -> None:
    signature, graph = issued.run.folder / "onnx.model.sig", issued.onnx
    weights = next(issued.model.rglob("*.safetensors"))

    def check() -> None:
        from erasediff.evidence.model_signature import check_model

        check_model(graph, signature, issued.key)
        check_model(issued.model, issued.run.folder / "weights.model.sig", issued.key)

    check()
    assert survivors(graph, some(graph, 20), check, (1,)) == []
    assert survivors(weights, some(weights, 20), check, (1,)) == []


@pytest.mark.parametrize("what", ["certificate", "purge", "onnx", "model"])
def test_the_command_line_says_no_with_a_code_and_one_sentence(issued: Issued, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    from erasediff.cli import main

    arguments = ["verify", issued.certificate, "--key", issued.key, "--purge", issued.purge, "--onnx", issued.onnx, "--model", issued.model]
    assert main([str(one) for one in arguments]) == 0
    capsys.readouterr()
    path = next(issued.model.rglob("*.safetensors")) if what == "model" else getattr(issued, what)
    whole = path.read_bytes()
    for position in some(path, 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            assert main([str(one) for one in arguments]) == 2
        finally:
            path.write_bytes(whole)
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("erasediff: ")
        assert said.err.count("\n") == 1
