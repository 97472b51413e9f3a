"""The lie: 'the document says what the server does', of one that nobody held against the server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.serve.conftest import ROOT, serving

SCHEMATHESIS = ROOT / "build/schemathesis/bin/schemathesis"


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed: run `make fuzz-serve`")
def test_every_answer_is_one_that_the_document_names(exported: Path, tmp_path: Path) -> None:
    """No failure, no undocumented status, no answer of another shape: each route by hundreds of requests, right ones and wrong ones."""
    with serving("--model", exported) as server:
        # A schema cannot say that no two inputs may have one name, so valid requests are among those that are refused.
        unsaid = ("--exclude-checks", "positive_data_acceptance")
        command = [SCHEMATHESIS, "run", f"{server.address}/openapi.json", "--max-examples", "300", "--no-color", *unsaid]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)  # it keeps a cache
    assert done.returncode == 0, done.stdout[-5000:]
    assert "POST /v2/models/{model_name}/infer" not in done.stdout.partition("WARNINGS")[2], "it was reached"
