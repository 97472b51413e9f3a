"""The lie: 'it was exported', of a graph whose manifest nobody can sign."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from erasediff.errors import BadInput
from erasediff.records.core import ExportedRecord
from erasediff.records.settings import NO_KEY
from erasediff.steps.export_onnx import export_onnx
from tests.certified import promoted_run


def test_without_a_key_nothing_is_exported(tmp_path: Path, tiny_unet: Callable[..., torch.nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the first thing that is asked for. Control: a key that is set is looked for; tests/e2e exports with one."""
    run = promoted_run(tmp_path / "work", tiny_unet)
    run.path(ExportedRecord).unlink()
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    monkeypatch.delenv("ERASEDIFF_SIGNING_KEY")
    with pytest.raises(BadInput) as refused:
        export_onnx(run)
    assert str(refused.value) == NO_KEY
    monkeypatch.setenv("ERASEDIFF_SIGNING_KEY", str(tmp_path / "nowhere.pem"))
    with pytest.raises(BadInput, match=r"the signing key .*nowhere\.pem does not exist"):
        export_onnx(run)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
